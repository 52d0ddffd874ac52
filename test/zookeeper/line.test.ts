import { Lock } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Option } from "effect"
import { freshKey, least, newRequest, until } from "../requests.ts"
import {
  childrenOf,
  create,
  dataOf,
  directoryOf,
  limit,
  lineOf,
  mkdirp,
  packetsReceived,
  remove,
  roadTo,
  ZooKeeper
} from "./support.ts"

const twoClients = Effect.fnUntraced(function*(options: ZooKeeperLock.Options = {}) {
  const { bare, nodes: [node], servers } = yield* ZooKeeper
  const a = yield* ZooKeeperLock.make({ ...options, servers })
  const b = yield* ZooKeeperLock.make({ ...options, servers })
  return { a, b, bare, servers, port: node?.port ?? 0 }
})

layer(ZooKeeper.layer({}), { excludeTestServices: true, timeout: "1 minute" })("the line", (it) => {
  it.effect("is made of nodes as Curator names them, and tells whose they are", () =>
    Effect.gen(function*() {
      const { a, bare } = yield* twoClients()
      const request = newRequest(freshKey())
      yield* a.acquire(request)
      const [node = ""] = yield* childrenOf(bare, directoryOf(request.key))
      assert.match(node, /^_c_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-lock-0000000000$/)
      const data = yield* dataOf(bare, `${directoryOf(request.key)}/${node}`)
      assert.strictEqual(data?.toString(), request.owner)
      yield* a.release(request)
    }))

  it.effect("gives tokens from the transactions of the servers, below those of every later grant", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* twoClients()
      const key = freshKey()
      const [waiter, last] = [newRequest(key), newRequest(key)]
      const holder = { ...newRequest(key), spare: 2000 }
      const first = yield* a.acquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (line) => line.length === 2))
      const behind = yield* Effect.forkScoped(a.acquire(last))
      yield* until(Effect.map(lineOf(bare, key), (line) => line.length === 3))
      const given = [first.tokens]
      // The last one is more than a transaction has left.
      for (const spare of [0, 63, 2000, 63, 900, 900]) {
        const more = Option.getOrThrow(yield* a.renew(holder, { spare })).tokens
        assert.isAtMost(more?.spare ?? 0, spare)
        given.push(more ?? assert.fail("more tokens are given"))
      }
      assert.isTrue(Option.isNone(yield* b.renew(waiter, { spare: 63 })), "a waiter gets none")
      yield* a.release(holder)
      given.push((yield* limit("the waiter is served")(Fiber.join(waiting))).tokens)
      given.push(Option.getOrThrow(yield* b.renew(waiter, { fresh: true, spare: 0 })).tokens ?? assert.fail("one more"))
      yield* b.release(waiter)
      given.push((yield* limit("the last is served")(Fiber.join(behind))).tokens)
      yield* a.release(last)
      for (const [i, { first }] of given.entries()) {
        const before = given[i - 1]
        assert.isTrue(
          before === undefined || first > before.first + BigInt(before.spare),
          `the tokens of step ${i} grow`
        )
        assert.isTrue(first < 2n ** 63n, "a token fits where numbers of 64 bits are stored")
      }
      assert.strictEqual(given[0]?.spare, 1023, "a grant brings enough tokens for a turn")
    }))

  it.effect("is entered again by a waiter whose node was removed", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* twoClients()
      const holder = newRequest(freshKey())
      const waiter = newRequest(holder.key)
      yield* a.acquire(holder)
      const [first] = yield* lineOf(bare, holder.key)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
      const second = (yield* lineOf(bare, holder.key)).find((name) => name !== first)
      yield* remove(bare, `${directoryOf(holder.key)}/${second}`)
      const third = newRequest(holder.key)
      const behind = yield* Effect.forkScoped(a.acquire(third))
      yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
      yield* a.release(holder)
      yield* limit("the next one is served")(Fiber.join(behind))
      assert.isUndefined(waiting.pollUnsafe(), "a waiter without a node does not hold the key")
      yield* a.release(third)
      yield* limit("the waiter is served in its new place")(Fiber.join(waiting))
      assert.strictEqual(yield* b.release(waiter), "released")
    }))

  it.effect("wakes one waiter for each release, at the same price for the server whatever its length", () =>
    Effect.gen(function*() {
      const { a, b, port } = yield* twoClients()
      const priceOf = Effect.fnUntraced(function*(length: number) {
        const key = freshKey()
        const holder = newRequest(key)
        yield* a.acquire(holder)
        const waiting = yield* Effect.forEach(
          Array.from({ length }, (_, i) => i % 2 === 0 ? a : b),
          (client) => {
            const request = newRequest(key)
            return Effect.forkScoped(Effect.andThen(client.acquire(request), client.release(request)))
          }
        )
        const { bare } = yield* ZooKeeper
        yield* until(Effect.map(lineOf(bare, key), (line) => line.length === length + 1))
        yield* Effect.sleep("200 millis")
        const before = yield* packetsReceived(port)
        yield* a.release(holder)
        yield* limit("every waiter is served")(Fiber.joinAll(waiting))
        return ((yield* packetsReceived(port)) - before) / length
      })
      // A look at the own node, one at the line, and the removal; the heartbeats and the counting add a little.
      for (const [length, limit] of [[2, 6], [16, 4], [256, 3.5]] as const) {
        assert.isBelow(yield* least(limit, () => priceOf(length)), limit)
      }
    }))

  it.effect("serves processes in its order, each for a turn", () =>
    Effect.gen(function*() {
      const { servers } = yield* ZooKeeper
      const observer = yield* ZooKeeperLock.make({ servers })
      const key = freshKey()
      const seen: Array<{ readonly holder: string, readonly waiting: ReadonlyArray<string> }> = []
      const look = Effect.map(observer.inspect(key), ({ holder, waiting }) => {
        if (typeof waiting === "number") return assert.fail("the owners of waiters are told")
        seen.push({ holder: Option.getOrThrow(holder).owner ?? "", waiting })
      })
      const work = Effect.fnUntraced(function*(name: string) {
        const context = yield* Layer.build(ZooKeeperLock.layer({ servers }))
        const section = Context.get(context, Lock).withLock(key, look, { owner: name })
        const fiber = Effect.repeat(section, { times: 7 })
        yield* Effect.all([fiber, fiber, fiber, fiber], { concurrency: 4 })
      })
      yield* Effect.forEach(["a", "b", "c", "d"], work, { concurrency: 4 })
      assert.lengthOf(seen, 4 * 4 * 8)
      let changes = 0
      for (const [i, { holder }] of seen.entries()) {
        const before = seen[i - 1]
        if (before === undefined || before.holder === holder) continue
        const [first = holder] = before.waiting
        assert.strictEqual(holder, first, "the first in line is the next holder")
        if (before.waiting.length > 0) changes += 1
      }
      assert.isAtLeast(changes, 4, "processes did wait for each other")
    }))

  describe("hierarchies:", () => {
    it.effect("a key and the keys below it do not disturb one another", () =>
      Effect.gen(function*() {
        const { a, b } = yield* twoClients()
        const top = freshKey()
        const keys = [top, `${top}/42`, `${top}/42/0`, `${top}/0`, `${top}/-`, `${top}/lock-0000000000`, `${top}/~`]
        const requests = keys.map((key) => newRequest(key))
        yield* limit("all are granted at once")(Effect.forEach(requests, a.acquire, { concurrency: "unbounded" }))
        for (const { key } of requests) {
          assert.isTrue(Option.isNone(yield* b.tryAcquire(newRequest(key))), `${key} is held`)
        }
        const waiters = keys.map((key) => newRequest(key))
        const waiting = yield* Effect.forEach(waiters, (waiter) => Effect.forkScoped(b.acquire(waiter)))
        for (const [i, request] of requests.entries()) {
          assert.strictEqual(yield* a.release(request), "released")
          const fiber = waiting[i]
          if (fiber !== undefined) yield* limit(`${request.key} is handed over`)(Fiber.join(fiber))
        }
        const released = yield* Effect.forEach(waiters, b.release)
        assert.isTrue(released.every((answer) => answer === "released"))
      }))

    it.effect("parents are made, and removed when they are of no use", () =>
      Effect.gen(function*() {
        const { a, bare } = yield* twoClients({ prefix: "/hier/archy" })
        const request = newRequest("orders/2024/42")
        yield* a.acquire(request)
        assert.lengthOf(yield* childrenOf(bare, "/hier/archy/orders/2024/42"), 1)
        yield* a.release(request)
        yield* limit("the parents go")(until(
          Effect.map(childrenOf(bare, "/hier/archy"), (names) => names.length === 0)
        ))
        const kept = newRequest("orders")
        const again = newRequest(request.key)
        yield* a.acquire(kept)
        yield* a.acquire(again)
        yield* a.release(again)
        yield* limit("the parents that are of no use go")(until(
          Effect.map(childrenOf(bare, "/hier/archy/orders"), (names) => !names.includes("2024"))
        ))
        assert.strictEqual(yield* a.release(kept), "released", "and the others stay")
      }))

    it.effect("closing leaves no parents", () =>
      Effect.gen(function*() {
        const { bare, servers } = yield* ZooKeeper
        yield* Effect.scoped(Effect.gen(function*() {
          const client = yield* ZooKeeperLock.make({ servers, prefix: "/closing" })
          const requests = Array.from({ length: 600 }, (_, i) => newRequest(`a/${i}`))
          yield* Effect.forEach(requests, client.acquire, { concurrency: 100 })
          yield* Effect.forEach(requests, client.release, { concurrency: 100 })
        }))
        assert.deepStrictEqual(yield* childrenOf(bare, "/closing"), [])
      }))

    it.effect("parents that are removed again and again hold no request up", () =>
      Effect.gen(function*() {
        const { a, b, bare } = yield* twoClients({ prefix: "/racing" })
        const paths = ["/racing/x/y", "/racing/x", "/racing"]
        const remover = yield* Effect.forkScoped(Effect.forever(
          Effect.forEach(paths, (path) => Effect.ignore(remove(bare, path)), { discard: true })
        ))
        let inside = 0
        const section = (client: typeof a) =>
          Effect.suspend(() => {
            const request = newRequest("x/y")
            return client.acquire(request).pipe(
              Effect.andThen(Effect.sync(() => assert.strictEqual(++inside, 1, "one at a time"))),
              Effect.andThen(Effect.yieldNow),
              Effect.andThen(Effect.sync(() => inside--)),
              Effect.andThen(client.release(request))
            )
          })
        yield* limit("one after the other is served")(Effect.forEach(
          [a, b, a, a, b, b],
          (client) =>
            Effect.andThen(section(client), until(Effect.map(childrenOf(bare, "/"), (n) => !n.includes("racing"))))
        ))
        yield* limit("every waiter is served")(Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i % 2 === 0 ? a : b),
          section,
          { concurrency: 4 }
        ))
        yield* Fiber.interrupt(remover)
      }))

    it.effect("what else is below a key takes no part in its line", () =>
      Effect.gen(function*() {
        const { a, bare } = yield* twoClients()
        const key = freshKey()
        yield* mkdirp(bare, directoryOf(key))
        for (const name of ["0", "00", "-", "!a", "Z", "_c_x-__WRIT__0000000000"]) {
          yield* create(bare, `${directoryOf(key)}/${name}`)
        }
        const request = newRequest(key)
        assert.isTrue(Option.isSome(yield* limit("the key is granted")(a.tryAcquire(request))))
        yield* a.release(request)
      }))
  })
})

layer(
  ZooKeeper.layer({ properties: ["znode.container.checkIntervalMs=500"] }),
  { excludeTestServices: true, timeout: "1 minute" }
)("a process that is killed", (it) => {
  it.effect("leaves no nodes", () =>
    Effect.gen(function*() {
      const { bare, servers: [server = ""] } = yield* ZooKeeper
      const road = yield* roadTo(server)
      const options = { sessionTimeout: "1 second", prefix: "/killed" } as const
      const client = yield* ZooKeeperLock.make({ ...options, servers: [road.addr] })
      const requests = Array.from({ length: 50 }, (_, i) => newRequest(`orders/${i % 7}/${i}`))
      yield* Effect.forEach(requests, client.acquire, { concurrency: 10 })
      yield* Effect.forEach(requests.slice(0, 25), client.release, { concurrency: 10 })
      // Nothing that it sends arrives any more.
      yield* road.drop("both")
      assert.lengthOf(yield* childrenOf(bare, "/killed/orders"), 7)
      yield* limit("the server removes them")(until(
        Effect.map(childrenOf(bare, "/killed"), (names) => names.length === 0)
      ))
      yield* road.pass
    }))
})
