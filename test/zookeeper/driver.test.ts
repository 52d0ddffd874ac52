import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import * as Net from "node:net"
import { freshKey, newRequest, until } from "../requests.ts"
import { childrenOf, limit, lineOf, listen, roadTo, ZooKeeper } from "./support.ts"

const rounds = Array.from({ length: 20 }, (_, i) => i)

/** A server, a proxy in front of it, and a client behind that. */
const behindProxy = Effect.fnUntraced(function*(options: ZooKeeperLock.Options = {}) {
  const { bare, servers: [server = ""] } = yield* ZooKeeper
  const road = yield* roadTo(server)
  const client = yield* ZooKeeperLock.make({ sessionTimeout: "8 seconds", ...options, servers: [road.addr] })
  return { bare, client, road, server }
})

layer(ZooKeeper.layer({}), { excludeTestServices: true, timeout: "1 minute" })("faults of the driver", (it) => {
  describe("a lost reply", () => {
    it.effect("to the removal is asked for again, and the answer is that it is unknown whether it was ours", () =>
      Effect.gen(function*() {
        const { bare, client, road } = yield* behindProxy()
        for (const _ of rounds) {
          const request = newRequest(freshKey())
          yield* client.acquire(request)
          yield* road.dropNextReply
          assert.strictEqual(yield* limit("the key is released")(client.release(request)), "unknown")
          assert.lengthOf(yield* lineOf(bare, request.key), 0)
        }
      }))
  })

  it.effect("a create that reaches the server late, before its release, leaves nothing", () =>
    Effect.gen(function*() {
      const { bare, client, road } = yield* behindProxy({ commandTimeout: "2 seconds" })
      for (const round of rounds.slice(0, 6)) {
        const request = newRequest(freshKey())
        yield* road.blackhole("toServer")
        const asking = yield* Effect.forkScoped(round % 2 === 0 ? client.acquire(request) : client.tryAcquire(request))
        yield* Effect.sleep("20 millis")
        yield* limit("an interrupted attempt returns at once")(Fiber.interrupt(asking))
        const releasing = yield* Effect.forkScoped(Effect.retry(client.release(request), { times: 20 }))
        yield* Effect.sleep("50 millis")
        yield* road.pass
        yield* limit("the release is answered")(Fiber.join(releasing))
        assert.lengthOf(yield* lineOf(bare, request.key), 0, "nothing is left")
        yield* Effect.sleep("100 millis")
        assert.lengthOf(yield* lineOf(bare, request.key), 0, "nothing comes later")
      }
    }))

  it.effect("what was not sent when the connection ended is not sent on the next one", () =>
    Effect.gen(function*() {
      const { bare, client, road } = yield* behindProxy({ commandTimeout: "500 millis" })
      yield* road.refuse
      // This one finds out.
      const first = newRequest(freshKey())
      yield* Effect.exit(client.acquire(first))
      const requests = rounds.map(() => newRequest(freshKey()))
      const exits = yield* Effect.forEach(requests, (request) => Effect.exit(client.acquire(request)), {
        concurrency: "unbounded"
      })
      assert.isTrue(exits.every(Exit.isFailure), "without a connection nothing is granted")
      const released = yield* Effect.forEach(requests, client.release, { concurrency: "unbounded" })
      assert.isFalse(released.includes("released"), "nothing is there to release, and no server needs to be asked")
      yield* road.pass
      const later = newRequest(freshKey())
      yield* Effect.retry(client.acquire(later), { times: 5 })
      yield* client.release(first)
      for (const { key } of [first, ...requests]) assert.lengthOf(yield* lineOf(bare, key), 0)
      yield* client.release(later)
    }))

  it.effect(
    "what a stopped server has not read yet, and what was not sent for that reason, leaves nothing",
    () =>
      Effect.gen(function*() {
        const { bare, nodes: [node], servers } = yield* ZooKeeper
        const client = yield* ZooKeeperLock.make({ servers, prefix: "/stopped", sessionTimeout: "8 seconds" })
        // More than the buffers between the two can take.
        const requests = Array.from({ length: 2000 }, () => newRequest(freshKey().padEnd(4000, "x")))
        yield* node?.pause ?? Effect.void
        const asking = yield* Effect.forEach(requests, (request) => Effect.forkScoped(client.acquire(request)))
        yield* Effect.sleep("500 millis")
        yield* limit("interrupted attempts return at once")(Fiber.interruptAll(asking))
        const releasing = yield* Effect.forkScoped(
          Effect.forEach(requests, (request) => Effect.retry(client.release(request), { times: 20 }), {
            concurrency: "unbounded",
            discard: true
          })
        )
        yield* Effect.sleep("4 seconds")
        yield* node?.resume ?? Effect.void
        yield* limit("every release is answered")(Fiber.join(releasing))
        const left = Effect.map(
          Effect.forEach(requests, ({ key }) => childrenOf(bare, `/stopped/${key}`), { concurrency: 500 }),
          (all) => all.flat().length
        )
        assert.strictEqual(yield* left, 0, "nothing is left")
        yield* Effect.sleep("500 millis")
        assert.strictEqual(yield* left, 0, "nothing comes later")
      }),
    { timeout: 60_000 }
  )

  it.effect("a frame that is cut in the middle does not spoil the next connection", () =>
    Effect.gen(function*() {
      const { bare, servers: [server = ""] } = yield* ZooKeeper
      const [host = "", port = ""] = server.split(":")
      let cutNext = false
      const road = yield* listen((near) => {
        const far = Net.connect({ host, port: Number(port), noDelay: true })
        near.on("data", (bytes) => far.write(bytes))
        far.on("data", (bytes) => {
          const whole = !cutNext
          cutNext = false
          near.write(whole ? bytes : bytes.subarray(0, 7), () => {
            if (!whole) near.destroy()
          })
        })
        far.on("error", () => {})
        near.on("close", () => far.destroy())
        far.on("close", () => near.destroy())
      })
      const client = yield* ZooKeeperLock.make({ servers: [road.addr], sessionTimeout: "8 seconds" })
      const holder = newRequest(freshKey())
      yield* client.acquire(holder)
      for (const _ of rounds) {
        const request = newRequest(freshKey())
        cutNext = true
        yield* limit("the key is granted")(client.acquire(request))
        assert.lengthOf(yield* lineOf(bare, request.key), 1)
        yield* client.release(request)
      }
      assert.deepStrictEqual(holder.losses, [], "the session goes on")
      assert.strictEqual(yield* client.release(holder), "released")
    }))

  it.effect("a server that takes the connection and never answers is passed over", () =>
    Effect.gen(function*() {
      const { server } = yield* behindProxy()
      const silent = yield* listen(() => {})
      for (const servers of [[silent.addr, server], [server, silent.addr]]) {
        const client = yield* ZooKeeperLock.make({ servers, sessionTimeout: "4 seconds" })
        const request = newRequest(freshKey())
        yield* limit("the key is granted")(client.acquire(request))
        yield* client.release(request)
      }
    }))

  it.effect("a connection that falls silent is given up for another one, and nothing is lost", () =>
    Effect.gen(function*() {
      const { servers: [server = ""] } = yield* ZooKeeper
      const roads = yield* Effect.all([roadTo(server), roadTo(server)])
      const servers = roads.map(({ addr }) => addr)
      const client = yield* ZooKeeperLock.make({ servers, sessionTimeout: "6 seconds" })
      const holder = newRequest(freshKey())
      yield* client.acquire(holder)
      for (const _ of rounds.slice(0, 3)) {
        const open = yield* Effect.forEach(roads, ({ connections }) => connections)
        const used = roads[open.findIndex((count) => count > 0)] ?? assert.fail("it is connected")
        yield* used.blackhole()
        const request = newRequest(freshKey())
        yield* limit("the key is granted")(client.acquire(request))
        assert.isTrue(Option.isSome(yield* client.renew(holder, {})))
        assert.strictEqual(yield* client.release(request), "released")
        yield* used.cut
        yield* used.pass
      }
      assert.deepStrictEqual(holder.losses, [])
      assert.strictEqual(yield* client.release(holder), "released")
    }))

  it.effect("a connection that is made anew while its server is silent is given up, too", () =>
    Effect.gen(function*() {
      const { client, road } = yield* behindProxy({ sessionTimeout: "6 seconds" })
      const holder = newRequest(freshKey())
      yield* client.acquire(holder)
      yield* road.blackhole("toClient")
      yield* road.cut
      yield* Effect.sleep("2 seconds")
      yield* road.pass
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(client.renew(holder, {}))))
      assert.deepStrictEqual(holder.losses, [])
      assert.strictEqual(yield* client.release(holder), "released")
    }))

  it.effect(
    "1,500 waiters with long keys, whose watches fill more than a packet, survive a new connection",
    () =>
      Effect.gen(function*() {
        const patient = { prefix: "/watched", commandTimeout: "30 seconds" } as const
        const { bare, client, road, server } = yield* behindProxy({ ...patient, sessionTimeout: "30 seconds" })
        const other = yield* ZooKeeperLock.make({ ...patient, servers: [server] })
        const holders = Array.from({ length: 1500 }, () => newRequest(freshKey().padEnd(800, "x")))
        yield* Effect.forEach(holders, other.acquire, { concurrency: 500, discard: true })
        const waiters = holders.map(({ key }) => newRequest(key))
        const waiting = yield* Effect.forEach(waiters, (waiter) => Effect.forkScoped(client.acquire(waiter)))
        const inLine = Effect.forEach(
          holders,
          ({ key }) => Effect.map(childrenOf(bare, `/watched/${key}`), (names) => names.length),
          { concurrency: 500 }
        )
        yield* until(Effect.map(inLine, (all) => all.every((length) => length === 2)))
        yield* Effect.sleep("500 millis")
        yield* road.cut
        yield* Effect.sleep("1 second")
        yield* Effect.forEach(holders, other.release, { concurrency: 500, discard: true })
        yield* limit("every waiter is served")(Fiber.joinAll(waiting))
        const released = yield* Effect.forEach(waiters, client.release, { concurrency: 500 })
        assert.isTrue(released.every((answer) => answer === "released"))
        assert.isBelow(yield* road.connections, 2, "there is one connection")
      }),
    { timeout: 60_000 }
  )

  it.effect("closing ends the session at once", () =>
    Effect.gen(function*() {
      const { bare, servers } = yield* ZooKeeper
      const request = newRequest(freshKey())
      yield* Effect.scoped(Effect.flatMap(ZooKeeperLock.make({ servers }), (client) => client.acquire(request)))
      assert.lengthOf(yield* lineOf(bare, request.key), 0, "the server is told")
    }))
})
