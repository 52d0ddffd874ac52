/**
 * Suites for authors of backends: every law of `LockBackend` as a test, and what every edge to a server must do.
 *
 * @since 0.1.0
 */
export * as ConnectionTest from "./connection/ConnectionTest.ts"
export * as LockTest from "./LockTest.ts"
