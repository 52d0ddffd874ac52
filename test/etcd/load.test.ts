/**
 * What many locks ask of the server, and how fast a lock changes hands.
 */
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Effect, Option } from "effect"
import { freshKey, millis, newRequest } from "../requests.ts"
import { Etcd } from "./support.ts"

/** What three of four are below. */
const mostOf = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.75)] ?? 0

/** How many messages the server received, by method. */
const received = Effect.gen(function*() {
  const { endpoints } = yield* Etcd
  const text = yield* Effect.promise(async () => (await fetch(`http://${endpoints[0]}/metrics`)).text())
  const counts = text.matchAll(/^grpc_server_msg_received_total\{grpc_method="(\w+)".*\} (\S+)$/gm)
  return new Map(Array.from(counts, ([, method = "", count]) => [method, Number(count)]))
})

layer(Etcd.layer(), { excludeTestServices: true })("etcd under load", (it) => {
  it.effect("2,000 held locks cost at most a request per second", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints, commandTimeout: "30 seconds" })
      const requests = Array.from({ length: 2000 }, () => newRequest(freshKey()))
      const grants = yield* Effect.forEach(requests, (request) => backend.tryAcquire(request), { concurrency: 64 })
      assert.isTrue(grants.every(Option.isSome))
      // Until their keys are watched.
      yield* Effect.sleep("3 seconds")
      const counted = yield* received
      yield* Effect.sleep("8 seconds")
      const renewed = yield* Effect.forEach(requests, (request) => backend.renew(request, {}))
      assert.isTrue(renewed.every(Option.isSome))
      const sent = Array.from(
        yield* received,
        ([method, count]) => [method, count - (counted.get(method) ?? 0)] as const
      )
      assert.isAtMost(sent.reduce((sum, [, count]) => sum + count, 0), 8, `requests in 8 seconds: ${sent.join(" ")}`)
      assert.isTrue(requests.every(({ losses }) => losses.length === 0))
      yield* Effect.forEach(requests, (request) => backend.release(request), { concurrency: 64, discard: true })
    }), 300_000)

  it.effect("a lock changes hands without the server's loop of 100 ms", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const [a, b] = [
        yield* EtcdLock.make({ endpoints, commandTimeout: "30 seconds" }),
        yield* EtcdLock.make({ endpoints, commandTimeout: "30 seconds" })
      ]
      const key = freshKey()
      const gaps: Array<number> = []
      let releasedAt: number | undefined
      const turn = (backend: typeof a) =>
        Effect.gen(function*() {
          const request = newRequest(key)
          yield* backend.acquire(request)
          if (releasedAt !== undefined) gaps.push(performance.now() - releasedAt)
          // Until the next one's watch stands.
          yield* Effect.sleep("20 millis")
          releasedAt = performance.now()
          yield* backend.release(request)
        })
      // Two that ask again at once: each watch is placed shortly before it is needed.
      const contend = (backend: typeof a) => Effect.repeat(turn(backend), { times: 60 })
      yield* Effect.forEach([a, b], contend, { concurrency: "unbounded", discard: true })
      // What this machine needs now for two requests, one after the other.
      const pairs = yield* Effect.forEach(Array.from({ length: 60 }), () => {
        const request = newRequest(freshKey())
        return Effect.map(millis(Effect.andThen(a.tryAcquire(request), a.release(request))), ([, took]) => took)
      })
      // A hand-over is two requests and a message. Through the loop it would be 50 to 100 ms more.
      const limit = 55 + 4 * mostOf(pairs)
      assert.isBelow(mostOf(gaps), limit, "milliseconds from a release to the next grant, three times of four")
    }))
})
