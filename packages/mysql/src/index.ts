/**
 * @since 0.1.0
 */
export * as MysqlLock from "./MysqlLock.ts"
