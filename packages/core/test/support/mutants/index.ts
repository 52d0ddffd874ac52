import { attempt } from "./attempt.ts"
import { exclusion } from "./exclusion.ts"
import { keys } from "./keys.ts"
import { lease } from "./lease.ts"
import { line } from "./line.ts"
import { mortal } from "./mortal.ts"
import type { Mutant } from "./wrap.ts"

export const mutants: ReadonlyArray<Mutant> = [...exclusion, ...attempt, ...line, ...lease, ...keys, ...mortal]
