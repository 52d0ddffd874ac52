import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"
import type { Client } from "../Kit.ts"

const rounds = Array.from({ length: 16 }, (_, i) => i)

export const giveBack: ReadonlyArray<Definition> = [
  {
    law: 5,
    name: "an acquire that is interrupted at any moment leaves nothing",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, patience, pause, settle, take, within }) {
      const interrupt = Effect.fnUntraced(function*(client: Client, k: string, i: number) {
        const request = attempt(k)
        const verb: Effect.Effect<unknown, LockBackendError> = i < 12
          ? client.acquire(request)
          : client.tryAcquire(request)
        const fiber = yield* Effect.forkChild(verb, { startImmediately: true })
        yield* pause(i % 8)
        yield* within(Fiber.interrupt(fiber), patience, "an interrupted attempt returns at once")
        yield* client.release(request)
        yield* settle
      })
      yield* Effect.forEach(rounds, (i) =>
        Effect.gen(function*() {
          const k = key()
          const client = i % 2 === 0 ? a : b
          yield* interrupt(client, k, i)
          yield* expectFree(k, "an interrupted attempt at a free key leaves nothing after its release")
          const holder = attempt(k)
          yield* take(b, holder, "a free key is granted")
          yield* interrupt(client, k, i)
          yield* b.release(holder)
          yield* expectFree(k, "an interrupted attempt at a held key leaves nothing after its release")
        }), { concurrency: 4, discard: true })
    })
  },
  {
    law: 5,
    name: "a release beside an acquire in flight wins",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, patience, pause, settle, within }) {
      yield* Effect.forEach(rounds, (i) =>
        Effect.gen(function*() {
          const k = key()
          const client = i % 2 === 0 ? a : b
          const request = attempt(k)
          const fiber = yield* Effect.forkChild(client.acquire(request), { startImmediately: i % 4 < 2 })
          yield* pause(i % 8)
          yield* client.release(request)
          yield* pause(7 - i % 8)
          yield* within(Fiber.interrupt(fiber), patience, "an interrupted acquire returns at once")
          yield* client.release(request)
          yield* settle
          yield* expectFree(k, "an attempt that was released while its acquire was in flight leaves nothing")
        }), { concurrency: 4, discard: true })
    })
  },
  {
    law: 5,
    name: "an attempt that was given back gets nothing any more",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, settle }) {
      for (const client of [a, b]) {
        const k = key()
        const tried = attempt(k)
        assert.isFalse(yield* client.release(tried), "the release of an owner that never asked answers false")
        const late = yield* Effect.exit(client.tryAcquire(tried))
        assert.isTrue(
          Exit.isFailure(late) || Option.isNone(late.value),
          "a tryAcquire that comes after its give-back is refused or fails"
        )
        yield* expectFree(k, "a tryAcquire that comes after its give-back holds nothing")
        const acquired = attempt(k)
        yield* client.release(acquired)
        const fiber = yield* Effect.forkScoped(client.acquire(acquired), { startImmediately: true })
        yield* settle
        const outcome = fiber.pollUnsafe()
        assert.isFalse(
          outcome !== undefined && Exit.isSuccess(outcome),
          "an acquire that comes after its give-back is not granted"
        )
        yield* expectFree(k, "an acquire that comes after its give-back holds nothing and does not stand in line")
        yield* Fiber.interrupt(fiber)
        yield* client.release(acquired)
        yield* expectFree(k, "nothing is left of an attempt that was given back twice")
      }
    })
  }
]
