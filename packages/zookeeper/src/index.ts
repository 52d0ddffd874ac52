/**
 * @since 0.1.0
 */
export * as ZooKeeperLock from "./ZooKeeperLock.ts"
