// What these tests use of the repository's test library.

declare module "*/tests/lib/fanfare.js" {
  export const ROOT: string;
  export const DEADLINE: number;
  export interface Process {
    address: string;
    url: string;
    stop(): Promise<void>;
    kill(): Promise<void>;
  }
  export function start(options?: { serverArgs?: string[]; bridgeArgs?: string[] }): Promise<{ server: Process; bridge: Process; stop(): Promise<void> }>;
  export function startServer(args?: string[], listen?: string): Promise<Process>;
  export function startBridge(server: Process, args?: string[]): Promise<Process>;
  export function until<T>(probe: () => T | Promise<T>, what: string, ms?: number): Promise<T>;
  export function within<T>(promise: Promise<T>, what: string, ms?: number): Promise<T>;
}

declare module "*/tests/lib/producer.js" {
  export const PYTHON: string;
  export function generateStubs(): void;
  export class Producer {
    constructor(target: string);
    call(token: string, method: string, request: object): Promise<any>;
    close(): void;
  }
}

declare module "*/tests/lib/proxy.js" {
  export class Proxy {
    static to(target: string): Promise<Proxy>;
    readonly url: string;
    readonly address: string;
    refuseUpgrades: boolean;
    cut(): void;
    close(): void;
  }
}

declare module "*/tests/lib/tokens.js" {
  export function soon(seconds?: number): number;
  export function token(claims: object): string;
  export function user(userId: number, organizationId: string, more?: object): string;
  export function producer(tenant?: string, more?: object): string;
}
