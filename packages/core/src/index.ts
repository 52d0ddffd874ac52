/**
 * @since 0.1.0
 */
export type { Lease } from "./Lease.ts"
export { acquire, Lock, tryAcquire, withLock, withLockIfAvailable } from "./Lock.ts"
export { type Grant, LockBackend, type LockRequest, type Validity } from "./LockBackend.ts"
export * as LockConfig from "./LockConfig.ts"
export {
  BackendReason,
  InvalidLockRequest,
  LockBackendError,
  type LockError,
  LockLost,
  LockUnavailable,
  LossReason,
  UnavailableReason
} from "./LockError.ts"
export * as LockRegistry from "./LockRegistry.ts"
export * as MemoryLock from "./MemoryLock.ts"
