/**
 * What the demo shows: a progress bar while it sells, and a table at the end.
 */
import { Effect, Ref, Stdio, Terminal } from "effect"
import type { Sale } from "./ticketSale.ts"

/** What came of one run of the sale. */
export interface Result {
  readonly tickets: number
  readonly sales: ReadonlyArray<Sale>
  readonly millis: number
}

const width = 30

/** Counts sales, and draws a bar that is redrawn in place where there is a terminal. */
export const makeCounter = Effect.fnUntraced(function*(title: string, tickets: number) {
  const terminal = yield* Terminal.Terminal
  const redraws = yield* (yield* Stdio.Stdio).stdoutIsTerminal
  const sales = yield* Ref.make<ReadonlyArray<Sale>>([])
  const bar = (sold: number) => {
    const filled = Math.min(width, Math.round((sold / tickets) * width))
    return `${title.padEnd(16)} ${"█".repeat(filled)}${"░".repeat(width - filled)} ${sold} sold of ${tickets}`
  }
  const draw = (sold: number) => redraws ? Effect.ignore(terminal.display(`\r${bar(sold)}`)) : Effect.void
  return {
    sales: Ref.get(sales),
    onSale: (sale: Sale) =>
      Effect.flatMap(Ref.updateAndGet(sales, (before) => [...before, sale]), (sold) => draw(sold.length)),
    done: Effect.flatMap(
      Ref.get(sales),
      (sold) => terminal.display(`${redraws ? "\r" : ""}${bar(sold.length)}\n`)
    )
  }
})

const longestWait = ({ sales }: Result) => Math.max(0, ...sales.map((sale) => sale.waited))

/** How many tokens were greater than the one before, in the order in which the tickets were sold. */
const rising = ({ sales }: Result) => {
  const inOrder = sales.toSorted((a, b) => b.ticket - a.ticket)
  return inOrder.filter((sale, i) => i === 0 || sale.fencingToken > (inOrder[i - 1]?.fencingToken ?? 0n)).length
}

/** Whether each ticket was sold exactly once, under tokens that rose with each sale. */
export const isExact = (result: Result): boolean =>
  result.sales.length === result.tickets && rising(result) === result.tickets

/** The two runs side by side. */
export const table = (without: Result, locked: Result): string => {
  const lost = ({ sales, tickets }: Result) => String(sales.length - tickets)
  const rows: ReadonlyArray<readonly [string, string, string]> = [
    ["", "without a lock", "with withLock"],
    ["tickets", String(without.tickets), String(locked.tickets)],
    ["sold", String(without.sales.length), String(locked.sales.length)],
    ["lost updates", lost(without), lost(locked)],
    ["longest wait", "-", `${longestWait(locked).toFixed(0)} ms`],
    ["fencing tokens", "-", `${rising(locked)} of ${locked.sales.length} rising`],
    ["time", `${without.millis.toFixed(0)} ms`, `${locked.millis.toFixed(0)} ms`]
  ]
  return rows.map(([name, a, b]) => `${name.padEnd(16)}${a.padStart(16)}${b.padStart(20)}`).join("\n")
}
