/**
 * The command line.
 */
import { parseArgs } from "node:util"
import type { Backend } from "./contenders/index.ts"

export const parts = [
  "core",
  "uncontended",
  "network",
  "handover",
  "hot",
  "linger",
  "beyond",
  "holding",
  "growth",
  "profile",
  "goals"
] as const

export type Part = typeof parts[number]

export interface Options {
  /** Fewer rounds, and no peers that take long: to see that it works. */
  readonly quick: boolean
  /** Holds 50,000 locks as well. */
  readonly many: boolean
  readonly parts: ReadonlyArray<Part>
  readonly backends: ReadonlyArray<Backend>
  /** The contender of that name, in all its settings, and the floor. */
  readonly only: string | undefined
}

const chosen = <A extends string>(
  what: string,
  names: ReadonlyArray<string>,
  all: ReadonlyArray<A>
): ReadonlyArray<A> => {
  const unknown = names.find((name) => !all.some((one) => one === name))
  if (unknown !== undefined) throw new Error(`no ${what} "${unknown}"; there is ${all.join(", ")}`)
  return names.length === 0 ? all : all.filter((one) => names.includes(one))
}

export const parse = (args: ReadonlyArray<string>, all: ReadonlyArray<Backend>): Options => {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      many: { type: "boolean", default: false },
      part: { type: "string", multiple: true, default: [] },
      only: { type: "string" }
    }
  })
  return {
    quick: values.quick,
    many: values.many,
    only: values.only,
    parts: chosen("part", values.part, parts),
    backends: chosen("backend", positionals, all)
  }
}
