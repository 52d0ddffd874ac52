/**
 * The options, their names in configuration, and how they reach the driver.
 */
import type { LockBackendError } from "@dlock/core"
import { Errors, Options } from "@dlock/core/backend"
import type { PgConnection } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type { Driver } from "./client.ts"
import * as client from "./client.ts"
import { backendName } from "./errors.ts"

/** Longer names are cut by the server, without a word. */
const maxName = 63

const shared = {
  schema: Options.custom({
    description: "The schema of the tables and functions.",
    default: "dlock",
    shown: "dlock",
    written: (text) => text,
    read: (input) =>
      typeof input === "string" && input !== "" && !input.includes("\0") && Buffer.byteLength(input) <= maxName
        ? Result.succeed(input)
        : Result.fail(`expected a name of 1 to ${maxName} bytes`)
  }),
  createSchema: Options.flag({
    description: "Whether the schema is created when the layer is built, unless it is there.",
    default: true
  }),
  keyPrefix: Options.text({ description: "Stands before every key on the server.", default: "" }),
  commandTimeout: Options.duration({
    description: "The longest wait for an answer, with connecting and repetitions; never longer than the ttl.",
    default: "5 seconds"
  })
}

/** What a backend over the application's client takes. */
export const clientOptions = Options.declare(backendName, shared)

/** Everything that can be configured. */
export const declaration = Options.declare(backendName, {
  url: Options.secret({
    description: "`postgres://user:password@host:port/database`. The options below count more than what it holds."
  }),
  host: Options.text({ description: "The host, or the folder of a Unix socket. Default: `localhost`." }),
  port: Options.integer({ minimum: 1, maximum: 65_535, description: "The port. Default: 5432." }),
  database: Options.text({ description: "The database. Default: the one that is named like the user." }),
  username: Options.text({ description: "The user. Default: the user of the process." }),
  password: Options.secret({ description: "The password." }),
  tls: Options.tls({ description: "Encrypted connections. Default: what the url says in `sslmode`." }),
  ...shared
})

type Settings = Effect.Success<ReturnType<typeof declaration.parse>>

/** The driver of a backend with connections of its own. Secrets and certificates are read at each connect. */
export const driverOf = Effect.fnUntraced(function*(settings: Settings): Effect.fn.Return<Driver, LockBackendError> {
  const { commandTimeout, database, host, password, port, tls, url, username } = settings
  const errors = Errors.make(backendName, (text) => {
    const hidden = url?.hide(text) ?? text
    return password?.hide(hidden) ?? hidden
  })
  const read = <A>(name: string, source: { readonly get: Effect.Effect<A, string> } | undefined, at?: string) =>
    source === undefined
      ? Effect.succeed(undefined)
      : Effect.mapError(source.get, (problem) => errors.options("connect", { at, detail: `${name}: ${problem}` }))
  const first = yield* Effect.timeoutOrElse(read("url", url), {
    duration: commandTimeout,
    orElse: () => Effect.fail(errors.timeout("connect", { detail: `url: none within ${commandTimeout} ms` }))
  })
  const address = client.addressOf(settings, first && Redacted.value(first))
  const config: Effect.Effect<PgConnection.Config, LockBackendError> = Effect.gen(function*() {
    const material = yield* read("tls", tls, address)
    return {
      url: yield* read("url", url, address),
      host,
      port,
      database,
      username,
      password: yield* read("password", password, address),
      ssl: material && Redacted.value(material),
      connectTimeout: commandTimeout,
      keepAlive: "10 seconds"
    }
  })
  return client.own(config, address, errors)
})
