import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"
import { isPending } from "../Kit.ts"

const fifo: Definition["needs"] = ["fifo", (capabilities) => capabilities.fifo]

const places = [0, 1, 2, 3, 4, 5, 6, 7]

export const line: ReadonlyArray<Definition> = [
  {
    law: 6,
    name: "the line is first come, first served over both clients",
    needs: fifo,
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, lineUp, newRequest, patience, take, within }) {
      const k = key()
      const holder = newRequest(k)
      yield* take(a, holder, "a free key is granted")
      const served: Array<number> = []
      const sections: Array<Fiber.Fiber<void, LockBackendError>> = []
      for (const i of places) {
        const client = i % 3 === 0 ? a : b
        const request = newRequest(k)
        const waiting = yield* lineUp(client, request)
        const section = Effect.gen(function*() {
          yield* Fiber.join(waiting)
          served.push(i)
          yield* client.release(request)
        })
        sections.push(yield* Effect.forkScoped(section, { startImmediately: true }))
      }
      assert.deepStrictEqual(served, [], "no waiter is served while the key is held")
      yield* a.release(holder)
      yield* within(Fiber.joinAll(sections), patience, "every waiter is served")
      assert.deepStrictEqual(served, places, "first come, first served")
      yield* expectFree(k, "a key whose line is empty is free")
    })
  },
  {
    law: 6,
    name: "a release hands the key over to exactly one waiter, and tryAcquire does not come between",
    needs: fifo,
    run: Effect.fnUntraced(
      function*({ a, b, expectFree, expectHeld, key, lineUp, newRequest, patience, take, within }) {
        const k = key()
        const holder = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        const line = yield* Effect.forEach([b, a, b, a], (client) => {
          const request = newRequest(k)
          return Effect.map(lineUp(client, request), (waiting) => ({ client, request, waiting }))
        })
        yield* a.release(holder)
        for (const [i, { client, request, waiting }] of line.entries()) {
          yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
          yield* expectHeld(k, "tryAcquire is refused when the key was handed over")
          assert.isTrue(line.slice(i + 1).every((next) => isPending(next.waiting)), "a release serves one waiter only")
          yield* client.release(request)
        }
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  },
  {
    law: 6,
    name: "a waiter that leaves the line does not hold up those behind",
    run: Effect.fnUntraced(
      function*({ a, b, expectFree, key, lineUp, newRequest, patience, take, within }) {
        const k = key()
        const holder = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        const leavers = yield* Effect.forEach([b, a, b], (client) => {
          const request = newRequest(k)
          return Effect.map(lineUp(client, request), (waiting) => ({ client, request, waiting }))
        })
        const last = newRequest(k)
        const waiting = yield* lineUp(a, last)
        for (const leaver of leavers) {
          yield* within(Fiber.interrupt(leaver.waiting), patience, "an interrupted acquire returns at once")
          yield* leaver.client.release(leaver.request)
        }
        assert.isTrue(isPending(waiting), "acquire does not return while another owner holds the key")
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, "the line goes on behind those that left it")
        assert.notStrictEqual(yield* a.release(last), "gone", "the release of a key that was waited for is not gone")
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  },
  {
    law: 6,
    name: "a waiter that leaves at the moment of its grant does not hold up those behind",
    run: Effect.fnUntraced(
      function*({ a, b, expectFree, key, lineUp, newRequest, patience, pause, take, within }) {
        yield* Effect.forEach(places, (i) =>
          Effect.gen(function*() {
            const k = key()
            const holder = newRequest(k)
            const leaver = newRequest(k)
            const last = newRequest(k)
            yield* take(a, holder, "a free key is granted")
            const leaving = yield* lineUp(b, leaver)
            const waiting = yield* lineUp(a, last)
            const releasing = yield* Effect.forkChild(a.release(holder), { startImmediately: true })
            yield* pause(i)
            yield* within(Fiber.interrupt(leaving), patience, "an interrupted acquire returns at once")
            yield* b.release(leaver)
            yield* Fiber.join(releasing)
            yield* within(Fiber.join(waiting), patience, "the line goes on behind one that left at its grant")
            yield* a.release(last)
            yield* expectFree(k, "a key whose line is empty is free")
          }), { concurrency: 4, discard: true })
      }
    )
  },
  {
    law: 6,
    name: "tryAcquire does not overtake the line",
    needs: fifo,
    run: Effect.fnUntraced(
      function*({ a, b, expectFree, expectHeld, key, lineUp, newRequest, patience, take, within }) {
        for (const client of [a, b, a, b]) {
          const k = key()
          const holder = newRequest(k)
          const waiter = newRequest(k)
          yield* take(a, holder, "a free key is granted")
          const waiting = yield* lineUp(b, waiter)
          const [, overtaker] = yield* Effect.all([a.release(holder), client.tryAcquire(newRequest(k))], {
            concurrency: 2
          })
          assert.isTrue(Option.isNone(overtaker), "tryAcquire is refused while another owner stands in line")
          yield* expectHeld(k, "tryAcquire is refused when the key was released to the line")
          yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
          yield* b.release(waiter)
          yield* expectFree(k, "a key whose line is empty is free")
        }
      }
    )
  },
  {
    law: 6,
    name: "a waiter that died holds up the line no longer than declared",
    needs: ["mortal", ({ mortal }) => mortal !== undefined],
    run: Effect.fnUntraced(
      function*({ a, b, deadWaiterDelay, key, lineUp, minTtl, mortal, newRequest, slack, take, within }) {
        const k = key()
        const holder = newRequest(k)
        const next = newRequest(k)
        const { client, cut } = yield* mortal
        yield* take(a, holder, "a free key is granted")
        yield* lineUp(client, newRequest(k, { ttl: minTtl }))
        const waiting = yield* lineUp(b, next)
        yield* cut
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), deadWaiterDelay + slack, "the line goes on behind a waiter that died")
        yield* b.release(next)
      }
    )
  },
  {
    law: 6,
    name: "a waiter that does not use its grant holds up the line for its ttl",
    needs: ["fifo and freedBy ttl", ({ fifo, freedBy }) => fifo && freedBy === "ttl"],
    run: Effect.fnUntraced(
      function*({ a, b, endLimit, expectFree, key, lineUp, minTtl, newRequest, patience, take, within }) {
        const k = key()
        const holder = newRequest(k)
        const next = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        const idle = yield* lineUp(a, newRequest(k, { ttl: minTtl }))
        const waiting = yield* lineUp(b, next)
        yield* a.release(holder)
        yield* within(Fiber.join(idle), patience, "a release lets the next in line have the key")
        yield* within(Fiber.join(waiting), endLimit, "the line goes on behind a grant that is not renewed")
        yield* b.release(next)
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  }
]
