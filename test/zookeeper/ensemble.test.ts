import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, layer } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Fiber, Layer, Option } from "effect"
import type { Server } from "../harness/Server.ts"
import { freshKey, newRequest, until } from "../requests.ts"
import { connect, dividedEnsemble, limit, lineOf, modeOf, roadTo, ZooKeeper } from "./support.ts"

const withMode = (nodes: ReadonlyArray<Server>, mode: string) =>
  Effect.map(
    Effect.filter(nodes, (node) => Effect.map(modeOf(node), (is) => is === mode)),
    ([node]) => node ?? assert.fail(`no server is ${mode}`)
  )

const other = (nodes: ReadonlyArray<Server>, ...not: ReadonlyArray<Server>): Server =>
  nodes.find((node) => !not.includes(node)) ?? assert.fail("there is no other server")

layer(ZooKeeper.layerEnsemble(), { excludeTestServices: true, timeout: "1 minute" })("an ensemble of three", (it) => {
  const clients = Effect.gen(function*() {
    const { bare, nodes, servers } = yield* ZooKeeper
    const options = { servers, sessionTimeout: "10 seconds", commandTimeout: "10 seconds" } as const
    return { a: yield* ZooKeeperLock.make(options), b: yield* ZooKeeperLock.make(options), bare, nodes, servers }
  })

  it.effect("goes on with all leases and the line when the leader dies", () =>
    Effect.gen(function*() {
      const { a, b, bare, nodes } = yield* clients
      const holder = newRequest(freshKey())
      const waiter = newRequest(holder.key)
      const first = yield* a.acquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
      const leader = yield* withMode(nodes, "leader")
      yield* leader.kill
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(a.renew(holder, {}))))
      assert.isUndefined(waiting.pollUnsafe(), "no other owner gets what is held")
      assert.strictEqual(yield* limit("the key is released")(a.release(holder)), "released")
      const second = yield* limit("the waiter is served")(Fiber.join(waiting))
      assert.isTrue(second.tokens.first > first.tokens.first, "tokens grow over an election")
      assert.deepStrictEqual([...holder.losses, ...waiter.losses], [])
      assert.strictEqual(yield* limit("the key is released")(b.release(waiter)), "released")
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
      const [holder, blocking] = [newRequest(freshKey()), newRequest(freshKey())]
      const waiter = newRequest(blocking.key)
      yield* client.acquire(holder)
      yield* bystander.acquire(blocking)
      const waiting = yield* Effect.forkScoped(client.acquire(waiter))
      yield* Effect.sleep("200 millis")
      const open = yield* Effect.forEach(roads, ({ connections }) => connections)
      const connected = nodes[open.findIndex((count) => count > 0)] ?? assert.fail("it is connected")
      yield* connected.kill
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(client.renew(holder, {}))))
      yield* limit("the key is released")(bystander.release(blocking))
      yield* limit("the waiter kept its place")(Fiber.join(waiting))
      assert.deepStrictEqual([...holder.losses, ...waiter.losses], [])
      assert.strictEqual(yield* client.release(holder), "released")
      assert.strictEqual(yield* client.release(waiter), "released")
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
        const request = newRequest(key)
        const grant = yield* client.tryAcquire(request)
        assert.isTrue(Option.isSome(grant), "a key that was released through another server is free")
        assert.isTrue(Option.getOrThrow(grant).tokens.first > last, "tokens grow")
        last = Option.getOrThrow(grant).tokens.first
        assert.isTrue(
          Option.isNone(yield* next.tryAcquire(newRequest(key))),
          "a key that is held is refused everywhere"
        )
        assert.strictEqual(yield* client.release(request), "released")
      }
    }))

  it.effect("gives tokens that grow from server to server and from waiter to waiter", () =>
    Effect.gen(function*() {
      const { servers } = yield* ZooKeeper
      const all = yield* Effect.forEach(servers, (server) => ZooKeeperLock.make({ servers: [server] }))
      yield* Effect.forEach(
        Array.from({ length: 20 }, freshKey),
        Effect.fnUntraced(function*(key) {
          let last = 0n
          yield* Effect.forEach(
            Array.from({ length: 15 }, (_, i) => all[i % 3] ?? assert.fail()),
            Effect.fnUntraced(function*(client) {
              const request = newRequest(key)
              const { tokens } = yield* client.acquire(request)
              assert.isTrue(tokens.first > last, "the token grows")
              last = tokens.first + BigInt(tokens.spare)
              const more = Option.getOrThrow(yield* client.renew(request, { spare: 1 })).tokens ?? assert.fail("more")
              assert.isTrue(more.first > last, "the token grows with more tokens")
              last = more.first + BigInt(more.spare)
              yield* client.release(request)
            }),
            { concurrency: 5 }
          )
        }),
        { concurrency: 4 }
      )
    }))

  it.effect("remembers every holder after a fail-over", () =>
    Effect.gen(function*() {
      const { a, b, nodes } = yield* clients
      const holders = Array.from({ length: 20 }, () => newRequest(freshKey()))
      yield* Effect.forEach(holders, a.acquire, { concurrency: "unbounded" })
      const leader = yield* withMode(nodes, "leader")
      yield* leader.kill
      for (const { key } of holders) {
        const taken = yield* limit("the ensemble answers")(b.tryAcquire(newRequest(key)))
        assert.isTrue(Option.isNone(taken), "what is held stays held")
      }
      const released = yield* limit("all is released")(Effect.forEach(holders, a.release))
      assert.isTrue(released.every((answer) => answer === "released"))
      yield* leader.start
    }))
})

/** Each case joins its members again at the end. */
class Divided extends Context.Service<Divided, Effect.Success<typeof dividedEnsemble>>()("test/zookeeper/Divided") {
  static readonly layer = Layer.effect(Divided, dividedEnsemble)
}

layer(Divided.layer, { excludeTestServices: true, timeout: "1 minute" })("an ensemble that is divided", (it) => {
  it.effect.each([0, 70, 140, 210, 280, 350, 420])(
    "ends the section of a client on the side of the minority before another owner has the key (%s ms after a heartbeat)",
    (delay) =>
      Effect.gen(function*() {
        const { heal, isolate, nodes } = yield* Divided
        const leader = yield* withMode(nodes, "leader")
        const minority = other(nodes, leader)
        const majority = other(nodes, leader, minority)
        const options = { sessionTimeout: "2 seconds", commandTimeout: "10 seconds" } as const
        const client = yield* ZooKeeperLock.make({ ...options, servers: [minority.addr] })
        const rival = yield* ZooKeeperLock.make({ ...options, sessionTimeout: "10 seconds", servers: [majority.addr] })
        const bare = yield* connect([majority.addr])
        const holder = newRequest(freshKey())
        yield* client.acquire(holder)
        const told = yield* Effect.forkScoped(Effect.andThen(Deferred.await(holder.lost), Clock.monotonicTimeNanos))
        const waiting = yield* Effect.forkScoped(
          Effect.andThen(rival.acquire(newRequest(holder.key)), Clock.monotonicTimeNanos)
        )
        yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
        yield* Effect.sleep(1000 + delay)
        yield* isolate(minority)
        const grantedAt = yield* limit("the majority gives the key to the next")(Fiber.join(waiting))
        const lostAt = yield* limit("the loss is told")(Fiber.join(told))
        assert.isTrue(lostAt < grantedAt, `the loss is told ${Number(grantedAt - lostAt) / 1e6} ms before the grant`)
        yield* heal
        const later = newRequest(freshKey())
        yield* limit("the minority comes back")(client.acquire(later))
      })
  )
})
