/**
 * What can be configured, and what does not go together.
 */
import { Errors, Options } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import { reserved } from "./names.ts"

const shared = {
  keyPrefix: Options.text({ description: "Stands before every key on the server.", default: "" }),
  commandTimeout: Options.duration({
    description: "The longest wait for an answer, with connecting and repetitions; never longer than the ttl.",
    default: "5 seconds"
  })
}

const login = {
  username: Options.text({ description: "The user of the servers. Default: their `default` user." }),
  password: Options.secret({ description: "The password of the servers." }),
  db: Options.integer({ minimum: 0, description: "The number of the database; a cluster has only 0.", default: 0 }),
  tls: Options.tls({ description: "Encrypts the connections to the servers.", default: false })
}

const nodeTimeout = {
  nodeTimeout: Options.duration({
    description: "The longest wait for the answer of one server. Default: a tenth of the ttl, from 50 to 250 ms."
  })
}

export const clientOptions = Options.declare("redis", shared)

const declare = (port: number) =>
  Options.declare("redis", {
    addrs: Options.addresses({
      port,
      description: "`host:port` of the server, of some nodes of the cluster, or of the sentinels (26379).",
      default: [`localhost:${port}`]
    }),
    mode: Options.oneOf(["single", "cluster", "sentinel"], {
      description: "What the addresses are.",
      default: "single"
    }),
    masterName: Options.text({ description: "The name of the master that the sentinels watch." }),
    ...login,
    sentinelUsername: Options.text({ description: "The user of the sentinels. Default: their `default` user." }),
    sentinelPassword: Options.secret({ description: "The password of the sentinels." }),
    sentinelTls: Options.tls({ description: "Encrypts the connections to the sentinels. Default: as `tls`." }),
    ...shared
  })

export const redis = declare(6379)

const redisOfSentinels = declare(26379)

const redlockShared = {
  ...nodeTimeout,
  ...shared,
  commandTimeout: Options.duration({
    description: "How long the backend tries to reach a majority; never longer than the ttl.",
    default: "5 seconds"
  })
}

export const redlockClientOptions = Options.declare("redlock", redlockShared)

export const redlock = Options.declare("redlock", {
  nodes: Options.addresses({
    port: 6379,
    description: "`host:port` of each of the independent servers; an odd number of them. Required."
  }),
  ...login,
  ...redlockShared
})

/** The settings of a backend with connections of its own. */
export type Settings = Effect.Success<ReturnType<typeof redis.parse>>

/** The servers' own part of the settings, the same for all of them. */
export type Login = Pick<Settings, "username" | "password" | "db" | "tls">

const problemOf = (settings: Settings, sentinelTls: unknown): string | undefined => {
  const { addrs, db, keyPrefix, masterName, mode, sentinelPassword, sentinelUsername } = settings
  if (mode === "cluster" && db !== 0) return "db: a cluster has only the database 0"
  if (mode === "single" && addrs.length > 1) {
    return `addrs: mode "single" takes one address, got ${addrs.length}; did you mean mode "cluster"?`
  }
  if (mode === "sentinel" && masterName === undefined) return `masterName: mode "sentinel" needs it`
  const [ofSentinels] = Object.entries({ masterName, sentinelUsername, sentinelPassword, sentinelTls })
    .find(([, value]) => value !== undefined) ?? []
  if (mode !== "sentinel" && ofSentinels !== undefined) return `${ofSentinels}: it is for mode "sentinel"`
  return prefixProblem(keyPrefix)
}

const prefixProblem = (keyPrefix: string): string | undefined =>
  keyPrefix.includes(reserved) ? `keyPrefix: "${reserved}" marks the names of the lock's own keys` : undefined

const refuse = (backend: string, detail: string | undefined) =>
  detail === undefined ? Effect.void : Effect.fail(Errors.make(backend).options("connect", { detail }))

export const parse = Effect.fnUntraced(
  function*(options: { readonly mode?: string | undefined, readonly sentinelTls?: unknown }) {
    const declaration = options.mode === "sentinel" ? redisOfSentinels : redis
    const settings = yield* declaration.parse(options)
    yield* refuse("redis", problemOf(settings, options.sentinelTls))
    return options.sentinelTls === undefined ? { ...settings, sentinelTls: settings.tls } : settings
  }
)

export const parseClient = (options: unknown) =>
  Effect.tap(clientOptions.parse(options), ({ keyPrefix }) => refuse("redis", prefixProblem(keyPrefix)))

export const parseRedlockClient = (options: unknown) =>
  Effect.tap(redlockClientOptions.parse(options), ({ keyPrefix }) => refuse("redlock", prefixProblem(keyPrefix)))

export const parseRedlock = Effect.fnUntraced(function*(options: unknown) {
  const { nodes, ...settings } = yield* redlock.parse(options)
  if (nodes === undefined) {
    return yield* Errors.make("redlock").options("connect", { detail: "nodes: expected at least one address" })
  }
  const names = nodes.map(({ host, port }) => Options.formatAddress({ host: host.toLowerCase(), port }))
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  yield* refuse("redlock", twice && `nodes: ${twice} is there twice, and a server has one vote`)
  yield* refuse("redlock", prefixProblem(settings.keyPrefix))
  return { ...settings, nodes }
})
