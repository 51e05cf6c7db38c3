// How the maps that `fanfare types` generates are read: names, payloads and answers.

/**
 * Where an application says once which catalog it speaks; everything here then knows its names and types:
 *
 *     declare module "@fanfare/client" {
 *       interface Register { events: ServerToClientEvents; calls: ClientToServerEvents }
 *     }
 */
export interface Register {}

/** What a call's acknowledgement says when it was refused. */
export interface Refused {
  error: { code: string; message: string; path?: string; retryAfterMs?: number };
}

/** An acknowledgement: what was asked for, or why not. */
export type Answer<T> = T | Refused;

/** Events of which nothing is known. */
export interface AnyEvents {
  [name: string]: (event: any, cursor: string) => void;
}

/** Calls of which nothing is known. */
export interface AnyCalls {
  [name: string]: (request?: any, acknowledge?: (answer: any) => void) => void;
}

/** The registered events, or any. */
export type Events = Register extends { events: infer E extends object } ? E : AnyEvents;
/** The registered calls, or any. */
export type Calls = Register extends { calls: infer C extends object } ? C : AnyCalls;

/** The names of a map. */
export type Name<M> = keyof M & string;

type ParametersOf<M, N extends keyof M> = M[N] extends (...parameters: infer P) => unknown ? P : never;

/** What handles an event: its payload and, for stored events, its cursor. */
export type Handler<S, N extends Name<S>> = (...parameters: ParametersOf<S, N>) => void;
/** An event's payload. */
export type Payload<S, N extends Name<S>> = ParametersOf<S, N>[0];

type Full<C, N extends keyof C> = Required<ParametersOf<C, N>>;

/** What a call takes. `undefined`: nothing. */
export type RequestOf<C, N extends Name<C>> =
  Full<C, N> extends [] | [(...parameters: never[]) => unknown] ? undefined : ParametersOf<C, N>[0];

/** What a call answers when it is not refused. */
export type AnswerOf<C, N extends Name<C>> =
  Full<C, N> extends [...unknown[], (answer: infer A) => unknown] ? Exclude<A, Refused> : void;

/** The names of the calls that take what the call `J` takes. */
export type SameRequest<C, J extends Name<C>> = {
  [N in Name<C>]: RequestOf<C, J> extends RequestOf<C, N> ? N : never;
}[Name<C>];

/** The arguments behind a call's name: one that needs nothing may be called with nothing. */
export type Arguments<Q, Options> =
  undefined extends Q ? [request?: Q, options?: Options]
  : Record<never, never> extends Q ? [request?: Q, options?: Options]
  : [request: Q, options?: Options];
