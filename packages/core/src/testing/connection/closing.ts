import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Definition } from "./Case.ts"
import { expectFree, need, open, patience, until, within } from "./Case.ts"

export const closing: ReadonlyArray<Definition> = [
  {
    name: "nothing is open after the layer closed, whatever was under way",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const road = yield* kit.road(server)
        yield* within(
          Effect.scoped(Effect.gen(function*() {
            const client = yield* kit.client(road)
            const held = kit.request()
            yield* client.acquire(held)
            yield* Effect.forkScoped(Effect.ignore(client.acquire(kit.request(held.key))))
            yield* until(Effect.map(road.connections, (open) => open > 0), patience, "there is a connection")
          })),
          kit.commandTimeout + patience,
          "the layer closes"
        )
        yield* until(Effect.map(road.connections, (open) => open === 0), kit.slack, "no connection is open")
      })
  },
  {
    name: "a layer closes while its server is frozen, or away",
    run: (kit) =>
      Effect.gen(function*() {
        for (const fault of ["pause", "kill"] as const) {
          const server = yield* kit.ownServer
          yield* within(
            Effect.scoped(Effect.gen(function*() {
              const client = yield* kit.client(server)
              yield* client.acquire(kit.request())
              yield* Effect.orDie(server[fault])
            })),
            2 * kit.commandTimeout + patience,
            `the layer closes after ${fault}`
          )
          if (fault === "pause") yield* Effect.orDie(server.resume)
        }
      })
  },
  {
    name: "a layer that is interrupted while it connects leaves nothing open",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const road = yield* kit.road(server)
        for (const millis of [0, 1, 5, 20]) {
          const connecting = yield* Effect.forkScoped(Effect.scoped(kit.client(road)))
          yield* Effect.sleep(millis)
          yield* within(Fiber.interrupt(connecting), patience, "it is interrupted")
        }
        yield* until(Effect.map(road.connections, (open) => open === 0), kit.slack, "no connection is open")
      })
  },
  {
    name: "a driver of the caller stays open, and its settings do not matter",
    needs: "given",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const other = yield* kit.client(server)
        for (const [name, driver] of Object.entries(kit.adapter.given ?? {})) {
          const given = yield* need(driver(server))
          const key = kit.request().key
          yield* Effect.scoped(Effect.gen(function*() {
            const client = yield* open(given.make)
            const held = kit.request(key)
            yield* within(client.acquire(held), patience, `${name}: it is had`)
            const waiter = kit.request(key)
            const waiting = yield* Effect.forkScoped(client.acquire(waiter))
            yield* Effect.sleep("100 millis")
            yield* client.release(held)
            yield* within(Fiber.join(waiting), patience, `${name}: the next has it`)
            yield* client.release(waiter)
          }))
          assert.isTrue(yield* need(given.isOpen), `${name}: the driver is not ours to close`)
          yield* expectFree(kit, other, key, `${name}: the key is free`)
        }
      })
  }
]
