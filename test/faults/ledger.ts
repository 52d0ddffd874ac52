/**
 * What a worker does with a section whose work becomes durable.
 */
import type { Lease, LockBackendError, LockLost } from "@dlock/core"
import { Context, type Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"

/** Does something under a lock, and writes down that it did. */
export interface Entered {
  readonly lease: Lease
  readonly section: Effect.Effect<void>
  /** Between the write and what fences it. */
  readonly beforeFence: Effect.Effect<void>
}

/** How the work of a section becomes durable; by default it does not. */
export const Ledger = Context.Reference<{
  readonly isFenced: boolean
  readonly enter: (entered: Entered) => Effect.Effect<void, LockLost | LockBackendError | SqlError>
}>("test/faults/Ledger", { defaultValue: () => ({ isFenced: false, enter: ({ section }) => section }) })
