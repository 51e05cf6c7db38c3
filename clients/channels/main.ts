#!/usr/bin/env node
/** All channels that are configured, in one process. */

import { baileys } from "./baileys/baileys.js";
import { main } from "./common/run.js";
import { telegram } from "./telegram/telegram.js";
import { waba } from "./waba/waba.js";

await main("fanfare-channels", [telegram, waba, baileys]);
