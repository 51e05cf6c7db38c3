/** The API of the Socket.IO emitter, for back ends that publish with Fanfare. */

export { Emitter, Operator, type EmitterOptions, type EventNames, type Payload, type Published } from "./emitter.js";
export { EmitterError } from "./error.js";
