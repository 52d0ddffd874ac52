/**
 * Both servers, a bare client to look behind the backend's back, and what the conformance suite wants to know.
 */
import { Lock } from "@dlock/core"
import type { LockBackend, LockRequest } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { MysqlLock } from "@dlock/mysql"
import { assert, describe, layer, type Vitest } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import type { Scope } from "effect"
import * as Mysql from "mysql2/promise"
import { attempt, nameOf } from "../../packages/mysql/test/support.ts"
import type { HarnessError } from "../harness/HarnessError.ts"
import type { Credentials } from "../harness/MysqlServer.ts"
import { mariadb, mysql } from "../harness/MysqlServer.ts"
import { available } from "../harness/Program.ts"
import { proxy } from "../harness/Proxy.ts"
import type { Server } from "../harness/Server.ts"
import { millis } from "../requests.ts"

export { attempt, millis }

type Database = Server & Credentials

/** Where a client is to go. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** A row of the tests: everything runs on both servers. MySQL may be out of reach; then its tests are skipped. */
export interface Flavour {
  readonly name: string
  readonly runs: boolean
  readonly server: Effect.Effect<Database, HarnessError, Scope.Scope>
}

export const flavours: ReadonlyArray<Flavour> = [
  { name: "MySQL", runs: available("mysql"), server: mysql() },
  { name: "MariaDB", runs: available("mariadb"), server: mariadb() }
]

/** A connection of our own, closed with the scope. */
export const connect = (server: Address & Credentials) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      Mysql.createConnection({
        host: server.host,
        port: server.port,
        user: server.username,
        password: server.password,
        database: server.database,
        rowsAsArray: true
      })
    ),
    (connection) => Effect.sync(() => connection.destroy())
  )

/** The rows of a statement. */
export const rows = (connection: Mysql.Connection, sql: string): Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>> =>
  Effect.promise(() => connection.query<Mysql.RowDataPacket[][]>(sql).then(([rows]) => rows))

/** The first value that a statement gives. */
export const value = (connection: Mysql.Connection, sql: string): Effect.Effect<unknown> =>
  Effect.map(rows(connection, sql), ([row]) => row?.[0])

/** A running server, with a connection to look at it. */
export class MysqlServer extends Context.Service<MysqlServer, {
  readonly server: Database
  readonly bare: Mysql.Connection
}>()("test/mysql/MysqlServer") {
  static readonly layer = (flavour: Flavour) =>
    Layer.effect(
      MysqlServer,
      Effect.gen(function*() {
        const server = yield* flavour.server
        return { server, bare: yield* connect(server) }
      })
    )
}

/** Tests on both servers; there is one of each for all of its tests. */
export const onBoth = (tests: (it: Vitest.MethodsNonLive<MysqlServer>, flavour: Flavour) => void): void => {
  for (const flavour of flavours) {
    describe.skipIf(!flavour.runs)(flavour.name, () => {
      layer(MysqlServer.layer(flavour), { excludeTestServices: true, timeout: "1 minute" })((it) => tests(it, flavour))
    })
  }
}

export const optionsFor = (server: Database, at: Address = server): MysqlLock.Options => ({
  host: at.host,
  port: at.port,
  username: server.username,
  password: Redacted.make(server.password),
  database: server.database
})

/** The session that holds a key, as the server sees it. */
export const holderOf = (bare: Mysql.Connection, key: string): Effect.Effect<number | undefined> =>
  Effect.map(value(bare, `SELECT IS_USED_LOCK('${nameOf(key)}')`), (id) => typeof id === "number" ? id : undefined)

/** How many sessions wait for a key. */
export const waitersOf = (bare: Mysql.Connection, key: string): Effect.Effect<number> =>
  Effect.map(
    value(
      bare,
      `SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock' AND info LIKE '%GET_LOCK(''${
        nameOf(key)
      }''%'`
    ),
    Number
  )

/** A key of its own, which is its own name. */
export const freshKey = (): string => `test/${crypto.randomUUID()}`

/** Asks until it is so. */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(condition, (met) => met ? Effect.void : Effect.andThen(Effect.sleep("5 millis"), until(condition)))

/** Starts an `acquire` and goes on when it stands in the server's line. */
export const lineUp = Effect.fnUntraced(function*(
  bare: Mysql.Connection,
  backend: LockBackend["Service"],
  request: LockRequest
) {
  const before = yield* waitersOf(bare, request.key)
  const fiber = yield* Effect.forkScoped(backend.acquire(request), { startImmediately: true })
  yield* until(Effect.map(waitersOf(bare, request.key), (n) => n > before))
  return fiber
})

/** Every contender of the suite waits on a connection of its own. */
const connectionLimit = 300

export const backend = Effect.flatMap(
  MysqlServer,
  ({ server }) => MysqlLock.make({ ...optionsFor(server), connectionLimit })
)

export const capabilities: LockTest.Capabilities<MysqlServer> = {
  clock: "live",
  tenure: "session",
  ttl: "request",
  minTtl: "2 seconds",
  granularity: "1 second",
  deadWaiterDelay: "3 seconds",
  commandTimeout: "1 second",
  fifo: true,
  pushesLoss: true,
  inLine: (key) => Effect.flatMap(MysqlServer, ({ bare }) => waitersOf(bare, key)),
  mortal: Effect.gen(function*() {
    const { server } = yield* MysqlServer
    const road = yield* proxy(server)
    const client = yield* MysqlLock.make({ ...optionsFor(server, road), commandTimeout: "1 second" })
    return { client, cut: road.drop("both") }
  }),
  revocable: Effect.gen(function*() {
    const { bare, server } = yield* MysqlServer
    const client = yield* MysqlLock.make(optionsFor(server))
    return {
      client,
      revoke: (request) => Effect.flatMap(holderOf(bare, request.key), (id) => Effect.asVoid(rows(bare, `KILL ${id}`)))
    }
  })
}

export const expectSome = <A>(option: Option.Option<A>, property: string): A =>
  Option.getOrElse(option, () => assert.fail(property))

/** A `Lock` of its own, which ends with the scope. */
export const lockOf = (options: MysqlLock.Options) =>
  Effect.map(Layer.build(MysqlLock.layer(options)), (context) => Context.get(context, Lock))
