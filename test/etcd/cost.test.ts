/**
 * What a section under contention costs the server: counts, which are the same on a busy machine.
 */
import { Lock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { freshKey } from "../requests.ts"
import { Etcd } from "./support.ts"

/** Requests that the server answered, and how often it waited for its disk. */
const counted = Effect.gen(function*() {
  const { endpoints } = yield* Etcd
  const text = yield* Effect.promise(async () => (await fetch(`http://${endpoints[0]}/metrics`)).text())
  const sum = (pattern: RegExp) => Array.from(text.matchAll(pattern), ([, n]) => Number(n)).reduce((a, b) => a + b, 0)
  return {
    transactions: sum(/^grpc_server_handled_total\{grpc_code="OK",grpc_method="Txn".*\} (\S+)$/gm),
    syncs: sum(/^etcd_disk_wal_fsync_duration_seconds_count (\S+)$/gm)
  }
})

const sections = 400

/** `fibers` in each of `processes` go through a short section again and again; answers the costs of one section. */
const contend = Effect.fnUntraced(function*(processes: number, fibers: number) {
  const { endpoints } = yield* Etcd
  const key = freshKey()
  const locks = yield* Effect.replicateEffect(Layer.build(Layer.fresh(EtcdLock.layer({ endpoints }))), processes)
  let [left, inside] = [sections, 0]
  const section = Effect.gen(function*() {
    assert.strictEqual(++inside, 1, "one at a time")
    yield* Effect.yieldNow
    inside--
    left--
  })
  const before = yield* counted
  yield* Effect.forEach(
    locks.flatMap((context) => Array.from({ length: fibers }, () => Context.get(context, Lock))),
    (lock) => Effect.repeat(lock.withLock(key, () => section), { while: () => left > 0 }),
    { concurrency: "unbounded", discard: true }
  )
  const after = yield* counted
  const each = {
    transactions: (after.transactions - before.transactions) / (sections - left),
    syncs: (after.syncs - before.syncs) / (sections - left)
  }
  return { ...each, told: `transactions and syncs per section: ${each.transactions} and ${each.syncs}` }
})

layer(Etcd.layer(), { excludeTestServices: true })("the cost of a section", (it) => {
  it.effect("in one process: one transaction, whether the lock is passed or handed over", () =>
    Effect.gen(function*() {
      const { syncs, told, transactions } = yield* contend(1, 16)
      assert.isBelow(transactions, 1.1, told)
      assert.isBelow(syncs, 1.15, told)
    }), 120_000)

  it.effect(
    "in four processes: one transaction that writes, and what the next one looks at",
    () =>
      Effect.gen(function*() {
        const { syncs, told, transactions } = yield* contend(4, 4)
        // A waiter looks twice: when its watch stands, and when it is its turn. Both are reads.
        assert.isBelow(transactions, 3.1, told)
        assert.isBelow(syncs, 1.15, told)
      }),
    120_000
  )
})
