export * as RedisLock from "./RedisLock.ts"
export * as Redlock from "./Redlock.ts"
