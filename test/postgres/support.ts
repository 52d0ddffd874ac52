/**
 * PostgreSQL servers for tests, a bare client to look at them, and what the conformance suite wants to know of the
 * backend.
 */
import { LockBackend, type LockBackendError } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted } from "effect"
import type { Duration, Scope } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { SqlError } from "effect/sql/SqlError"
import * as Net from "node:net"
import type { HarnessError } from "../harness/HarnessError.ts"
import type { Postgres } from "../harness/PostgresServer.ts"
import { pgbouncer, postgres } from "../harness/PostgresServer.ts"
import { proxy } from "../harness/Proxy.ts"

/** A client of the application's own. */
export const connect = (url: string): Effect.Effect<PgClient.PgClient, SqlError, Scope.Scope> =>
  PgClient.make({ url: Redacted.make(url), maxConnections: 10 }).pipe(
    Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make)
  )

/** A running server, with a client to look behind the backend's back. */
export class Target extends Context.Service<Target, {
  readonly server: Postgres
  readonly sql: PgClient.PgClient
  /** Builds a backend at an address. */
  readonly make: (
    url: string,
    commandTimeout?: Duration.Input
  ) => Effect.Effect<LockBackend["Service"], LockBackendError, Scope.Scope>
  /** The address for backends. */
  readonly url: string
}>()("test/postgres/Target") {}

/** Of clients that lose their server. */
const commandTimeout = "4 seconds"

/** Of clients whose server is there, however busy the machine is. */
const patient = "30 seconds"

const own = (url: string, commandTimeout: Duration.Input = patient) => PostgresLock.make({ url, commandTimeout })

const overClient = (url: string, commandTimeout: Duration.Input = patient) =>
  Effect.gen(function*() {
    const client = yield* Effect.orDie(connect(url))
    return yield* Effect.provideService(PostgresLock.makeClient({ commandTimeout }), PgClient.PgClient, client)
  })

/** The backend of the suite. */
export const backend = Layer.effect(LockBackend, Effect.flatMap(Target, ({ make, url }) => make(url)))

const layerOf = (
  make: Target["Service"]["make"],
  front: (server: Postgres) => Effect.Effect<Postgres, HarnessError, Scope.Scope>
) =>
  Layer.effect(
    Target,
    Effect.gen(function*() {
      const server = yield* postgres()
      const { url } = yield* front(server)
      return { server, sql: yield* connect(server.url), make, url }
    })
  )

/** One server. */
export const single = layerOf(own, Effect.succeed)

/** One server behind PgBouncer. */
export const pooled = layerOf(own, pgbouncer)

/** One server, over a client that the application opened. */
export const clientOfOnesOwn = layerOf(overClient, Effect.succeed)

/** A server that is not shared. */
export const layerOwn = Layer.effect(
  Target,
  Effect.gen(function*() {
    const server = yield* postgres({})
    return { server, sql: yield* connect(server.url), make: own, url: server.url }
  })
)

/** The same address on another port. */
export const at = (url: string, port: number): string => {
  const changed = new URL(url)
  changed.port = `${port}`
  return changed.href
}

/** A backend of the target over a road, to which the target's address leads. */
const overRoad = Effect.fnUntraced(function*<A extends { readonly port: number }>(
  pave: (front: { readonly host: string, readonly port: number }) => Effect.Effect<A, HarnessError, Scope.Scope>
) {
  const { make, url } = yield* Target
  const front = new URL(url)
  const road = yield* pave({ host: front.hostname, port: Number(front.port) })
  return { client: yield* make(at(url, road.port), commandTimeout), road }
})

/** A backend whose address leads to another server meanwhile. */
const elsewhere = Effect.fnUntraced(function*(other: Effect.Effect<Postgres, HarnessError, Scope.Scope>) {
  const { make, server } = yield* Target
  const road = yield* switchboard(server)
  const client = yield* make(at(server.url, road.port), commandTimeout)
  const second = yield* other
  return { client, begin: road.to(second), end: road.to(server) }
})

