import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"

const counted: Definition["needs"] = ["counted", (capabilities) => capabilities.counted !== undefined]

const seconds = 3

export const requests: ReadonlyArray<Definition> = [
  {
    law: 10,
    name: "waiters send no more requests than declared",
    needs: counted,
    run: Effect.fnUntraced(
      function*({ a, capabilities, counted, elapse, key, lineUp, newRequest, settle, take }) {
        const { client, requests } = yield* counted
        const holder = newRequest(key())
        yield* take(a, holder, "a free key is granted")
        for (let i = 0; i < 5; i++) yield* lineUp(client, newRequest(holder.key))
        yield* settle
        const before = yield* requests
        yield* elapse(seconds * 1000)
        const sent = (yield* requests) - before
        const most = (capabilities.requestsPerSecond ?? 10) * seconds
        assert.isTrue(sent <= most, `five waiters send at most ${most} requests in ${seconds} s, and not ${sent}`)
        yield* a.release(holder)
      }
    )
  },
  {
    law: 6,
    name: "a release does not make every waiter ask the server",
    needs: ["counted and fifo", ({ counted, fifo }) => counted !== undefined && fifo],
    run: Effect.fnUntraced(
      function*({ a, capabilities, counted, key, lineUp, newRequest, now, patience, settle, take, within }) {
        const { client, requests } = yield* counted
        const hurried = Effect.gen(function*() {
          const holder = newRequest(key())
          const next = newRequest(holder.key)
          yield* take(a, holder, "a free key is granted")
          const waiting = yield* lineUp(client, next)
          const others = Array.from({ length: 20 }, () => newRequest(holder.key))
          const fibers = yield* Effect.forEach(others, (other) => lineUp(client, other))
          yield* settle
          const start = yield* now
          const before = yield* requests
          yield* a.release(holder)
          yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
          yield* settle
          const elapsed = ((yield* now) - start) / 1000
          // What five waiters may send by law 10, times four.
          const most = 10 + Math.ceil(4 * (capabilities.requestsPerSecond ?? 10) * elapsed)
          const sent = (yield* requests) - before
          yield* Fiber.interruptAll(fibers)
          yield* Effect.forEach(others, client.release)
          yield* client.release(next)
          return { most, sent }
        })
        // What a busy machine did not get to before comes in addition, but not every time.
        const { most, sent } = yield* Effect.repeat(hurried, { times: 4, until: ({ most, sent }) => sent <= most })
        assert.isTrue(sent <= most, `a release that 20 others wait for costs at most ${most} requests, and not ${sent}`)
      }
    )
  },
  {
    law: "inspect",
    name: "it costs at most two requests, and ping one",
    needs: ["counted and inspects", ({ counted, inspects }) => counted !== undefined && inspects !== undefined],
    run: Effect.fnUntraced(function*({ capabilities, counted, key, newRequest, now, settle, take }) {
      const { client, requests } = yield* counted
      const holder = newRequest(key())
      yield* take(client, holder, "a free key is granted")
      const times = 10
      const sentBy = Effect.fnUntraced(function*(verb: Effect.Effect<unknown, LockBackendError>) {
        yield* Effect.andThen(verb, settle)
        const start = yield* now
        const before = yield* requests
        yield* Effect.repeat(verb, { times: times - 1 })
        const others = Math.ceil((capabilities.requestsPerSecond ?? 10) * ((yield* now) - start) / 1000)
        return (yield* requests) - before - others
      })
      const inspected = yield* sentBy(client.inspect(holder.key))
      assert.isTrue(inspected <= 2 * times, `inspect costs at most two requests: ${inspected} for ${times}`)
      const pinged = yield* sentBy(client.ping)
      assert.isTrue(pinged <= times, `ping costs one request: ${pinged} for ${times}`)
      yield* client.release(holder)
    })
  }
]
