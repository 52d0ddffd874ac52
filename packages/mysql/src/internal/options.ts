/**
 * What can be configured, and what does not go together.
 */
import type { LockBackendError } from "@dlock/core"
import { Errors, Options, Secret } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type { Target } from "./client.ts"
import { invalid, type MysqlError, name, toBackendError, unavailable } from "./errors.ts"

/** Where fencing tokens come from. */
export type Fencing = "uuid" | { readonly table: string }

const identifier = /^[0-9A-Za-z_$]{1,64}(\.[0-9A-Za-z_$]{1,64})?$/

const readFencing = (input: unknown): Result.Result<string | undefined, string> => {
  if (input === "uuid") {
    return Result.succeed(undefined)
  }
  const table = Predicate.hasProperty(input, "table") ? input.table : undefined
  return typeof table === "string" && identifier.test(table)
    ? Result.succeed(table)
    : Result.fail(
      `expected "uuid" or the name of a table, with its database before a dot if need be: letters, digits, "_" and "$"`
    )
}

interface Url {
  readonly host: string
  readonly port: number
  readonly username: string | undefined
  readonly password: string | undefined
  readonly database: string | undefined
}

const expectedUrl = "expected mysql://user:password@host:port/database"

const part = (encoded: string): string | undefined => encoded === "" ? undefined : decodeURIComponent(encoded)

const readUrl = (input: unknown): Result.Result<Url, string> => {
  const text = Redacted.isRedacted(input) ? Redacted.value(input) : input
  if (typeof text !== "string" || !/^(mysql|mariadb):\/\/[^/]/.test(text) || !URL.canParse(text)) {
    return Result.fail(expectedUrl)
  }
  const url = new URL(text)
  if (url.search !== "" || url.hash !== "") {
    return Result.fail(`${expectedUrl}, without parameters: there are options for them`)
  }
  return Result.try({
    try: () => ({
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? 3306 : Number(url.port),
      username: part(url.username),
      password: part(url.password),
      database: part(url.pathname.slice(1))
    }),
    catch: () => `${expectedUrl}, with "%" written as "%25"`
  })
}

const shared = {
  connectionLimit: Options.integer({
    minimum: 2,
    description:
      "The most connections at a time: one for the locks that were free, one for each lock that is waited for or was.",
    default: 50
  }),
  commandTimeout: Options.duration({
    description: "The longest wait for an answer, with connecting and repetitions; never longer than the ttl.",
    default: "5 seconds"
  }),
  keyPrefix: Options.text({ description: "Stands before every key on the server.", default: "" }),
  fencing: Options.custom({
    key: "fencing_table",
    description: "The table that counts the fencing tokens, instead of `UUID_SHORT()`.",
    written: (table): Fencing => ({ table }),
    read: readFencing
  }),
  allowReadOnly: Options.flag({
    description: "Locks on a replica are allowed; they exclude only those that ask the same replica.",
    default: false
  })
}

/** What `layerClient` takes. */
export const clientOptions = Options.declare(name, shared)

/** Everything that can be configured. */
export const declaration = Options.declare(name, {
  url: Options.custom({
    description: "`mysql://user:password@host:port/database`, instead of host, port and socket path.",
    written: (text): string | Redacted.Redacted => Redacted.make(text),
    read: readUrl
  }),
  username: Options.text({ description: "The user. Default: the server's anonymous user." }),
  password: Options.secret({ description: "The password of the user." }),
  host: Options.text({ description: "The server.", default: "localhost" }),
  port: Options.integer({ minimum: 1, maximum: 65_535, description: "The port of the server.", default: 3306 }),
  socketPath: Options.text({ description: "The Unix socket of the server, instead of host and port." }),
  database: Options.text({ key: "dbname", description: "The database, needed for the fencing table only." }),
  tls: Options.tls({ description: "Encrypts the connections.", default: false }),
  ...shared
})

/** What the backend does, all checked. */
export interface Settings {
  readonly connectionLimit: number
  /** The longest wait for one answer, in milliseconds. */
  readonly patience: number
  readonly keyPrefix: string
  /** The table of the fencing tokens. */
  readonly table: string | undefined
  readonly allowReadOnly: boolean
  /** The error of a verb. */
  readonly fail: (operation: string) => (error: MysqlError) => LockBackendError
}

const refuse = (detail: string) => Errors.make(name).options("connect", { detail })

const toSettings = (
  { allowReadOnly, commandTimeout, connectionLimit, fencing, keyPrefix }: Effect.Success<
    ReturnType<typeof clientOptions.parse>
  >,
  fail: Settings["fail"]
): Effect.Effect<Settings, LockBackendError> =>
  fencing !== undefined && connectionLimit < 3
    ? Effect.fail(refuse(`connectionLimit: fencing by a table needs 3 or more, got ${connectionLimit}`))
    : Effect.succeed({ allowReadOnly, connectionLimit, fail, keyPrefix, patience: commandTimeout, table: fencing })

/** The settings over a pool. */
export const parseClient = (options: unknown): Effect.Effect<Settings, LockBackendError> =>
  Effect.flatMap(clientOptions.parse(options), (given) => toSettings(given, toBackendError(Errors.make(name))))

const exclusive = ["url", "socketPath", "host", "port"] as const

/** The settings with connections of our own, and what to connect to. */
export const parse = Effect.fnUntraced(function*(options: { readonly [K in typeof exclusive[number]]?: unknown }) {
  const { url, ...given } = yield* declaration.parse(options)
  const [first, second] = exclusive.filter((option) => options[option] !== undefined)
  if (second !== undefined && first !== "host") {
    return yield* refuse(`${first} and ${second} do not go together: both say where the server is`)
  }
  const { host, port } = url ?? given
  const { database = url?.database, socketPath, username = url?.username } = given
  const password = given.password ?? (url?.password === undefined ? undefined : secretOf(url.password))
  const errors = Errors.make(name, (text) => password?.hide(text) ?? text)
  const target: Target = {
    address: socketPath === undefined ? { host, port } : { path: socketPath },
    username,
    database,
    password: password === undefined
      ? Effect.succeed(undefined)
      : Effect.mapError(password.get, (problem) => unavailable(`password: ${problem}`)),
    tls: given.tls === undefined
      ? Effect.succeed(undefined)
      : Effect.mapError(given.tls.get, (problem) => invalid(`tls.${problem}`))
  }
  const at = socketPath ?? Options.formatAddress({ host, port })
  return { target, settings: yield* toSettings(given, toBackendError(errors, at)) }
})

const secretOf = (text: string): Secret.Secret | undefined => Result.getOrUndefined(Secret.read(text))
