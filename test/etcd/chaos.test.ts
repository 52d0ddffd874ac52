/**
 * A cluster whose members pause and die, behind networks that freeze, cut and swallow: no two sections at a time, tokens
 * that grow, and nothing left afterwards.
 */
import { Lock, type LockError } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { assert, it } from "@effect/vitest"
import { Clock, Context, Effect, Fiber, Layer, Random, Schedule } from "effect"
import { etcdCluster } from "../harness/EtcdServer.ts"
import type { Proxy } from "../harness/Proxy.ts"
import type { Server } from "../harness/Server.ts"
import { until } from "../requests.ts"
import { connect, keysOf, roadTo } from "./support.ts"

const keys = ["a", "b", "c"]

/** What a lock guards, without protection of its own. */
const makeResource = (key: string) => {
  let inside = 0
  let lastToken = 0n
  return {
    key,
    grants: 0,
    use: Effect.fnUntraced(function*(this: { grants: number }, fencingToken: bigint) {
      assert.strictEqual(++inside, 1, `two sections of ${key} at a time`)
      assert.isTrue(fencingToken > lastToken, "a fencing token that does not grow")
      lastToken = fencingToken
      this.grants++
      yield* Effect.flatMap(Random.nextIntBetween(1, 400), Effect.sleep)
    }, Effect.ensuring(Effect.sync(() => inside--)))
  }
}

const aMoment = (shortest: number, longest: number) =>
  Effect.flatMap(Random.nextIntBetween(shortest, longest), Effect.sleep)

const whileFor = (begin: Effect.Effect<unknown>, end: Effect.Effect<unknown>, longest: number) =>
  Effect.andThen(begin, Effect.ensuring(aMoment(100, longest), end))

/** One fault, which heals. */
const fault = Effect.fnUntraced(function*(nodes: ReadonlyArray<Server>, networks: ReadonlyArray<ReadonlyArray<Proxy>>) {
  const [node] = yield* Random.shuffle(nodes)
  const [network] = yield* Random.shuffle(networks)
  const [road] = yield* Random.shuffle(network ?? [])
  if (node === undefined || network === undefined || road === undefined) return
  const faults: ReadonlyArray<Effect.Effect<unknown>> = [
    road.cut,
    road.dropNextReply,
    whileFor(road.blackhole(), road.pass, 4000),
    whileFor(road.drop(), road.pass, 2000),
    whileFor(Effect.forEach(network, (one) => one.blackhole()), Effect.forEach(network, (one) => one.pass), 5000),
    whileFor(node.pause, node.resume, 2000),
    whileFor(node.kill, Effect.orDie(node.start), 1500)
  ]
  const [chosen] = yield* Random.shuffle(faults)
  yield* chosen ?? Effect.void
})

it.live("etcd in chaos: exclusion, fencing, and nothing left", () =>
  Effect.gen(function*() {
    const { endpoints, nodes } = yield* etcdCluster()
    const bare = yield* connect(endpoints)
    const networks = yield* Effect.replicateEffect(Effect.forEach(endpoints, roadTo), 3)
    const resources = keys.map(makeResource)
    const outcomes: Array<LockError["_tag"]> = []
    const end = (yield* Clock.currentTimeMillis) + 25_000
    const isOver = Effect.map(Clock.currentTimeMillis, (now) => now >= end)

    const contend = (lock: Lock["Service"], resource: typeof resources[number]) =>
      lock.withLock(resource.key, ({ fencingToken }) => resource.use(fencingToken), {
        ttl: "2 seconds",
        timeout: "8 seconds"
      }).pipe(
        Effect.catch((error) => Effect.sync(() => void outcomes.push(error._tag))),
        Effect.andThen(aMoment(1, 20)),
        Effect.repeat({ until: () => isOver })
      )

    const program = Effect.scoped(Effect.gen(function*() {
      const contenders: Array<Fiber.Fiber<unknown, unknown>> = []
      for (const network of networks) {
        const options = { endpoints: network.map(({ addr }) => addr), commandTimeout: "2 seconds" } as const
        const lock = Context.get(yield* Layer.build(EtcdLock.layer(options)), Lock)
        for (const resource of resources) contenders.push(yield* Effect.forkScoped(contend(lock, resource)))
      }
      const faults = fault(nodes, networks).pipe(Effect.andThen(aMoment(100, 800)), Effect.repeat(Schedule.forever))
      yield* Effect.timeoutOption(faults, "18 seconds")
      yield* Effect.forEach(networks.flat(), (road) => road.pass)
      yield* Fiber.joinAll(contenders)
    }))
    yield* program
    for (const { grants, key } of resources) assert.isAbove(grants, 10, `${key} was held now and then`)
    const left = Effect.map(keysOf(bare), (keys) => keys.length)
    yield* until(Effect.map(left, (count) => count === 0)).pipe(Effect.timeout("5 seconds"))
    // `InvalidLockRequest` and a defect are no outcome of a fault.
    for (const tag of outcomes) assert.include(["LockLost", "LockUnavailable", "LockBackendError"], tag)
  }), 120_000)
