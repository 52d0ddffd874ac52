/**
 * The variables of the environment that begin as ours do, and those of them that nothing reads.
 */
import type * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import { nearMiss } from "./names.ts"

/** A variable that is written, and its value where it has one. */
export interface Variable {
  readonly name: string
  readonly value: string | undefined
}

const prefix = "DLOCK"

// Kubernetes links services by names that no one chose: "tcp://10.0.0.1:6379" for a service called dlock-redis.
const linkNames = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/
const linkValue = /^(tcp|udp|sctp):\/\//

/** Whether it is what Kubernetes says of a service whose name begins as ours. */
export const isServiceLink = ({ name, value }: Variable): boolean =>
  linkNames.test(name) || (name.endsWith("_PORT") && value !== undefined && linkValue.test(value))

/** What the CLI tells its children, and what tests use. */
const reserved: ReadonlySet<string> = new Set(["DLOCK_KEY", "DLOCK_OWNER", "DLOCK_FENCING_TOKEN", "DLOCK_PERMIT"])

const isReserved = (name: string): boolean => reserved.has(name) || name.startsWith("DLOCK_TEST_")

// Deeper than any name of ours; a provider may make its keys up as it is asked.
const deepest = 8

const below = (
  provider: ConfigProvider.ConfigProvider,
  path: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<Variable>, ConfigProvider.SourceError> =>
  Effect.flatMap(provider.load(path), (node) => {
    if (node === undefined) return Effect.succeed([])
    const own: ReadonlyArray<Variable> = node.value === undefined ? [] : [{ name: path.join("_"), value: node.value }]
    if (node._tag !== "Record" || path.length >= deepest) return Effect.succeed(own)
    return Effect.map(
      Effect.forEach([...node.keys], (key) => below(provider, [...path, key])),
      (inner) => [...own, ...inner.flat()]
    )
  })

/** Every variable of ours, where the provider can tell: by whole names, or by their words as the environment does. */
export const variables = Effect.fnUntraced(function*(
  provider: ConfigProvider.ConfigProvider
): Effect.fn.Return<ReadonlyArray<Variable>, ConfigProvider.SourceError> {
  const root = yield* provider.load([])
  const whole = root?._tag === "Record" ? [...root.keys].filter((key) => key.startsWith(`${prefix}_`)) : []
  const split = yield* below(provider, [prefix])
  return [...whole.map((name) => ({ name, value: undefined })), ...split]
})

/** A variable that nothing reads, and the name that it was probably meant to be. */
export interface Unread {
  readonly name: string
  readonly nearest: string | undefined
}

/** The variables that are none of the known names, nor of those that are left alone. */
export const unread = (found: ReadonlyArray<Variable>, known: Iterable<string>): ReadonlyArray<Unread> => {
  // Without what all of them begin with, which would make short names long.
  const words = new Map([...known].map((name) => [name.slice(prefix.length), name]))
  return found
    .filter((variable) =>
      !words.has(variable.name.slice(prefix.length)) && !isReserved(variable.name) && !isServiceLink(variable)
    )
    .map(({ name }) => ({ name, nearest: words.get(nearMiss(name.slice(prefix.length), words.keys()) ?? "") }))
}
