/**
 * Both servers, a bare client to look behind the backend's back, and what the conformance suite wants to know.
 */
import { Lock, LockBackend, type LockRequest } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { MysqlLock } from "@dlock/mysql"
import { assert, describe, layer, type Vitest } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import type { Scope } from "effect"
import * as Mysql from "mysql2/promise"
import * as Net from "node:net"
import { nameOf } from "../../packages/mysql/test/support.ts"
import type { HarnessError } from "../harness/HarnessError.ts"
import type { Credentials } from "../harness/MysqlServer.ts"
import { mariadb, mysql } from "../harness/MysqlServer.ts"
import { available } from "../harness/Program.ts"
import { proxy } from "../harness/Proxy.ts"
import type { Server } from "../harness/Server.ts"
import { until } from "../requests.ts"

export { freshKey, millis, newRequest, persist, until } from "../requests.ts"

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

export const mysqlFlavour: Flavour = { name: "MySQL", runs: available("mysql"), server: mysql() }
export const mariadbFlavour: Flavour = { name: "MariaDB", runs: available("mariadb"), server: mariadb() }

export const flavours: ReadonlyArray<Flavour> = [mysqlFlavour, mariadbFlavour]

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

// Of clients that lose their servers, and so wait that long.
const commandTimeout = "3 seconds"

/** Of clients whose servers are there: a busy machine answers late. */
const patient = { commandTimeout: "30 seconds" } as const

/** Every contender of the suite waits on a connection of its own. */
const connectionLimit = 300

/** What the suite tests. */
const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(MysqlServer, ({ server }) => MysqlLock.make({ ...optionsFor(server), ...patient, connectionLimit }))
)

/** What the suite may expect on either server. */
const capabilitiesOf = (flavour: Flavour): LockTest.Capabilities<MysqlServer> => ({
  clock: "live",
  freedBy: "session",
  ttl: "request",
  minTtl: "2 seconds",
  granularity: "1 second",
  deadWaiterDelay: "3 seconds",
  commandTimeout,
  fifo: true,
  reserves: true,
  renewsTokens: true,
  inspects: { owner: false, token: false, remaining: false, waiting: "number" },
  pushesLoss: true,
  inLine: (key) => Effect.flatMap(MysqlServer, ({ bare }) => waitersOf(bare, key)),
  mortal: Effect.gen(function*() {
    const { server } = yield* MysqlServer
    const road = yield* proxy(server)
    const client = yield* MysqlLock.make({ ...optionsFor(server, road), commandTimeout })
    return { client, cut: road.drop("both") }
  }),
  revocable: Effect.gen(function*() {
    const { bare, server } = yield* MysqlServer
    const client = yield* MysqlLock.make({ ...optionsFor(server), ...patient })
    return {
      client,
      revoke: (request) => Effect.flatMap(holderOf(bare, request.key), (id) => Effect.asVoid(rows(bare, `KILL ${id}`)))
    }
  }),
  late: Effect.gen(function*() {
    const { server } = yield* MysqlServer
    const road = yield* proxy(server)
    const client = yield* MysqlLock.make({ ...optionsFor(server, road), commandTimeout })
    return { client, holdBack: road.freeze, breakOff: road.strand, deliver: road.pass }
  }),
  counted: Effect.gen(function*() {
    const { server } = yield* MysqlServer
    const board = yield* switchboard(server)
    return { client: yield* MysqlLock.make({ ...optionsFor(server, board), ...patient }), requests: board.sent }
  }),
  swapped: Effect.gen(function*() {
    const { server } = yield* MysqlServer
    const other = yield* flavour.server
    const board = yield* switchboard(server)
    const client = yield* MysqlLock.make({ ...optionsFor(server, board), commandTimeout })
    return { client, begin: board.to(other), end: board.to(server) }
  }),
  full: Effect.gen(function*() {
    const { bare, server } = yield* MysqlServer
    const user = `few_${crypto.randomUUID().slice(0, 8)}`
    const limit = (most: number) =>
      Effect.asVoid(rows(bare, `ALTER USER '${user}'@'%' WITH MAX_USER_CONNECTIONS ${most}`))
    yield* rows(bare, `CREATE USER '${user}'@'%' IDENTIFIED BY 'few'`)
    yield* Effect.addFinalizer(() => rows(bare, `DROP USER '${user}'@'%'`))
    const client = yield* MysqlLock.make({
      ...optionsFor(server),
      username: user,
      password: "few",
      database: undefined,
      commandTimeout
    })
    return { client, begin: limit(1), end: limit(100) }
  })
})

/** The suite on one of the servers. */
export const conforms = (flavour: Flavour): void => {
  describe.skipIf(!flavour.runs)(flavour.name, () => {
    LockTest.suiteWith("mysql", backend, capabilitiesOf(flavour), MysqlServer.layer(flavour))
  })
}

export const expectSome = <A>(option: Option.Option<A>, property: string): A =>
  Option.getOrElse(option, () => assert.fail(property))

/** A `Lock` of its own, which ends with the scope. */
export const lockOf = (options: MysqlLock.Options) =>
  Effect.map(Layer.build(MysqlLock.layer(options)), (context) => Context.get(context, Lock))

interface Board {
  readonly server: Net.Server
  readonly sockets: Set<Net.Socket>
  target: Address
  /** How many pieces went to servers: a statement is one. */
  sent: number
}

/** A fixed address that leads where it is told to; connections that are open stay where they lead. */
export const switchboard = (first: Address) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Board>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer((near) => {
          const far = Net.connect(board.target.port, board.target.host)
          for (const socket of [near, far]) {
            sockets.add(socket)
            socket.on("error", () => {})
          }
          near.on("data", () => board.sent++)
          near.on("close", () => far.destroy())
          far.on("close", () => near.destroy())
          near.pipe(far)
          far.pipe(near)
        })
        const board: Board = { server, sockets, target: first, sent: 0 }
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(board)))
      }),
      ({ server, sockets }) =>
        Effect.sync(() => {
          server.close()
          sockets.forEach((socket) => socket.destroy())
        })
    ),
    (board) => {
      const at = board.server.address()
      return {
        host: "127.0.0.1",
        port: typeof at === "object" && at !== null ? at.port : 0,
        sent: Effect.sync(() => board.sent),
        to: (target: Address) =>
          Effect.sync(() => {
            board.target = target
          })
      }
    }
  )
