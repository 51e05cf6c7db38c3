// The global `io` for pages that load the Socket.IO client with a script element.

import { io } from "socket.io-client";

export default io;
