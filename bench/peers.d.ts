/**
 * What is needed of the types of the packages that only this folder has, so that `npx tsc` does without them: they are
 * installed by the first `npm run bench`. The tests have some of them too (Express and its sessions).
 */
declare module "@upstash/redis/cloudflare";
declare module "cloudflare:workers";
declare module "connect-redis";
declare module "express-rate-limit";
declare module "express-session";
declare module "hono-sessions";
declare module "hono/cookie";
declare module "iron-session";
declare module "rate-limit-redis";
declare module "redis";
declare module "workerd";

declare module "hono" {
  export type Handler = (context: any, next: () => Promise<void>) => unknown;
  export class Hono {
    use(path: string, ...handlers: Handler[]): void;
    get(path: string, ...handlers: Handler[]): void;
    post(path: string, ...handlers: Handler[]): void;
  }
}

declare module "hono/factory" {
  export function createMiddleware(handler: import("hono").Handler): import("hono").Handler;
}

declare module "express" {
  export type Handler = (request: any, response: any, next: (error?: unknown) => void) => unknown;
  export type ErrorHandler = (error: Error, ...others: Parameters<Handler>) => unknown;
  interface App {
    use(handler: Handler): void;
    use(handler: ErrorHandler): void;
    get(path: string, ...handlers: Handler[]): void;
    post(path: string, ...handlers: Handler[]): void;
    put(path: string, ...handlers: Handler[]): void;
    listen(port: number, address: string): import("node:http").Server;
  }
  const express: { (): App; json(): Handler };
  export default express;
}

declare module "ws" {
  export class WebSocketServer {
    constructor(options: { server: import("node:http").Server });
    on(
      event: "connection",
      listener: (socket: any, request: import("node:http").IncomingMessage) => void,
    ): this;
  }
  import { EventEmitter } from "node:events";
  export class WebSocket extends EventEmitter {
    constructor(url: string, options?: { headers: Record<string, string> });
    send(text: string): void;
    close(): void;
  }
}
