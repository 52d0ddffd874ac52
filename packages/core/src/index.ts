/**
 * @since 0.1.0
 */
export * as Leader from "./Leader.ts"
export type { Lease } from "./Lease.ts"
export {
  acquire,
  Lock,
  tryAcquire,
  withLock,
  withLockIfAvailable,
  withLocks,
  withLocksIfAvailable,
  withPermit,
  withPermitIfAvailable
} from "./Lock.ts"
export {
  type Grant,
  type Inspection,
  LockBackend,
  type LockRequest,
  type Released,
  type Renewal,
  type Tokens,
  type Validity
} from "./LockBackend.ts"
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
