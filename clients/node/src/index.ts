/** Publishes typed realtime events with Fanfare, and reads them. */

export { connect, Client, type ConnectOptions, type Token } from "./client.js";
export { FanfareError } from "./error.js";
export type { Message, TargetOptions } from "./request.js";
export { Stream, type Sent, type StreamOptions } from "./stream.js";
export { Subscription, type SubscribeOptions } from "./subscription.js";
export * from "./gen/fanfare/v1/realtime_pb.js";
export { Reason, ReasonSchema } from "./gen/fanfare/v1/reason_pb.js";
