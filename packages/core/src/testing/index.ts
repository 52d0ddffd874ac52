/**
 * The conformance suite: every law of `LockBackend` as a test, for anybody who writes a backend.
 *
 * @since 0.1.0
 */
export * as LockTest from "./LockTest.ts"
