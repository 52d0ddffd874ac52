import type { LockBackend } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Option } from "effect"
import { type Curator, curator } from "../harness/Curator.ts"
import { available } from "../harness/Program.ts"
import { freshKey, newRequest, until } from "../requests.ts"
import { directoryOf, limit, lineOf, ZooKeeper } from "./support.ts"

/** A client of ours and one of Curator, which Java compiles anew for each. */
class Clients extends Context.Service<Clients, {
  readonly ours: LockBackend["Service"]
  readonly theirs: Curator
}>()("test/zookeeper/Clients") {
  static readonly layer = Layer.effect(
    Clients,
    Effect.gen(function*() {
      const { servers } = yield* ZooKeeper
      const [ours, theirs] = yield* Effect.all([ZooKeeperLock.make({ servers }), curator(servers)], { concurrency: 2 })
      return { ours, theirs }
    })
  ).pipe(Layer.provideMerge(ZooKeeper.layer({ version: "3.8" })))
}

const lineOfLength = (key: string, length: number) =>
  Effect.flatMap(ZooKeeper, ({ bare }) => until(Effect.map(lineOf(bare, key), (line) => line.length === length)))

const levels = (top: string) => [top, `${top}/42`, `${top}/42/a`]

describe.skipIf(!available("curator"))("Curator 5.4", () => {
  layer(Clients.layer, { excludeTestServices: true, timeout: "1 minute" })((it) => {
    it.effect("is excluded by us, on every level", () =>
      Effect.gen(function*() {
        const { ours, theirs } = yield* Clients
        for (const key of levels(freshKey())) {
          const request = newRequest(key)
          yield* ours.acquire(request)
          assert.isFalse(yield* theirs.acquire(directoryOf(key), 200), "Curator does not get what we hold")
          yield* ours.release(request)
          assert.isTrue(yield* theirs.acquire(directoryOf(key), 5000), "Curator gets what we released")
          yield* theirs.release(directoryOf(key))
        }
      }))

    it.effect("excludes us, on every level", () =>
      Effect.gen(function*() {
        const { ours, theirs } = yield* Clients
        for (const key of levels(freshKey())) {
          assert.isTrue(yield* theirs.acquire(directoryOf(key), 5000))
          assert.isTrue(Option.isNone(yield* ours.tryAcquire(newRequest(key))), "we do not get what Curator holds")
          yield* theirs.release(directoryOf(key))
          const request = newRequest(key)
          assert.isTrue(Option.isSome(yield* ours.tryAcquire(request)), "we get what Curator released")
          yield* ours.release(request)
        }
      }))

    it.effect("stands in one line with us", () =>
      Effect.gen(function*() {
        const { ours, theirs } = yield* Clients
        const key = freshKey()
        const [holder, before, after] = [newRequest(key), newRequest(key), newRequest(key)]
        yield* ours.acquire(holder)
        const first = yield* Effect.forkScoped(ours.acquire(before))
        yield* lineOfLength(key, 2)
        const second = yield* Effect.forkScoped(theirs.acquire(directoryOf(key), 20_000))
        yield* lineOfLength(key, 3)
        const third = yield* Effect.forkScoped(ours.acquire(after))
        yield* lineOfLength(key, 4)
        yield* ours.release(holder)
        yield* limit("the first in line is served first")(Fiber.join(first))
        assert.isUndefined(second.pollUnsafe(), "Curator waits for its turn")
        yield* ours.release(before)
        assert.isTrue(yield* limit("Curator is served next")(Fiber.join(second)))
        yield* Effect.sleep("200 millis")
        assert.isUndefined(third.pollUnsafe(), "we wait for our turn")
        yield* theirs.release(directoryOf(key))
        yield* limit("then we are served")(Fiber.join(third))
        yield* ours.release(after)
      }))

    it.effect("does not wait for keys below its own, whatever their names", () =>
      Effect.gen(function*() {
        const { ours, theirs } = yield* Clients
        const top = freshKey()
        const names = ["0", "00", "0000000000", "-", "!a", "my-lock-", "lock-0000000000", "42", "abc", "~", " "]
        const below = names.map((name) => newRequest(`${top}/${name}`))
        yield* Effect.forEach(below, ours.acquire)
        assert.isTrue(yield* theirs.acquire(directoryOf(top), 2000), "Curator gets the key above")
        assert.isTrue(Option.isNone(yield* ours.tryAcquire(newRequest(top))), "and holds it")
        yield* theirs.release(directoryOf(top))
        yield* Effect.forEach(below, ours.release)
      }))

    // The last: no other is started after it.
    it.effect("that dies is followed by us", () =>
      Effect.gen(function*() {
        const { ours, theirs } = yield* Clients
        const request = newRequest(freshKey())
        assert.isTrue(yield* theirs.acquire(directoryOf(request.key), 5000))
        const waiting = yield* Effect.forkScoped(ours.acquire(request))
        yield* theirs.kill
        yield* limit("its session ends, and the key is ours")(Fiber.join(waiting))
        yield* ours.release(request)
      }))
  })
})
