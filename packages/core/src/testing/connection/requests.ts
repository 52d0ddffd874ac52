import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition, Kit } from "./Case.ts"
import { expectFree, patience, until, within } from "./Case.ts"

/** A key that is held over a connection of its own, and a request for it over a road that can be disturbed. */
const behindAHolder = Effect.fnUntraced(function*<O extends object>(kit: Kit<O>) {
  const server = yield* kit.server
  const road = yield* kit.road(server)
  const client = yield* kit.client(road)
  const other = yield* kit.client(server)
  const held = kit.request()
  yield* other.acquire(held)
  return { client, held, other, road, waiter: kit.request(held.key) }
})

export const requests: ReadonlyArray<Definition> = [
  {
    name: "a lost reply to an acquire: the key is had once, and is free after the release",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const road = yield* kit.road(server)
        const client = yield* kit.client(road)
        const other = yield* kit.client(server)
        const held = kit.request()
        yield* road.dropNextReply
        yield* within(client.acquire(held), patience, "it is had")
        const second = yield* other.tryAcquire(kit.request(held.key))
        assert.isTrue(Option.isNone(second), "no other has it meanwhile")
        yield* client.release(held)
        yield* expectFree(kit, other, held.key, "the key is free")
      })
  },
  {
    name: "a lost reply to a release: it is answered in the end, and the key is free",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const road = yield* kit.road(server)
        const client = yield* kit.client(road)
        const other = yield* kit.client(server)
        const held = kit.request()
        yield* client.acquire(held)
        yield* road.dropNextReply
        const released = yield* within(client.release(held), patience, "the release is answered")
        assert.include(["released", "gone", "unknown"], released)
        yield* expectFree(kit, other, held.key, "the key is free")
      })
  },
  {
    name: "a request that arrives after its release gets nothing",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const road = yield* kit.road(server)
        const client = yield* kit.client(road)
        const other = yield* kit.client(server)
        const late = kit.request()
        yield* road.freeze
        const asking = yield* Effect.forkScoped(client.acquire(late))
        yield* Effect.sleep("200 millis")
        yield* road.strand
        yield* Fiber.interrupt(asking)
        yield* within(client.release(late), patience, "the release is answered on another connection")
        yield* road.pass
        // Time for what was held back to arrive.
        yield* Effect.sleep("500 millis")
        yield* expectFree(kit, other, late.key, "the key is free")
      })
  },
  {
    name: "what is interrupted leaves no place in line",
    run: (kit) =>
      Effect.gen(function*() {
        const { client, held, other, road, waiter } = yield* behindAHolder(kit)
        const waiting = yield* Effect.forkScoped(client.acquire(waiter))
        yield* Effect.sleep("200 millis")
        yield* road.cut
        yield* within(Fiber.interrupt(waiting), kit.slack, "a waiter is interruptible at once")
        yield* within(client.release(waiter), patience, "the release is answered")
        yield* other.release(held)
        yield* expectFree(kit, other, held.key, "the key is free")
      })
  },
  {
    name: "a waiter is served although its connection broke while it waited",
    run: (kit) =>
      Effect.gen(function*() {
        const { client, held, other, road, waiter } = yield* behindAHolder(kit)
        const waiting = yield* Effect.forkScoped(client.acquire(waiter))
        yield* Effect.sleep("200 millis")
        yield* road.cut
        yield* until(Effect.map(road.connections, (open) => open > 0), patience, "it connects again")
        yield* other.release(held)
        yield* within(Fiber.join(waiting), patience, "it is served")
        yield* client.release(waiter)
        yield* expectFree(kit, other, held.key, "the key is free")
      })
  }
]
