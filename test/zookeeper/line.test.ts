import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { attempt, freshKey, until } from "../requests.ts"
import {
  childrenOf,
  create,
  dataOf,
  directoryOf,
  lineOf,
  mkdirp,
  packetsReceived,
  remove,
  statOf,
  ZooKeeper
} from "./support.ts"

const limit = (property: string) =>
  Effect.timeoutOrElse({
    duration: "20 seconds",
    orElse: () => Effect.sync(() => assert.fail(`${property}, within 20 seconds`))
  })

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
      const request = attempt(freshKey())
      yield* a.acquire(request)
      const [node = ""] = yield* childrenOf(bare, directoryOf(request.key))
      assert.match(node, /^_c_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-lock-0000000000$/)
      const data = yield* dataOf(bare, `${directoryOf(request.key)}/${node}`)
      assert.strictEqual(data?.toString(), request.owner)
      yield* a.release(request)
    }))

  it.effect("gives the id of the transaction that created the node as token, at once and after a wait", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* twoClients()
      const key = freshKey()
      const czxidOf = Effect.fnUntraced(function*(i: number) {
        const line = yield* lineOf(bare, key)
        const name = line.toSorted((x, y) => x.slice(-10).localeCompare(y.slice(-10)))[i] ?? ""
        return (yield* statOf(bare, `${directoryOf(key)}/${name}`))?.czxid.readBigInt64BE()
      })
      const noise = yield* Effect.forkScoped(Effect.forever(Effect.suspend(() => {
        const request = attempt(freshKey())
        return Effect.andThen(b.acquire(request), b.release(request))
      })))
      for (let i = 0; i < 20; i++) {
        const holder = attempt(key)
        const waiter = attempt(key)
        const grant = yield* a.acquire(holder)
        assert.strictEqual(grant.fencingToken, yield* czxidOf(0))
        const waiting = yield* Effect.forkScoped(a.acquire(waiter))
        yield* until(Effect.map(lineOf(bare, key), (line) => line.length === 2))
        const czxid = yield* czxidOf(1)
        yield* a.release(holder)
        assert.strictEqual((yield* limit("the waiter is served")(Fiber.join(waiting))).fencingToken, czxid)
        yield* a.release(waiter)
      }
      yield* Fiber.interrupt(noise)
    }))

  it.effect("is entered again by a waiter whose node somebody removed", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* twoClients()
      const holder = attempt(freshKey())
      const waiter = attempt(holder.key)
      yield* a.acquire(holder)
      const [first] = yield* lineOf(bare, holder.key)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
      const second = (yield* lineOf(bare, holder.key)).find((name) => name !== first)
      yield* remove(bare, `${directoryOf(holder.key)}/${second}`)
      const third = attempt(holder.key)
      const behind = yield* Effect.forkScoped(a.acquire(third))
      yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
      yield* a.release(holder)
      yield* limit("who came next is served")(Fiber.join(behind))
      assert.isUndefined(waiting.pollUnsafe(), "a waiter without a node does not hold the key")
      yield* a.release(third)
      yield* limit("the waiter is served in its new place")(Fiber.join(waiting))
      assert.isTrue(yield* b.release(waiter))
    }))

  it.effect("wakes one waiter for each release, at the same price for the server whatever its length", () =>
    Effect.gen(function*() {
      const { a, b, port } = yield* twoClients()
      const priceOf = Effect.fnUntraced(function*(length: number) {
        const key = freshKey()
        const holder = attempt(key)
        yield* a.acquire(holder)
        const waiting = yield* Effect.forEach(
          Array.from({ length }, (_, i) => i % 2 === 0 ? a : b),
          (client) => {
            const request = attempt(key)
            return Effect.forkScoped(Effect.andThen(client.acquire(request), client.release(request)))
          }
        )
        const { bare } = yield* ZooKeeper
        yield* until(Effect.map(lineOf(bare, key), (line) => line.length === length + 1))
        yield* Effect.sleep("200 millis")
        const before = yield* packetsReceived(port)
        yield* a.release(holder)
        yield* limit("everybody is served")(Fiber.joinAll(waiting))
        return ((yield* packetsReceived(port)) - before) / length
      })
      // A look at the own node, one at the line, and the removal; the heartbeats and the counting add a little.
      const [two, sixteen, many] = yield* Effect.forEach([2, 16, 256], priceOf)
      assert.isBelow(two ?? 99, 6)
      assert.isBelow(sixteen ?? 99, 4)
      assert.isBelow(many ?? 99, 3.5)
    }))

  describe("hierarchies:", () => {
    it.effect("a key and the keys below it do not disturb one another", () =>
      Effect.gen(function*() {
        const { a, b } = yield* twoClients()
        const top = freshKey()
        const keys = [top, `${top}/42`, `${top}/42/0`, `${top}/0`, `${top}/-`, `${top}/lock-0000000000`, `${top}/~`]
        const requests = keys.map(attempt)
        yield* limit("all are had at once")(Effect.forEach(requests, a.acquire, { concurrency: "unbounded" }))
        for (const { key } of requests) {
          assert.isTrue(Option.isNone(yield* b.tryAcquire(attempt(key))), `${key} is held`)
        }
        const waiters = keys.map(attempt)
        const waiting = yield* Effect.forEach(waiters, (waiter) => Effect.forkScoped(b.acquire(waiter)))
        for (const [i, request] of requests.entries()) {
          assert.isTrue(yield* a.release(request))
          const fiber = waiting[i]
          if (fiber !== undefined) yield* limit(`${request.key} is handed over`)(Fiber.join(fiber))
        }
        const released = yield* Effect.forEach(waiters, b.release)
        assert.isFalse(released.includes(false))
      }))

    it.effect("parents are made, and removed when they are of no use", () =>
      Effect.gen(function*() {
        const { a, bare } = yield* twoClients({ prefix: "/hier/archy" })
        const request = attempt("orders/2024/42")
        yield* a.acquire(request)
        assert.lengthOf(yield* childrenOf(bare, "/hier/archy/orders/2024/42"), 1)
        yield* a.release(request)
        yield* limit("the parents go")(until(
          Effect.map(childrenOf(bare, "/hier/archy"), (names) => names.length === 0)
        ))
        const kept = attempt("orders")
        const again = attempt(request.key)
        yield* a.acquire(kept)
        yield* a.acquire(again)
        yield* a.release(again)
        yield* limit("the parents that are of no use go")(until(
          Effect.map(childrenOf(bare, "/hier/archy/orders"), (names) => !names.includes("2024"))
        ))
        assert.isTrue(yield* a.release(kept), "and the others stay")
      }))

    it.effect("closing leaves no parents", () =>
      Effect.gen(function*() {
        const { bare, servers } = yield* ZooKeeper
        yield* Effect.scoped(Effect.gen(function*() {
          const client = yield* ZooKeeperLock.make({ servers, prefix: "/closing" })
          const requests = Array.from({ length: 600 }, (_, i) => attempt(`a/${i}`))
          yield* Effect.forEach(requests, client.acquire, { concurrency: 100 })
          yield* Effect.forEach(requests, client.release, { concurrency: 100 })
        }))
        assert.deepStrictEqual(yield* childrenOf(bare, "/closing"), [])
      }))

    it.effect("parents that somebody removes again and again hold nobody up", () =>
      Effect.gen(function*() {
        const { a, b, bare } = yield* twoClients({ prefix: "/racing" })
        const paths = ["/racing/x/y", "/racing/x", "/racing"]
        const remover = yield* Effect.forkScoped(Effect.forever(
          Effect.forEach(paths, (path) => Effect.ignore(remove(bare, path)), { discard: true })
        ))
        let inside = 0
        const section = (client: typeof a) =>
          Effect.suspend(() => {
            const request = attempt("x/y")
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
        yield* limit("everybody is served")(Effect.forEach(
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
        const request = attempt(key)
        assert.isTrue(Option.isSome(yield* limit("the key is had")(a.tryAcquire(request))))
        yield* a.release(request)
      }))
  })
})
