#!/usr/bin/env node
/** Telegram alone. */

import { main } from "../common/run.js";
import { telegram } from "./telegram.js";

await main("fanfare-telegram", [telegram]);
