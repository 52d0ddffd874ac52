/**
 * Law 7: fencing tokens grow in the order of the grants, and a register that refuses smaller ones never refuses
 * the holder of the key. And writes in fenced transactions happen in the order of their tokens, whatever stood still.
 */
import type { History } from "../History.ts"
import type { Belief, Promises, Violation } from "./Promises.ts"
import { beliefs, describe, mayBeForgotten, stoodStill } from "./Promises.ts"

const tokenOrder = (history: History, promises: Promises): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  for (const [key, list] of beliefs(history)) {
    let greatest: Belief | undefined
    for (const belief of list.toSorted((a, b) => a.from - b.from)) {
      if (greatest === undefined || belief.token > greatest.token) {
        greatest = belief
        continue
      }
      // It was granted first, and stood still before it could believe so.
      const late = belief.token < greatest.token && stoodStill(belief.attempt, greatest.from, belief.from)
      if (late || mayBeForgotten(history, promises, greatest, belief.from)) continue
      violations.push({ law: "token order", text: `${key}: ${describe(belief)} after ${describe(greatest)}` })
    }
  }
  return violations
}

const registerOrder = ({ register }: History): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  const greatest = new Map<string, bigint>()
  for (const { at, key, token } of register) {
    const before = greatest.get(key) ?? token
    if (token < before) {
      violations.push({ law: "register order", text: `${key}: ${token} after ${before} at ${at.toFixed(1)}` })
    } else greatest.set(key, token)
  }
  return violations
}

const refusals = (history: History, promises: Promises): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  for (const [key, list] of beliefs(history)) {
    for (const belief of list) {
      const { ended, refused } = belief.attempt
      if (refused === undefined || ended?.result !== "released") continue
      if (mayBeForgotten(history, promises, belief, refused)) continue
      violations.push({ law: "register refused a holder", text: `${key}: ${describe(belief)}` })
    }
  }
  return violations
}

/** Each write sees all that have smaller tokens, and none that has a greater one. Nothing excuses another order. */
const writeOrder = ({ ledger }: History): ReadonlyArray<Violation> =>
  [...Map.groupBy(ledger, ({ key }) => key)].flatMap(([key, writes]) => {
    const inOrder = writes.toSorted((a, b) => a.token < b.token ? -1 : a.token > b.token ? 1 : 0)
    return inOrder.flatMap((write, i): ReadonlyArray<Violation> => {
      const before = inOrder[i - 1]
      if (write.seen === (before?.id ?? 0n)) return []
      const [one, other] = [write, before].map((it) =>
        it === undefined ? "none" : `${it.id} (${it.owner}, ${it.token})`
      )
      return [{ law: "write order", text: `${key}: write ${one} saw ${write.seen}, and not ${other}` }]
    })
  })

export const check = (history: History, promises: Promises): ReadonlyArray<Violation> => [
  ...tokenOrder(history, promises),
  ...registerOrder(history),
  ...refusals(history, promises),
  ...writeOrder(history)
]
