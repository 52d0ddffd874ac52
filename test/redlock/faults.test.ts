/**
 * Servers that are dead, hang, or are cut off, at every step of a lock's life.
 */
import { Redlock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Effect, Option, Schedule } from "effect"
import { proxy } from "../harness/Proxy.ts"
import type { Proxy } from "../harness/Proxy.ts"
import { millis, newRequest, until } from "../redis/client.ts"
import type { Node } from "./support.ts"
import { countOf, RedisServers } from "./support.ts"

interface Place extends Node {
  readonly road: Proxy
}

interface Fault {
  readonly name: string
  readonly harm: (place: Place) => Effect.Effect<void>
  readonly heal: (place: Place) => Effect.Effect<void, unknown>
}

const faults: ReadonlyArray<Fault> = [
  { name: "dead", harm: ({ server }) => server.kill, heal: ({ server }) => server.start },
  { name: "hanging", harm: ({ server }) => server.pause, heal: ({ server }) => server.resume },
  { name: "cut off", harm: ({ road }) => road.refuse, heal: ({ road }) => road.pass },
  { name: "silent", harm: ({ road }) => road.blackhole("both"), heal: ({ road }) => road.pass }
]

// A busy machine answers late.
const nodeTimeout = 1200
const commandTimeout = 1500

const each = <E>(places: ReadonlyArray<Place>, f: (place: Place) => Effect.Effect<unknown, E>) =>
  Effect.forEach(places, f, { concurrency: "unbounded", discard: true })

/** Five servers behind roads; what is harmed is healed in the end. */
const setup = Effect.fnUntraced(function*(fault: Fault, count: number) {
  const places: Array<Place> = []
  for (const node of yield* RedisServers) places.push({ ...node, road: yield* proxy(node.server) })
  // Not always the first ones.
  const harmed = places.slice(1, 1 + count)
  const heal = each(harmed, fault.heal)
  yield* Effect.addFinalizer(() => Effect.orDie(heal))
  const client = Redlock.make({
    nodes: places.map(({ road }) => road.addr),
    nodeTimeout,
    commandTimeout
  })
  return { places, client, harm: each(harmed, fault.harm), heal }
})

const isAbsence = (reason: string) => reason === "Unreachable" || reason === "Timeout"

/** The verb works, and is not held up by servers that do not answer; or it fails in time. */
const expectAnswer = Effect.fnUntraced(function*<A, E extends { readonly reason: string }, R>(
  verb: Effect.Effect<A, E, R>,
  works: boolean,
  what: string
) {
  const [exit, time] = yield* millis(Effect.result(verb))
  if (works) {
    assert.strictEqual(exit._tag, "Success", `${what} works with a majority`)
    assert.isBelow(time, nodeTimeout, `${what} does not wait for a minority`)
    return
  }
  assert.isTrue(exit._tag === "Failure" && isAbsence(exit.failure.reason), `${what} fails without a majority`)
  assert.isBelow(time, commandTimeout + nodeTimeout + 5000, `${what} fails in time`)
})

layer(RedisServers.layer(), { excludeTestServices: true, timeout: "1 minute" })("of five servers", (it) => {
  for (const fault of faults) {
    for (const count of [0, 1, 2, 3]) {
      const works = count <= 2
      const title = (step: string) => `${count} ${fault.name} ${step}`

      it.effect(title("before the layer is built"), () =>
        Effect.gen(function*() {
          const { client, harm } = yield* setup(fault, count)
          yield* harm
          const built = yield* Effect.result(client)
          assert.strictEqual(built._tag === "Success", works, "a majority is enough to begin with, and needed")
          if (built._tag === "Failure") {
            assert.isTrue(isAbsence(built.failure.reason), "the error tells of the absence")
            assert.match(built.failure.message, /[0-2] of 5 servers, 3 are needed/)
            return
          }
          const request = newRequest(`faults/build ${fault.name} ${count}`)
          yield* expectAnswer(built.success.acquire(request), true, "acquire")
          assert.strictEqual(yield* built.success.release(request), "released", "what is held is released")
        }))

      it.effect(title("before acquire"), () =>
        Effect.gen(function*() {
          const { client, harm, heal, places } = yield* setup(fault, count)
          const lock = yield* client
          const key = `faults/acquire ${fault.name} ${count}`
          yield* harm
          const request = newRequest(key)
          yield* expectAnswer(lock.acquire(request), works, "acquire")
          if (works) {
            yield* expectAnswer(lock.tryAcquire(newRequest(key)), true, "a refusal")
            yield* expectAnswer(lock.renew(request, {}), true, "renew")
          }
          // Without a majority it depends on what was sent, whether anything has to be released.
          yield* works ? expectAnswer(lock.release(request), true, "release") : Effect.ignore(lock.release(request))
          yield* heal
          yield* until(Effect.map(countOf(places, key, request.owner), (n) => n === 0))
          // The driver may take a second to connect again, which is more than one attempt is given here.
          const next = yield* Effect.suspend(() => {
            const next = newRequest(key)
            return Effect.as(lock.acquire(next), next)
          }).pipe(Effect.retry(Schedule.spaced("50 millis")))
          yield* lock.release(next)
        }))

      it.effect(title("before renew"), () =>
        Effect.gen(function*() {
          const { client, harm, heal, places } = yield* setup(fault, count)
          const lock = yield* client
          const request = newRequest(`faults/renew ${fault.name} ${count}`)
          yield* lock.acquire(request)
          yield* harm
          yield* expectAnswer(lock.renew(request, {}), works, "renew")
          yield* heal
          yield* until(Effect.isSuccess(lock.renew(request, {})))
          assert.isTrue(Option.isSome(yield* lock.renew(request, {})), "an error of renew is no loss")
          yield* lock.release(request)
          yield* until(Effect.map(countOf(places, request.key, request.owner), (n) => n === 0))
        }))

      it.effect(title("before release"), () =>
        Effect.gen(function*() {
          const { client, harm, heal, places } = yield* setup(fault, count)
          const lock = yield* client
          const request = newRequest(`faults/release ${fault.name} ${count}`)
          yield* lock.acquire(request)
          yield* harm
          yield* expectAnswer(lock.release(request), works, "release")
          if (works) {
            const next = newRequest(request.key)
            yield* expectAnswer(lock.acquire(next), true, "acquire after the release")
            yield* lock.release(next)
          }
          yield* heal
          // There is no second request: the backend itself sees to the servers that did not answer.
          yield* until(Effect.map(countOf(places, request.key, request.owner), (n) => n === 0))
        }))
    }
  }
})
