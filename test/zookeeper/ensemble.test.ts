import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it, layer } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Option } from "effect"
import type { Server } from "../harness/Server.ts"
import { attempt, freshKey, until } from "../requests.ts"
import { dividedEnsemble, modeOf } from "./divided.ts"
import { connect, directoryOf, lineOf, roadTo, statOf, ZooKeeper } from "./support.ts"

const limit = (property: string) =>
  Effect.timeoutOrElse({
    duration: "30 seconds",
    orElse: () => Effect.sync(() => assert.fail(`${property}, within 30 seconds`))
  })

const withMode = (nodes: ReadonlyArray<Server>, mode: string) =>
  Effect.map(
    Effect.filter(nodes, (node) => Effect.map(modeOf(node), (is) => is === mode)),
    ([node]) => node ?? assert.fail(`no server is ${mode}`)
  )

const other = (nodes: ReadonlyArray<Server>, ...not: ReadonlyArray<Server>): Server =>
  nodes.find((node) => !not.includes(node)) ?? assert.fail("there is no other server")

layer(ZooKeeper.layerEnsemble, { excludeTestServices: true, timeout: "1 minute" })("an ensemble of three", (it) => {
  const clients = Effect.gen(function*() {
    const { bare, nodes, servers } = yield* ZooKeeper
    const options = { servers, sessionTimeout: "10 seconds", commandTimeout: "10 seconds" } as const
    return { a: yield* ZooKeeperLock.make(options), b: yield* ZooKeeperLock.make(options), bare, nodes, servers }
  })

  it.effect("goes on with all leases and the line when the leader dies", () =>
    Effect.gen(function*() {
      const { a, b, bare, nodes } = yield* clients
      const holder = attempt(freshKey())
      const waiter = attempt(holder.key)
      const first = yield* a.acquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
      const leader = yield* withMode(nodes, "leader")
      yield* leader.kill
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(a.renew(holder))))
      assert.isUndefined(waiting.pollUnsafe(), "nobody gets what is held")
      assert.isTrue(yield* limit("the key is released")(a.release(holder)))
      const second = yield* limit("the waiter is served")(Fiber.join(waiting))
      assert.isTrue(second.fencingToken > first.fencingToken, "tokens grow over an election")
      assert.deepStrictEqual([...holder.losses, ...waiter.losses], [])
      assert.isTrue(yield* limit("the key is released")(b.release(waiter)))
      yield* leader.start
    }))

  it.effect("takes over the session when the server it is connected to dies", () =>
    Effect.gen(function*() {
      const { nodes, servers } = yield* ZooKeeper
      const roads = yield* Effect.forEach(servers, roadTo)
      const client = yield* ZooKeeperLock.make({
        servers: roads.map(({ addr }) => addr),
        sessionTimeout: "10 seconds",
        commandTimeout: "10 seconds"
      })
      const bystander = yield* ZooKeeperLock.make({
        servers,
        sessionTimeout: "10 seconds",
        commandTimeout: "10 seconds"
      })
      const [holder, blocking] = [attempt(freshKey()), attempt(freshKey())]
      const waiter = attempt(blocking.key)
      const grant = yield* client.acquire(holder)
      yield* bystander.acquire(blocking)
      const waiting = yield* Effect.forkScoped(client.acquire(waiter))
      yield* Effect.sleep("200 millis")
      const open = yield* Effect.forEach(roads, ({ connections }) => connections)
      const connected = nodes[open.findIndex((count) => count > 0)] ?? assert.fail("it is connected")
      yield* connected.kill
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(client.renew(holder))))
      const again = yield* limit("the key is asked for again")(client.tryAcquire(holder))
      assert.strictEqual(Option.getOrThrow(again).fencingToken, grant.fencingToken, "it is the same lease")
      yield* limit("the key is released")(bystander.release(blocking))
      yield* limit("the waiter kept its place")(Fiber.join(waiting))
      assert.deepStrictEqual([...holder.losses, ...waiter.losses], [])
      assert.isTrue(yield* client.release(holder))
      assert.isTrue(yield* client.release(waiter))
      yield* connected.start
    }))

  it.effect("answers every client alike, whichever server it is connected to", () =>
    Effect.gen(function*() {
      const { servers } = yield* ZooKeeper
      const all = yield* Effect.forEach(servers, (server) => ZooKeeperLock.make({ servers: [server] }))
      const key = freshKey()
      let last = 0n
      for (let i = 0; i < 90; i++) {
        const client = all[i % 3] ?? assert.fail()
        const next = all[(i + 1) % 3] ?? assert.fail()
        const request = attempt(key)
        const grant = yield* client.tryAcquire(request)
        assert.isTrue(Option.isSome(grant), "a key that was released through another server is free")
        assert.isTrue(Option.getOrThrow(grant).fencingToken > last, "tokens grow")
        last = Option.getOrThrow(grant).fencingToken
        assert.isTrue(Option.isNone(yield* next.tryAcquire(attempt(key))), "a key that is held is refused everywhere")
        assert.isTrue(yield* client.release(request))
      }
    }))

  it.effect("gives the id of the transaction that created the node as token, from every server", () =>
    Effect.gen(function*() {
      const { bare, servers } = yield* ZooKeeper
      const all = yield* Effect.forEach(servers, (server) => ZooKeeperLock.make({ servers: [server] }))
      yield* Effect.forEach(
        Array.from({ length: 300 }, (_, i) => i),
        Effect.fnUntraced(function*(i) {
          const client = all[i % 3] ?? assert.fail()
          const request = attempt(freshKey())
          const { fencingToken } = yield* client.acquire(request)
          const [node] = yield* lineOf(bare, request.key)
          const stat = yield* statOf(bare, `${directoryOf(request.key)}/${node}`)
          assert.strictEqual(stat?.czxid.readBigInt64BE(), fencingToken)
          yield* client.release(request)
        }),
        { concurrency: 30 }
      )
    }))

  it.effect("remembers who holds what after a fail-over", () =>
    Effect.gen(function*() {
      const { a, b, nodes } = yield* clients
      const holders = Array.from({ length: 20 }, () => attempt(freshKey()))
      yield* Effect.forEach(holders, a.acquire, { concurrency: "unbounded" })
      const leader = yield* withMode(nodes, "leader")
      yield* leader.kill
      for (const { key } of holders) {
        const taken = yield* limit("the ensemble answers")(b.tryAcquire(attempt(key)))
        assert.isTrue(Option.isNone(taken), "what is held stays held")
      }
      const released = yield* limit("all is released")(Effect.forEach(holders, a.release))
      assert.isFalse(released.includes(false))
      yield* leader.start
    }))
})

