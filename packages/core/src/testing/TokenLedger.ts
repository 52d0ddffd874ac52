import { assert } from "@effect/vitest"
import type { Tokens } from "../LockBackend.ts"

/** Records the tokens of a key in the order in which they were given; each must be greater than all before it. */
export interface TokenLedger {
  /** `spare` is what the request or the renewal asked for. */
  readonly add: (tokens: Tokens, spare: number) => void
  /** The greatest token so far. */
  readonly last: () => bigint
}

export const make = (): TokenLedger => {
  let last = -1n
  return {
    add: ({ first, spare }, asked) => {
      assert.typeOf(first, "bigint", "a fencing token is a bigint")
      assert.isTrue(
        Number.isInteger(spare) && spare >= 0 && spare <= asked,
        `a grant has between 0 and ${asked} spare tokens, as asked for, and not ${spare}`
      )
      assert.isTrue(first > last, `a fencing token is greater than all that were given before: ${first} after ${last}`)
      last = first + BigInt(spare)
    },
    last: () => last
  }
}
