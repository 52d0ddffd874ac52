import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Leader from "../../Leader.ts"
import { Lock, withPermit, withPermitIfAvailable } from "../../Lock.ts"
import { LockBackend } from "../../LockBackend.ts"
import { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"
import { type Client, isPending, type Kit } from "../Kit.ts"

const mortal: Definition["needs"] = ["mortal", (capabilities) => capabilities.mortal !== undefined]

/** A process of its own, over this client. */
const lockOver = (client: Client): Effect.Effect<Lock["Service"], never, Scope.Scope> =>
  Effect.map(Layer.build(Layer.provide(Lock.layer, Layer.succeed(LockBackend, client))), Context.get(Lock))

/** Errors that are not the backend's are defects of a case. */
const by = (lock: Lock["Service"]) => <A, E>(effect: Effect.Effect<A, E, Lock>): Effect.Effect<A> =>
  Effect.orDie(Effect.provideService(effect, Lock, lock))

const areFree = (lock: Lock["Service"], key: string, limit: number): Effect.Effect<boolean> =>
  Effect.map(by(lock)(withPermitIfAvailable(key, { limit, permits: limit }, Effect.void)), Option.isSome)

/** Nothing is held, and nothing stands in line. */
const expectAllFree = Effect.fnUntraced(
  function*({ b, expectFree, patience, until }: Kit, key: string, limit: number) {
    yield* until(areFree(yield* lockOver(b), key, limit), patience, "permits that nothing uses are free")
    for (const name of ["permits", ...Array.from({ length: limit }, (_, i) => `permit-${i}`)]) {
      yield* expectFree(`${key}#${name}`, "nothing is held or queued of what permits are made of")
    }
  }
)

/** Runs until it is let go, and says when it runs. */
const section = () => {
  const [runs, leave] = [Deferred.makeUnsafe<void>(), Deferred.makeUnsafe<void>()]
  return {
    isIn: Deferred.await(runs),
    /** Waits until it runs in this fiber, and fails as the fiber does if that ends before. */
    enters: (fiber: Fiber.Fiber<unknown>) => Effect.raceFirst(Deferred.await(runs), Fiber.join(fiber)),
    leave: Deferred.succeed(leave, undefined),
    program: Effect.andThen(Deferred.succeed(runs, undefined), Deferred.await(leave))
  }
}

/** A client with a short command timeout may be answered too late by a busy machine. */
const untilDead = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, { while: (error) => error instanceof LockBackendError, schedule: Schedule.spaced("100 millis") })

/** Calls `at` before and after the verb of this number, and tells how many verbs there were. */
const watched = (client: Client) => {
  const moment = { count: 0, at: (_: number): void => {} }
  const tell = Effect.sync(() => moment.at(++moment.count))
  const around = <A>(verb: Effect.Effect<A, LockBackendError>) => Effect.ensuring(Effect.andThen(tell, verb), tell)
  const seen: Client = {
    ...client,
    acquire: (request) => around(client.acquire(request)),
    tryAcquire: (request) => around(client.tryAcquire(request)),
    release: (request) => around(client.release(request))
  }
  return { moment, seen }
}