const otherServer = Effect.tap(postgres({}), ({ url }) => Effect.orDie(Effect.scoped(own(url))))

/** A role of the server that gets no connection meanwhile. */
const full = Effect.gen(function*() {
  const { make, sql, url } = yield* Target
  const role = `role_${crypto.randomUUID().replaceAll("-", "")}`
  yield* sql.unsafe(`create role ${role} login superuser password 'few'`)
  const few = new URL(url)
  few.username = role
  few.password = "few"
  const client = yield* make(few.href, commandTimeout)
  return {
    client,
    begin: Effect.orDie(Effect.andThen(
      // The limit of a superuser's role does not count.
      sql.unsafe(`alter role ${role} nosuperuser connection limit 0`),
      sql`select pg_terminate_backend(pid) from pg_stat_activity where usename = ${role}`
    )),
    end: Effect.orDie(sql.unsafe(`alter role ${role} superuser connection limit 10`))
  }
})

/** What does not depend on the way to the server. */
export const pooledCapabilities: LockTest.Capabilities<Target> = {
  clock: "live",
  freedBy: "ttl",
  ttl: "request",
  minTtl: "2 seconds",
  deadWaiterDelay: "2 seconds",
  commandTimeout,
  fifo: true,
  pushesLoss: false,
  reserves: true,
  renewsTokens: true,
  resends: true,
  inspects: { owner: true, token: true, remaining: true, waiting: "owners" },
  revokes: true,
  refuses: (key) => key.includes("\0"),
  inLine: (key) =>
    Effect.flatMap(Target, ({ sql }) =>
      Effect.map(
        sql<{ readonly n: bigint }>`select count(*) as n from dlock.waiter where key = ${key}`,
        ([row]) => Number(row?.n)
      )),
  mortal: Effect.map(overRoad(proxy), ({ client, road }) => ({ client, cut: road.drop("both") })),
  late: Effect.map(overRoad(proxy), ({ client, road }) => ({
    client,
    holdBack: road.freeze,
    breakOff: road.strand,
    deliver: road.pass
  })),
  revocable: Effect.gen(function*() {
    const { make, sql, url } = yield* Target
    return {
      client: yield* make(url, commandTimeout),
      revoke: ({ key }) => Effect.orDie(sql`delete from dlock.lease where key = ${key}`)
    }
  })
}

/** What holds without a pooler. */
export const capabilities: LockTest.Capabilities<Target> = {
  ...pooledCapabilities,
  tellsWanted: true,
  counted: Effect.map(
    overRoad((front) => switchboard(front)),
    ({ client, road }) => ({ client, requests: road.requests })
  ),
  swapped: elsewhere(otherServer),
  // Not one of the target's: a user's own server need not have standbys.
  busy: elsewhere(Effect.flatMap(otherServer, (primary) => postgres({ primary }))),
  full
}

/** One address that leads to one server, and then to another, as a name or a virtual address does. */
export const switchboard = Effect.fnUntraced(function*(first: { readonly host: string, readonly port: number }) {
  let target = first
  let requests = 0
  const links = new Set<Net.Socket>()
  const listener = Net.createServer((client) => {
    const server = Net.connect({ host: target.host, port: target.port })
    links.add(client)
    client.on("data", () => requests++)
    for (const [from, to] of [[client, server], [server, client]] as const) {
      from.pipe(to)
      from.on("error", () => to.destroy())
      from.on("close", () => to.destroy())
    }
  })
  const cut = Effect.sync(() => {
    for (const link of links) link.destroy()
    links.clear()
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      listener.listen({ host: "127.0.0.1", port: 0 }, () => resume(Effect.void))
    }),
    () => Effect.andThen(cut, Effect.sync(() => listener.close()))
  )
  const address = listener.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return {
    port,
    /** How many times clients sent something. */
    requests: Effect.sync(() => requests),
    to: (server: Postgres) =>
      Effect.andThen(
        Effect.sync(() => {
          target = server
        }),
        cut
      )
  }
})
