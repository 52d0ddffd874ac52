import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Lock } from "../Lock.ts"
import type { LockBackend } from "../LockBackend.ts"

export const make = (_backend: LockBackend["Service"]): Effect.Effect<Lock["Service"], never, Scope.Scope> =>
  Effect.die("not written yet")