export const permits: ReadonlyArray<Definition> = [
  {
    law: "permits",
    name: "at most so many permits are in use over all clients",
    run: Effect.fnUntraced(function*(kit) {
      const { a, b, key, patience, settle, within } = kit
      const [k, limit] = [key(), 2]
      const locks = [yield* lockOver(a), yield* lockOver(b), yield* lockOver(a)]
      const sections = locks.map((lock) => ({ ...section(), lock }))
      const fibers: Array<Fiber.Fiber<void>> = []
      for (const { enters, lock, program } of sections) {
        const fiber = yield* Effect.forkScoped(by(lock)(withPermit(k, { limit }, program)), { startImmediately: true })
        fibers.push(fiber)
        if (fibers.length <= limit) yield* within(enters(fiber), patience, "a free permit is granted")
      }
      const [first, , third] = sections
      yield* settle
      const waiting = yield* Effect.forkScoped(third?.isIn ?? Effect.never, { startImmediately: true })
      assert.isTrue(isPending(waiting), "one more waits")
      for (const lock of locks) assert.isFalse(yield* areFree(lock, k, 1), "no permit is free")
      yield* first?.leave ?? Effect.void
      yield* within(Fiber.join(waiting), patience, "a permit that is released is granted to the one that waits")
      for (const { leave } of sections) yield* leave
      yield* within(Fiber.joinAll(fibers), patience, "all have run")
      yield* expectAllFree(kit, k, limit)
    })
  },
  {
    law: "permits",
    name: "permits are granted in the order in which clients ask, whatever their number",
    needs: ["fifo", ({ fifo }) => fifo],
    run: Effect.fnUntraced(function*(kit) {
      const { a, b, key, lineUp, newRequest, patience, until, within } = kit
      const [k, limit] = [key(), 2]
      const [first, second, third] = [yield* lockOver(a), yield* lockOver(b), yield* lockOver(a)]
      const holder = section()
      const order: Array<string> = []
      const ask = (lock: Lock["Service"], name: string, permits: number) =>
        by(lock)(withPermit(k, { limit, permits }, Effect.sync(() => void order.push(name))))
      const lineUpFor = (lock: Lock["Service"], name: string, permits: number) =>
        lineUp(
          { ...a, acquire: () => Effect.andThen(ask(lock, name, permits), Effect.never) },
          newRequest(`${k}#permits`)
        )
      const holding = by(third)(withPermit(k, { limit }, holder.program))
      const fiber = yield* Effect.forkScoped(holding, { startImmediately: true })
      yield* within(holder.enters(fiber), patience, "a free permit is granted")
      // A caller uses its permit before it gives its place back: until then it still counts as one in line.
      const placeIs = (taken: boolean) =>
        Effect.match(a.inspect(`${k}#permits`), {
          onFailure: () => true,
          onSuccess: ({ holder, waiting }) =>
            Option.isSome(holder) === taken && (typeof waiting === "number" ? waiting : waiting.length) === 0
        })
      yield* until(placeIs(false), patience, "the line is left when a permit is in use")
      yield* Effect.forkScoped(ask(first, "writer", limit), { startImmediately: true })
      const isTaken = Effect.map(areFree(second, k, 1), (isFree) => !isFree)
      yield* until(isTaken, patience, "the head of the line takes the permits that are free")
      yield* until(placeIs(true), patience, "the first caller is at the head of the line")
      yield* lineUpFor(second, "reader", 1)
      yield* lineUpFor(third, "second writer", limit)
      assert.deepStrictEqual(order, [], "a later caller that wants less does not go first")
      yield* holder.leave
      yield* until(Effect.sync(() => order.length === 3), patience, "all have run")
      assert.deepStrictEqual(order, ["writer", "reader", "second writer"], "in the order in which they asked")
      yield* expectAllFree(kit, k, limit)
    })
  },
  {
    law: "permits",
    name: "the permits of a client that died are free, and those behind it in line go on",
    needs: mortal,
    run: Effect.fnUntraced(function*(kit) {
      const { b, deadWaiterDelay, endLimit, key, minTtl, until, within } = kit
      const [k, limit] = [key(), 2]
      const { client, cut } = yield* kit.mortal
      const scope = yield* Scope.make()
      const dead = yield* Scope.provide(lockOver(client), scope)
      const other = yield* lockOver(b)
      const held = section()
      const ofDead = (permits: number) =>
        Effect.forkIn(
          Effect.exit(by(dead)(untilDead(withPermit(k, { limit, permits }, held.program, { ttl: minTtl })))),
          scope,
          { startImmediately: true }
        )
      yield* ofDead(1)
      yield* within(held.isIn, endLimit, "a free permit is granted")
      yield* ofDead(2)
      const isTaken = Effect.map(areFree(other, k, 1), (isFree) => !isFree)
      yield* until(isTaken, endLimit, "the head of the line takes the permits that are free")
      const behind = yield* Effect.forkScoped(
        by(other)(withPermit(k, { limit, permits: limit }, Effect.void, { ttl: minTtl })),
        { startImmediately: true }
      )
      yield* cut
      // What it sends when it closes does not arrive.
      const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* within(Fiber.join(behind), endLimit + deadWaiterDelay, "a client that died does not hold up the others")
      yield* within(Fiber.join(closing), endLimit, "the layer of a client that is cut off closes")
    })
  },
  {
    law: "permits",
    name: "an interruption before or after any verb leaves no permit taken and no one in line",
    run: Effect.fnUntraced(function*(kit) {
      const { a, key, patience, within } = kit
      const [k, limit] = [key(), 2]
      const { moment, seen } = watched(a)
      const lock = yield* lockOver(seen)
      let runs = 0
      let tries = 0
      for (let isDisturbed = true; isDisturbed; tries++) {
        const before = moment.count
        const at = before + runs + 1
        isDisturbed = false
        let fiber: Fiber.Fiber<void> | undefined
        let isEarly = false
        moment.at = (count) => {
          if (count !== at) return
          isDisturbed = true
          if (fiber === undefined) isEarly = true
          else fiber.interruptUnsafe()
        }
        fiber = yield* Effect.forkScoped(by(lock)(withPermit(k, { limit, permits: limit }, Effect.void)), {
          startImmediately: true
        })
        if (isEarly) fiber.interruptUnsafe()
        yield* within(Fiber.await(fiber), patience, "what is interrupted ends")
        moment.at = () => {}
        const free = yield* lockOver(kit.b)
        yield* kit.until(areFree(free, k, limit), patience, "an interruption leaves nothing")
        // A hold that passed from the run before asks for less.
        if (isDisturbed) runs++
        else isDisturbed = moment.count - before <= 6 && tries < 40
      }
      assert.isAbove(runs, 6, "it was interrupted at each verb")
      yield* expectAllFree(kit, k, limit)
    })
  },
  {
    law: "permits",
    name: "when a leader dies, another one leads",
    needs: mortal,
    run: Effect.fnUntraced(function*(kit) {
      const { b, endLimit, key, minTtl, within } = kit
      const k = key()
      const { client, cut } = yield* kit.mortal
      const scope = yield* Scope.make()
      const dead = yield* Scope.provide(lockOver(client), scope)
      const other = yield* lockOver(b)
      const [first, second] = [section(), section()]
      yield* Effect.forkIn(Effect.exit(by(dead)(Leader.run(k, first.program, { ttl: minTtl }))), scope, {
        startImmediately: true
      })
      yield* within(first.isIn, endLimit, "the only candidate is elected")
      const leading = by(other)(Leader.run(k, Effect.andThen(second.leave, second.program), { ttl: minTtl }))
      const next = yield* Effect.forkScoped(leading, { startImmediately: true })
      assert.isTrue(isPending(next), "there is one leader")
      yield* cut
      const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* within(Fiber.join(next), endLimit, "another one leads when the leader has died")
      yield* within(Fiber.join(closing), endLimit, "the layer of a client that is cut off closes")
      yield* kit.expectFree(k, "a leader that has ended leaves nothing")
    })
  }
]
