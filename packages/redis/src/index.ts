export * as RedisLock from "./RedisLock.ts"
