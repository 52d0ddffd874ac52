/**
 * The verbs over a client.
 */
import type { Inspection, LockBackend, LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Client, Rows } from "./client.ts"
import { backendName } from "./errors.ts"
import { Listener } from "./listener.ts"
import { Requests } from "./requests.ts"
import { create, functions, identifier } from "./schema.ts"
import * as waiting from "./waiting.ts"

type Backend = LockBackend["Service"]

/** What the backend does with its client. */
export interface Settings {
  readonly schema: string
  readonly createSchema: boolean
  readonly keyPrefix: string
}

/** The longest key in bytes: it and an owner have to fit into a third of a page, which is what an index takes. */
const maxKey = 2200

/** The longest ttl: PostgreSQL adds the time of day to it and must not overflow. */
const maxTtl = 365_000 * 24 * 3600 * 1000

const check = (keyPrefix: string): Backend["check"] => (key, ttl) => {
  if (key.includes("\0")) return "PostgreSQL has no texts with the character NUL"
  if (Buffer.byteLength(keyPrefix + key) > maxKey) {
    return `PostgreSQL can index at most ${maxKey} bytes of a key and its prefix`
  }
  return ttl > maxTtl ? "PostgreSQL cannot count so long a ttl" : undefined
}

const oldest = 120_000

const examine =
  `select current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),
  (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint, (extract(epoch from clock_timestamp()) * 1000000)::bigint`

/** Refuses a server that cannot carry locks; answers its era, and its clock minus our monotonic one in microseconds. */
const examined = Effect.fnUntraced(function*(client: Client) {
  const sentAt = client.now()
  const [row] = yield* client.question("connect", examine)
  const [version, encoding, isStandby, era, at] = row ?? []
  const { address, errors: make } = client.driver
  if (typeof version !== "number" || typeof era !== "bigint" || typeof at !== "bigint") {
    return yield* Effect.fail(make.protocol("connect", { at: address, detail: `unexpected answer: ${String(row)}` }))
  }
  const detail = version < oldest
    ? `PostgreSQL 12 is needed, and this is ${Math.floor(version / 10_000)}`
    : encoding !== "UTF8"
    ? `the database has the encoding ${String(encoding)}, and UTF8 is needed`
    : isStandby === true
    ? "it is a standby; connect to the primary"
    : undefined
  if (detail !== undefined) return yield* Effect.fail(make.unsupported("connect", { at: address, detail }))
  return { era, ahead: Number(at) - sentAt * 1000 }
})

/** Creates the schema, unless all of it is there: to look needs fewer rights. */
const prepare = Effect.fnUntraced(function*(client: Client, schema: string) {
  const [row] = yield* client.question(
    "connect",
    "select count(distinct proname) = $3 from pg_proc where pronamespace = to_regnamespace($1) and proname = any($2)",
    [identifier(schema), functions, functions.length]
  )
  if (row?.[0] !== true) yield* client.question("create its schema", create(schema))
})

/** Sweeps a few idle rows a minute, by whichever process comes first. */
const sweep = (client: Client, schema: string): Effect.Effect<void> => {
  const text = `select ${identifier(schema)}.sweep_1($1, 1000)`
  let after = ""
  const once = Effect.suspend(() => client.question("sweep", text, [after])).pipe(
    Effect.map((rows) => {
      const last = rows[0]?.[0]
      after = typeof last === "string" ? last : ""
    }),
    Effect.ignore
  )
  return once.pipe(Effect.delay("1 minute"), Effect.repeat(Schedule.jittered(Schedule.forever)), Effect.asVoid)
}

const toInspection = (row: Rows[number] | undefined): Inspection | undefined => {
  const [owner, token, remaining, waiters] = row ?? []
  if (!Array.isArray(waiters)) return undefined
  const holder = typeof owner === "string" && typeof token === "bigint"
    ? Option.some({ owner, token, remaining: Number(remaining) })
    : Option.none()
  return { holder, waiting: waiters.map(String) }
}

export const make = Effect.fnUntraced(function*(
  client: Client,
  settings: Settings
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const { ahead, era } = yield* examined(client)
  if (settings.createSchema) yield* prepare(client, settings.schema)
  const schema = identifier(settings.schema)
  const listener = new Listener(client)
  const requests = new Requests(client, listener, { ...settings, ahead, era })
  const isListening = yield* listener.start
  client.prepare = isListening
  if (!isListening) {
    yield* Effect.logWarning(
      `postgres delivers no notifications at ${client.driver.address}, as behind a pooler in transaction mode: waiters look every 0.2 to 0.6 s`
    )
  }
  client.fork(sweep(client, settings.schema))

  const release: Backend["release"] = (request) => Effect.suspend(() => requests.release(requests.of(request)))

  return {
    name: backendName,
    freedBy: "ttl",
    tellsWanted: isListening,
    check: check(settings.keyPrefix),
    tryAcquire: (request) =>
      Effect.suspend(() => {
        const state = requests.of(request)
        return Effect.flatMap(requests.take(state), (taken) => {
          if (taken._tag === "Granted") return Effect.succeedSome(taken.grant)
          // A request that was sent before this one and got lost may still arrive.
          if (state.unanswered > 0) return Effect.as(release(request), Option.none())
          requests.end(state)
          return Effect.succeedNone
        })
      }),
    acquire: (request) => Effect.suspend(() => waiting.acquire(requests, listener, requests.of(request))),
    renew: (request, { spare }) => Effect.suspend(() => requests.renew(requests.of(request), spare)),
    release,
    inspect: (key) =>
      Effect.flatMap(
        client.question("inspect", `select owner, token, remaining, waiting from ${schema}.inspect_1($1)`, [
          settings.keyPrefix + key
        ]),
        ([row]) => {
          const inspection = toInspection(row)
          const { address: at, errors } = client.driver
          return inspection === undefined
            ? Effect.fail(errors.protocol("inspect", { at, detail: `unexpected answer: ${String(row)}` }))
            : Effect.succeed(inspection)
        }
      ),
    revoke: (key, owner) =>
      Effect.map(
        client.question("revoke", `select ${schema}.revoke_1($1, $2)`, [settings.keyPrefix + key, owner]),
        ([row]) => row?.[0] === true
      ),
    ping: Effect.asVoid(client.question("ping", `select ${schema}.ping_1()`))
  }
})
