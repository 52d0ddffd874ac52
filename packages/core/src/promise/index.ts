/**
 * Locks for programs without Effect, with the shape of the Web Locks API.
 *
 * @since 0.1.0
 */
export { LockManager, type PromiseLease, type RequestOptions } from "./LockManager.ts"
