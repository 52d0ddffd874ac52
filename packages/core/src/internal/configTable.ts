/**
 * Everything that can be configured, in one table. The `Config` values, the names in the environment and in the file,
 * and the table in the README all come from here.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { choice, duration, flag, integer, list, secret, text } from "./configValue.ts"

/** One option, with its names. */
export interface Entry {
  /** In the options of the backend. */
  readonly field: string
  /** In the file, within the section. */
  readonly key: string
  /** In the environment. */
  readonly variable: string
  readonly schema: Schema.Codec<unknown, unknown>
}

/** The options that belong together. `name` is their mapping in the file; "" for those at its top. */
export interface Section<A = unknown> {
  readonly name: string
  readonly schema: Schema.Codec<A, unknown>
  readonly entries: ReadonlyArray<Entry>
}

type Fields = { readonly [field: string]: Schema.optionalKey<Schema.Codec<unknown, unknown>> }

const snakeCase = (field: string) => field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

const variable = (...names: ReadonlyArray<string>) =>
  ["dlock", ...names].join("_").replace(/[^A-Za-z0-9]+/g, "_").toUpperCase()

const section = <F extends Fields>(
  name: string,
  fields: F,
  keys: { readonly [field: string]: string } = {}
): Section<Schema.Struct<F>["Type"]> => ({
  name,
  schema: Schema.Struct(fields),
  entries: Object.entries(fields).map(([field, { schema }]) => {
    const key = keys[field] ?? snakeCase(field)
    return { field, key, variable: name === "" ? variable(key) : variable(name, key), schema }
  })
})

/** The variable that enables a backend. */
export const enabledVariable = (name: string): string => variable(name, "enabled")

/** The variable that says where the file is. */
export const fileVariable = variable("config")

const enabled = flag({ description: "Whether `LockRegistry.layerConfig` builds this backend.", default: false })

/** What every backend has, also one that is not in the table: whether it is enabled. */
export const anyBackend = (name: string): Section<{ readonly enabled?: boolean }> => section(name, { enabled })

const commandTimeout = duration({}, {
  description: "The longest wait for one answer of the server.",
  default: Duration.seconds(5)
})

const tls = flag({ description: "Encrypted connections.", default: false })

export const lock = section("", {
  ttl: duration({}, {
    description: "How long the backend keeps a lease without renewal.",
    default: Duration.seconds(30)
  }),
  timeout: duration({ zero: true, infinite: true }, {
    description: "The longest wait for a key.",
    default: Duration.infinity
  }),
  retryTimes: integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }, {
    description: "Attempts after the first one, instead of a place in line. Without limit if only the delay is set."
  }),
  retryDelay: duration({ zero: true }, {
    description: "The time between two attempts, instead of a place in line. 100ms if only the number of them is set."
  }),
  maxHold: duration({ infinite: true }, {
    description: "No renewal beyond this; the lease is then lost.",
    default: Duration.infinity
  })
})

export const memory = section("memory", { enabled })

export const redis = section("redis", {
  enabled,
  addrs: list({
    description: "`host:port` of the server, of the nodes of the cluster, or of the sentinels.",
    default: ["localhost:6379"]
  }),
  mode: choice(["single", "cluster", "sentinel"], { description: "What the addresses are.", default: "single" }),
  masterName: text({ description: "The name of the master that the sentinels watch." }),
  username: text({ description: "The user of the servers." }),
  password: secret({ description: "The password of the servers." }),
  sentinelUsername: text({ description: "The user of the sentinels." }),
  sentinelPassword: secret({ description: "The password of the sentinels." }),
  db: integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }, {
    description: "The number of the database.",
    default: 0
  }),
  tls,
  keyPrefix: text({ description: "Stands before every key on the server." }),
  commandTimeout,
  waitReplicas: integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }, {
    description: "How many replicas must have a lock before it is given out. Without it, none."
  }),
  waitTimeout: duration({}, { description: "The longest wait for these replicas.", default: Duration.seconds(1) })
})

export const redlock = section("redlock", {
  enabled,
  nodes: list({ description: "`host:port` of each of the independent servers; an odd number of them." }),
  username: text({ description: "The user of the servers." }),
  password: secret({ description: "The password of the servers." }),
  db: integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }, {
    description: "The number of the database.",
    default: 0
  }),
  tls,
  keyPrefix: text({ description: "Stands before every key on the servers." }),
  nodeTimeout: duration({}, {
    description: "The longest wait for the answer of one server. A tenth of the ttl if not set, 50ms to 250ms."
  }),
  commandTimeout
})

export const etcd = section("etcd", {
  enabled,
  endpoints: list({ description: "`host:port` or URL of the members.", default: ["localhost:2379"] }),
  username: text({ description: "The user." }),
  password: secret({ description: "The password of the user." }),
  dialTimeout: duration({}, { description: "The longest wait for a connection.", default: Duration.seconds(5) }),
  commandTimeout,
  tls,
  prefix: text({ description: "Stands before every key on the server." })
})

export const mysql = section("mysql", {
  enabled,
  username: text({ description: "The user." }),
  password: secret({ description: "The password of the user." }),
  host: text({ description: "The server.", default: "localhost" }),
  port: integer({ minimum: 1, maximum: 65_535 }, { description: "The port of the server.", default: 3306 }),
  database: text({ description: "The database, needed for the fencing table only." }),
  tls,
  connectionLimit: integer({ minimum: 3, maximum: Number.MAX_SAFE_INTEGER }, {
    description: "The most connections at a time; each wait for a key takes one.",
    default: 50
  }),
  commandTimeout,
  keyPrefix: text({ description: "Stands before every key on the server." }),
  fencingTable: text({ description: "The table that counts the fencing tokens, instead of `UUID_SHORT()`." })
}, { database: "dbname" })

export const zookeeper = section("zookeeper", {
  enabled,
  servers: list({ description: "`host:port` of the members of the ensemble.", default: ["localhost:2181"] }),
  sessionTimeout: duration({}, {
    description: "The time limit of the session, which is the ttl of every lease.",
    default: Duration.seconds(30)
  }),
  prefix: text({ description: "The node below which the locks are.", default: "/locks" }),
  username: text({ description: "The user, by the digest scheme." }),
  password: secret({ description: "The password of the user." }),
  commandTimeout,
  tls: flag({ description: "The driver has no TLS: `true` is refused.", default: false })
})

/** Every section, in the order of the README. */
export const sections: ReadonlyArray<Section> = [lock, memory, redis, redlock, etcd, mysql, zookeeper]

/** What concerns the backends of these names. */
export const sectionsOf = (names: ReadonlyArray<string>): ReadonlyArray<Section> => [
  lock,
  ...names.map((name) => sections.find((section) => section.name === name) ?? anyBackend(name))
]
