#!/usr/bin/env node
/** WhatsApp by QR code alone. */

import { main } from "../common/run.js";
import { baileys } from "./baileys.js";

await main("fanfare-baileys", [baileys]);