describe("an ensemble that is divided", () => {
  it.live.each([0, 70, 140, 210, 280, 350, 420])(
    "ends the section of a client on the side of the minority before somebody else has the key (%s ms after a heartbeat)",
    (delay) =>
      Effect.gen(function*() {
        const { heal, isolate, nodes } = yield* dividedEnsemble
        const leader = yield* withMode(nodes, "leader")
        const minority = other(nodes, leader)
        const majority = other(nodes, leader, minority)
        const options = { sessionTimeout: "2 seconds", commandTimeout: "10 seconds" } as const
        const client = yield* ZooKeeperLock.make({ ...options, servers: [minority.addr] })
        const rival = yield* ZooKeeperLock.make({ ...options, sessionTimeout: "10 seconds", servers: [majority.addr] })
        const bare = yield* connect([majority.addr])
        const holder = attempt(freshKey())
        yield* client.acquire(holder)
        const told = yield* Effect.forkScoped(Effect.andThen(Deferred.await(holder.lost), Clock.monotonicTimeNanos))
        const waiting = yield* Effect.forkScoped(
          Effect.andThen(rival.acquire(attempt(holder.key)), Clock.monotonicTimeNanos)
        )
        yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
        yield* Effect.sleep(1000 + delay)
        yield* isolate(minority)
        const grantedAt = yield* limit("the majority gives the key to the next")(Fiber.join(waiting))
        const lostAt = yield* limit("the loss is told")(Fiber.join(told))
        assert.isTrue(lostAt < grantedAt, `the loss is told ${Number(grantedAt - lostAt) / 1e6} ms before the grant`)
        yield* heal
        const later = attempt(freshKey())
        yield* limit("the minority comes back")(client.acquire(later))
      })
  )
})
