import * as Context from "effect/Context"
import type { Lock } from "../Lock.ts"

export const LockDefaults = Context.Reference<Lock.Options>("@dlock/core/LockDefaults", { defaultValue: () => ({}) })
