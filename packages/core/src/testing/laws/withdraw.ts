import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { LockRequest } from "../../LockBackend.ts"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"
import type { Client, Kit } from "../Kit.ts"

const rounds = Array.from({ length: 16 }, (_, i) => i)

const late: Definition["needs"] = ["late", (capabilities) => capabilities.late !== undefined]

/** A late client with an open connection: a key was taken, waited for and released by it. */
const warmLate = Effect.fnUntraced(function*({ a, key, late, lineUp, newRequest, persist, take }: Kit) {
  const made = yield* late
  const tried = newRequest(key())
  yield* take(made.client, tried, "a free key is granted")
  yield* persist(made.client.release(tried))
  const holder = newRequest(key())
  const waiter = newRequest(holder.key)
  yield* take(a, holder, "a free key is granted")
  const waiting = yield* lineUp(made.client, waiter)
  yield* Fiber.interrupt(waiting)
  yield* persist(made.client.release(waiter))
  yield* a.release(holder)
  return made
})

/** Releases as core does: again, until it is answered. */
const releaseUntilAnswered = ({ patience, until, verbLimit }: Kit, client: Client, request: LockRequest) =>
  until(
    Effect.map(Effect.exit(client.release(request)), Exit.isSuccess),
    verbLimit + patience,
    "a release is answered once the server is reachable"
  )

/** Another client can have the key, so nothing of the request is held or queued. */
const expectGranted = ({ a, endLimit, newRequest, within }: Kit, key: string, property: string) =>
  Effect.gen(function*() {
    const next = newRequest(key)
    yield* within(a.acquire(next), endLimit, property)
    yield* a.release(next)
  })

export const withdraw: ReadonlyArray<Definition> = [
  {
    law: 5,
    name: "an acquire that is interrupted at any moment leaves nothing",
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, newRequest, patience, pause, settle, take, within }) {
      const interrupt = Effect.fnUntraced(function*(client: Client, k: string, i: number) {
        const request = newRequest(k)
        const verb: Effect.Effect<unknown, LockBackendError> = i < 12
          ? client.acquire(request)
          : client.tryAcquire(request)
        const fiber = yield* Effect.forkChild(verb, { startImmediately: true })
        yield* pause(i % 8)
        yield* within(Fiber.interrupt(fiber), patience, "an interrupted request returns at once")
        yield* client.release(request)
        yield* settle
      })
      yield* Effect.forEach(rounds, (i) =>
        Effect.gen(function*() {
          const k = key()
          const client = i % 2 === 0 ? a : b
          yield* interrupt(client, k, i)
          yield* expectFree(k, "an interrupted request for a free key leaves nothing after its release")
          const holder = newRequest(k)
          yield* take(b, holder, "a free key is granted")
          yield* interrupt(client, k, i)
          yield* b.release(holder)
          yield* expectFree(k, "an interrupted request for a held key leaves nothing after its release")
        }), { concurrency: 4, discard: true })
    })
  },
  {
    law: 5,
    name: "a tryAcquire that arrives after its release takes nothing",
    needs: late,
    run: Effect.fnUntraced(function*(kit) {
      const { key, newRequest, settle, verbLimit, within } = kit
      const { breakOff, client, deliver, holdBack } = yield* warmLate(kit)
      const request = newRequest(key())
      yield* holdBack
      const asking = yield* Effect.forkScoped(client.tryAcquire(request), { startImmediately: true })
      yield* settle
      yield* breakOff
      yield* within(Fiber.await(asking), verbLimit, "a tryAcquire whose connection breaks comes to an end")
      yield* releaseUntilAnswered(kit, client, request)
      yield* deliver
      yield* settle
      yield* expectGranted(kit, request.key, "a tryAcquire that arrives after its release leaves the key free")
    })
  },
  {
    law: 5,
    name: "an acquire that arrives after its release takes neither the key nor a place in line",
    needs: late,
    run: Effect.fnUntraced(function*(kit) {
      const { a, key, newRequest, patience, settle, take, within } = kit
      const { breakOff, client, deliver, holdBack } = yield* warmLate(kit)
      for (const isHeld of [false, true]) {
        const request = newRequest(key())
        const holder = newRequest(request.key)
        if (isHeld) yield* take(a, holder, "a free key is granted")
        yield* holdBack
        const asking = yield* Effect.forkScoped(client.acquire(request), { startImmediately: true })
        yield* settle
        yield* breakOff
        yield* within(Fiber.interrupt(asking), patience, "an interrupted acquire returns at once")
        yield* releaseUntilAnswered(kit, client, request)
        yield* deliver
        yield* settle
        if (isHeld) yield* a.release(holder)
        yield* expectGranted(kit, request.key, "an acquire that arrives after its release leaves nothing")
      }
    })
  },
  {
    law: 3,
    name: "a renewal that arrives after the release changes nothing",
    needs: late,
    run: Effect.fnUntraced(function*(kit) {
      const { b, key, minTtl, newRequest, settle, take, verbLimit, within } = kit
      const { breakOff, client, deliver, holdBack } = yield* warmLate(kit)
      // A session may outlive its connections for the ttl.
      const holder = newRequest(key(), { ttl: minTtl })
      const next = newRequest(holder.key)
      yield* take(client, holder, "a free key is granted")
      yield* holdBack
      const renewing = yield* Effect.forkScoped(client.renew(holder, { fresh: true }), { startImmediately: true })
      yield* settle
      yield* breakOff
      yield* within(Fiber.await(renewing), verbLimit, "a renewal whose connection breaks comes to an end")
      yield* releaseUntilAnswered(kit, client, holder)
      yield* within(b.acquire(next), kit.endLimit, "a released key is granted")
      yield* deliver
      yield* settle
      assert.isTrue(Option.isSome(yield* b.renew(next, { fresh: true })), "a late renewal does not end the next grant")
      yield* b.release(next)
      yield* expectGranted(kit, holder.key, "a late renewal does not take the key")
    })
  },
  {
    law: 4,
    name: "a release that arrives again does not free the key of the next holder",
    needs: late,
    run: Effect.fnUntraced(function*(kit) {
      const { b, endLimit, expectHeld, key, minTtl, newRequest, settle, take, verbLimit, within } = kit
      const { breakOff, client, deliver, holdBack } = yield* warmLate(kit)
      // A session may outlive its connections for the ttl.
      const holder = newRequest(key(), { ttl: minTtl })
      const next = newRequest(holder.key)
      yield* take(client, holder, "a free key is granted")
      yield* holdBack
      const releasing = yield* Effect.forkScoped(client.release(holder), { startImmediately: true })
      yield* settle
      yield* breakOff
      yield* within(Fiber.await(releasing), verbLimit, "a release whose connection breaks comes to an end")
      yield* releaseUntilAnswered(kit, client, holder)
      yield* within(b.acquire(next), endLimit, "a released key is granted")
      yield* deliver
      yield* settle
      yield* expectHeld(holder.key, "a release that arrives again does not free the key of the next holder")
      assert.isTrue(Option.isSome(yield* b.renew(next, { fresh: true })), "a release that arrives again ends no grant")
      yield* b.release(next)
      yield* expectGranted(kit, holder.key, "a released key is free")
    })
  }
]
