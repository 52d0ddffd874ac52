/**
 * @since 0.1.0
 */
export * as EtcdLock from "./EtcdLock.ts"
