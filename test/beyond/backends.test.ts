/**
 * What is built on locks, over real servers: exclusion by the limit, order, and that nothing is left.
 */
import { Leader, Lock, withLocks, withLocksIfAvailable, withPermit, withPermitIfAvailable } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock, Redlock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, Redacted, type Scope } from "effect"
import { etcd } from "../harness/EtcdServer.ts"
import { mariadb } from "../harness/MysqlServer.ts"
import { postgres } from "../harness/PostgresServer.ts"
import { redis } from "../harness/RedisServer.ts"
import { zooKeeper } from "../harness/ZooKeeperServer.ts"

/** Builds processes over one server. */
type Server = Effect.Effect<Effect.Effect<Lock["Service"], unknown, Scope.Scope>, unknown, Scope.Scope>

const built = (layer: Layer.Layer<Lock, unknown>) =>
  Effect.flatMap(
    Effect.scope,
    (scope) =>
      Effect.map(Layer.buildWithScope(Layer.fresh(layer), scope), (context) =>
        Effect.runSync(Effect.provideContext(Lock, context)))
  )

const servers: ReadonlyArray<readonly [name: string, server: Server]> = [
  ["Redis", Effect.map(redis(), ({ addr }) => built(RedisLock.layer({ addrs: [addr] })))],
  ["etcd", Effect.map(etcd(), ({ addr }) => built(EtcdLock.layer({ endpoints: [addr] })))],
  [
    "MariaDB",
    Effect.map(
      mariadb(),
      ({ database, host, password, port, username }) =>
        built(MysqlLock.layer({ host, port, username, password: Redacted.make(password), database }))
    )
  ],
  ["PostgreSQL", Effect.map(postgres(), ({ url }) => built(PostgresLock.layer({ url })))],
  ["ZooKeeper", Effect.map(zooKeeper(), ({ addr }) => built(ZooKeeperLock.layer({ servers: [addr] })))],
  [
    "Redlock",
    Effect.map(
      Effect.all([redis(), redis(), redis()]),
      (nodes) => built(Redlock.layer({ nodes: nodes.map(({ addr }) => addr) }))
    )
  ]
]

const using = (lock: Lock["Service"]) => Effect.provideService(Lock, lock)

describe.each(servers)("over %s", (_, server) => {
  it.live("withLocks excludes by each key, in two processes that take the keys in any order", () =>
    Effect.gen(function*() {
      const process = yield* server
      const processes = [yield* process, yield* process]
      const inside = new Set<string>()
      const keys = ["a", "b", "c", "d"]
      const section = (mine: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          for (const key of mine) assert.isFalse(inside.has(key), `two at once in ${key}`)
          for (const key of mine) inside.add(key)
          yield* Effect.sleep(3)
          for (const key of mine) inside.delete(key)
        })
      const callers = Array.from({ length: 24 }, (_, i) => {
        const mine = [i, i + 1 + i % 3].map((j) => keys[j % 4] ?? "")
        return Effect.flatMap(
          Effect.succeed(processes[i % 2] ?? assert.fail()),
          (lock) => using(lock)(withLocks(i % 2 === 0 ? mine : mine.toReversed(), section(mine)))
        )
      })
      yield* Effect.all(callers, { concurrency: "unbounded" })
      for (const lock of processes) {
        assert.isTrue(Option.isSome(yield* using(lock)(withLocksIfAvailable(keys, Effect.void))), "nothing is left")
      }
    }))

  it.live("at most so many permits are in use, readers and writers exclude each other, and nothing is left", () =>
    Effect.gen(function*() {
      const process = yield* server
      const processes = [yield* process, yield* process]
      let inUse = 0
      let most = 0
      const section = (permits: number) =>
        Effect.acquireUseRelease(
          Effect.sync(() => most = Math.max(most, inUse += permits)),
          () => Effect.sleep(3),
          () => Effect.sync(() => inUse -= permits)
        )
      const callers = Array.from({ length: 30 }, (_, i) => {
        const permits = i % 5 === 4 ? 3 : 1
        const lock = processes[i % 2] ?? assert.fail()
        return using(lock)(withPermit("p", { limit: 3, permits }, section(permits)))
      })
      yield* Effect.all(callers, { concurrency: "unbounded" })
      assert.strictEqual(most, 3)
      yield* Effect.sleep("1 second")
      for (const lock of processes) {
        const all = withPermitIfAvailable("p", { limit: 3, permits: 3 }, Effect.void)
        assert.isTrue(Option.isSome(yield* using(lock)(all)), "nothing is left")
      }
    }))

  it.live("a writer that is interrupted while it waits holds up no other", () =>
    Effect.gen(function*() {
      const process = yield* server
      const [one, two] = [yield* process, yield* process]
      const holder = yield* Effect.forkChild(using(one)(withPermit("q", { limit: 4 }, Effect.never)))
      yield* Effect.sleep("500 millis")
      const writer = yield* Effect.forkChild(using(two)(withPermit("q", { limit: 4, permits: 4 }, Effect.void)))
      yield* Effect.sleep("500 millis")
      yield* Fiber.interrupt(writer)
      yield* Effect.timeout(using(one)(withPermit("q", { limit: 4, permits: 3 }, Effect.void)), "20 seconds")
      yield* Fiber.interrupt(holder)
    }))

  it.live("one leads at a time, and the next takes over when it ends", () =>
    Effect.gen(function*() {
      const process = yield* server
      const processes = [yield* process, yield* process, yield* process]
      let leading = 0
      const program = Effect.acquireUseRelease(
        Effect.sync(() => assert.strictEqual(++leading, 1)),
        () => Effect.sleep(20),
        () => Effect.sync(() => leading--)
      )
      const runs = processes.map((lock) => using(lock)(Effect.repeat(Leader.run("l", program), { times: 4 })))
      const exit = yield* Effect.exit(Effect.all(runs, { concurrency: "unbounded" }))
      assert.isTrue(Exit.isSuccess(exit), String(exit))
    }))
})
