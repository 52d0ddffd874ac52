import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"
import { isPending } from "../Kit.ts"

const fifo: Definition["needs"] = ["fifo", (capabilities) => capabilities.fifo]

export const line: ReadonlyArray<Definition> = [
  {
    law: 6,
    name: "the line is first come, first served over both clients",
    needs: fifo,
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, lineUp, patience, take, within }) {
      const k = key()
      const holder = attempt(k)
      yield* take(a, holder, "a free key is granted")
      const served: Array<number> = []
      const sections: Array<Fiber.Fiber<void, LockBackendError>> = []
      for (const i of [0, 1, 2, 3, 4, 5, 6, 7]) {
        const client = i % 3 === 0 ? a : b
        const request = attempt(k)
        const waiting = yield* lineUp(client, request)
        const section = Effect.gen(function*() {
          yield* Fiber.join(waiting)
          served.push(i)
          yield* client.release(request)
        })
        sections.push(yield* Effect.forkScoped(section, { startImmediately: true }))
      }
      assert.deepStrictEqual(served, [], "nobody in line is served while the key is held")
      yield* a.release(holder)
      yield* within(Fiber.joinAll(sections), patience, "everybody in line is served")
      assert.deepStrictEqual(served, [0, 1, 2, 3, 4, 5, 6, 7], "who came first is served first")
      yield* expectFree(k, "a key whose line is empty is free")
    })
  },
  {
    law: 6,
    name: "who leaves the line does not hold up those behind",
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, key, lineUp, patience, take, within }) {
        const k = key()
        const holder = attempt(k)
        yield* take(a, holder, "a free key is granted")
        const leavers = []
        for (const client of [b, a, b]) {
          const request = attempt(k)
          leavers.push({ client, request, waiting: yield* lineUp(client, request) })
        }
        const last = attempt(k)
        const waiting = yield* lineUp(a, last)
        for (const leaver of leavers) {
          yield* within(Fiber.interrupt(leaver.waiting), patience, "an interrupted acquire returns at once")
          yield* leaver.client.release(leaver.request)
        }
        assert.isTrue(isPending(waiting), "acquire does not return while another owner holds the key")
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, "the line goes on behind those who left it")
        assert.isTrue(yield* a.release(last), "the release of a key that was waited for answers true")
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  },
  {
    law: 6,
    name: "who leaves at the moment of its turn does not hold up those behind",
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, key, lineUp, patience, pause, take, within }) {
        yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], (i) =>
          Effect.gen(function*() {
            const k = key()
            const holder = attempt(k)
            const leaver = attempt(k)
            const last = attempt(k)
            yield* take(a, holder, "a free key is granted")
            const leaving = yield* lineUp(b, leaver)
            const waiting = yield* lineUp(a, last)
            const releasing = yield* Effect.forkChild(a.release(holder), { startImmediately: true })
            yield* pause(i)
            yield* within(Fiber.interrupt(leaving), patience, "an interrupted acquire returns at once")
            yield* b.release(leaver)
            yield* Fiber.join(releasing)
            yield* within(Fiber.join(waiting), patience, "the line goes on behind one who left at its turn")
            yield* a.release(last)
            yield* expectFree(k, "a key whose line is empty is free")
          }), { concurrency: 4, discard: true })
      }
    )
  },
  {
    law: 6,
    name: "tryAcquire does not overtake those who stand in line",
    needs: fifo,
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, expectHeld, key, lineUp, patience, take, within }) {
        for (const client of [a, b, a, b]) {
          const k = key()
          const holder = attempt(k)
          const waiter = attempt(k)
          yield* take(a, holder, "a free key is granted")
          const waiting = yield* lineUp(b, waiter)
          const [, overtaker] = yield* Effect.all([a.release(holder), client.tryAcquire(attempt(k))], {
            concurrency: 2
          })
          assert.isTrue(Option.isNone(overtaker), "tryAcquire is refused while somebody stands in line")
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
      function*({ a, attempt, b, deadWaiterDelay, key, lineUp, minTtl, mortal, slack, take, within }) {
        const k = key()
        const holder = attempt(k)
        const next = attempt(k)
        const { client, cut } = yield* mortal
        yield* take(a, holder, "a free key is granted")
        yield* lineUp(client, attempt(k, minTtl))
        const waiting = yield* lineUp(b, next)
        yield* cut
        yield* a.release(holder)
        const limit = Duration.sum(deadWaiterDelay, slack)
        yield* within(Fiber.join(waiting), limit, "the line goes on behind a waiter that died")
        yield* b.release(next)
      }
    )
  },
  {
    law: 6,
    name: "a waiter that does nothing with its turn holds up the line for its ttl",
    needs: ["fifo and tenure lease", ({ fifo, tenure }) => fifo && tenure === "lease"],
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, granularity, key, lineUp, minTtl, patience, take, within }) {
        const k = key()
        const holder = attempt(k)
        const next = attempt(k)
        yield* take(a, holder, "a free key is granted")
        const idle = yield* lineUp(a, attempt(k, minTtl))
        const waiting = yield* lineUp(b, next)
        yield* a.release(holder)
        yield* within(Fiber.join(idle), patience, "a release lets the next in line have the key")
        const limit = Duration.sum(Duration.sum(minTtl, granularity), patience)
        yield* within(Fiber.join(waiting), limit, "the line goes on behind a lease that nobody renews")
        yield* b.release(next)
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  }
]
