#!/usr/bin/env node
/** WhatsApp by the Cloud API alone. */

import { main } from "../common/run.js";
import { waba } from "./waba.js";

await main("fanfare-waba", [waba]);
