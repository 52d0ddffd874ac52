import { disturbed } from "./disturbed.ts"
import { exclusion } from "./exclusion.ts"
import { grant } from "./grant.ts"
import { keys } from "./keys.ts"
import { line } from "./line.ts"
import { mortal } from "./mortal.ts"
import { permits } from "./permits.ts"
import { requests } from "./requests.ts"
import { tokens } from "./tokens.ts"
import { verbs } from "./verbs.ts"
import type { Mutant } from "./wrap.ts"

export const mutants: ReadonlyArray<Mutant> = [
  ...exclusion,
  ...requests,
  ...line,
  ...grant,
  ...tokens,
  ...keys,
  ...verbs,
  ...mortal,
  ...disturbed,
  ...permits
]
