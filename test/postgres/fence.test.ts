/**
 * Fencing inside transactions of the application: exact, whatever was frozen, at any isolation level.
 */
import { acquire, type Lease, MemoryLock, tryAcquire, withLock } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import * as ChildProcess from "node:child_process"
import { createInterface } from "node:readline"
import { bundled } from "../harness/Bundle.ts"
import { freshKey, millis, newRequest } from "../requests.ts"
import { layerOwn, Target } from "./support.ts"

/** A child process, and the next line that it prints. */
const child = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const process_ = yield* Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn(process.execPath, [bundled("holder"), ...args], { stdio: ["pipe", "pipe", "inherit"] })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const lines = createInterface({ input: process_.stdout })[Symbol.asyncIterator]()
  return {
    line: Effect.promise(async () => {
      const { value } = await lines.next()
      return String(value)
    }),
    signal: (name: NodeJS.Signals) => Effect.sync(() => process_.kill(name)),
    go: Effect.sync(() => process_.stdin.write("\n"))
  }
})

const ledger = Effect.gen(function*() {
  const { sql } = yield* Target
  yield* sql`create table if not exists ledger (id bigserial, writer text not null)`
  yield* sql`truncate ledger`
})

const writers = Effect.flatMap(Target, ({ sql }) =>
  Effect.map(
    sql<{ readonly writer: string }>`select writer from ledger order by id`,
    (rows) => rows.map(({ writer }) => writer)
  ))

const services = Layer.unwrap(
  Effect.map(Target, ({ sql, url }) =>
    Layer.mergeAll(
      PostgresLock.layer({ url }),
      Layer.succeed(PgClient.PgClient, sql),
      Layer.succeed(SqlClient.SqlClient, sql)
    ))
)

const fencedWrite = (lease: Lease, writer: string) =>
  Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    return yield* sql.withTransaction(
      Effect.andThen(sql`insert into ledger (writer) values (${writer})`, PostgresLock.fence(lease))
    )
  })

layer(Layer.provideMerge(services, layerOwn), { excludeTestServices: true, timeout: "1 minute" })(
  "postgres: fence",
  (it) => {
    for (const isolation of ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]) {
      it.effect(
        `a process that was frozen inside its transaction cannot commit (${isolation})`,
        () =>
          Effect.gen(function*() {
            const { url } = yield* Target
            yield* ledger
            const key = freshKey()
            const frozen = yield* child(url, key, isolation)
            assert.strictEqual(yield* frozen.line, "written")
            yield* frozen.signal("SIGSTOP")
            const lease = yield* acquire(key)
            yield* fencedWrite(lease, "next")
            yield* frozen.go
            yield* frozen.signal("SIGCONT")
            assert.strictEqual(yield* frozen.line, "LockLost")
            assert.deepStrictEqual(yield* writers, ["next"])
          }),
        { timeout: 60_000 }
      )
    }

    it.effect(
      "a process that is frozen after its fence keeps others out until its transaction ends",
      () =>
        Effect.gen(function*() {
          const { url } = yield* Target
          yield* ledger
          const key = freshKey()
          const frozen = yield* child(url, key, "READ COMMITTED", "first")
          assert.strictEqual(yield* frozen.line, "written")
          yield* frozen.signal("SIGSTOP")
          const waiting = yield* Effect.forkScoped(Effect.flatMap(acquire(key), (lease) => fencedWrite(lease, "next")))
          // The ttl is a second.
          yield* Effect.sleep("2500 millis")
          assert.isUndefined(waiting.pollUnsafe(), "the key is not granted while the transaction is open")
          assert.isTrue(Option.isNone(yield* Effect.scoped(tryAcquire(key))))
          yield* frozen.go
          yield* frozen.signal("SIGCONT")
          assert.strictEqual(yield* frozen.line, "committed")
          yield* Fiber.join(waiting)
          assert.deepStrictEqual(yield* writers, ["frozen", "next"])
        }),
      { timeout: 60_000 }
    )

    it.effect("a lease that was revoked and granted anew is refused, also by statement", () =>
      Effect.gen(function*() {
        const { make, url } = yield* Target
        const sql = yield* PgClient.PgClient
        yield* ledger
        const key = freshKey()
        const lease = yield* acquire(key)
        const written = Effect.gen(function*() {
          const fence = yield* PostgresLock.fenceStatement(lease)
          return yield* sql`with fence as (${fence}) insert into ledger (writer) select 'stated' from fence returning id`
        })
        assert.lengthOf(yield* written, 1)
        yield* fencedWrite(lease, "held")
        const other = yield* make(url)
        assert.isTrue(yield* other.revoke(key, lease.owner))
        assert.isFalse(yield* other.revoke(key, lease.owner), "it does not hold the key any more")
        assert.isTrue(Option.isSome(yield* other.tryAcquire(newRequest(key))))
        const error = yield* Effect.flip(fencedWrite(lease, "late"))
        assert.strictEqual(error._tag, "LockLost")
        assert.lengthOf(yield* written, 0)
        assert.deepStrictEqual(yield* writers, ["stated", "held"])
      }))

    it.effect("leases that are passed on within the process are fenced as well", () =>
      Effect.gen(function*() {
        yield* ledger
        const key = freshKey()
        const leases = yield* Effect.replicateEffect(
          Effect.scoped(withLock(key, (lease) => Effect.as(fencedWrite(lease, "passed"), lease))),
          20,
          { concurrency: "unbounded" }
        )
        assert.lengthOf(yield* writers, 20)
        assert.isBelow(new Set(leases.map(({ owner }) => owner)).size, 20, "some of them were passed")
        assert.strictEqual(new Set(leases.map(({ fencingToken }) => fencingToken)).size, 20)
      }))

    it.effect("a renewal does not wait for a fenced transaction, nor the transaction for it", () =>
      Effect.gen(function*() {
        const sql = yield* PgClient.PgClient
        const lease = yield* acquire(freshKey())
        const [, took] = yield* millis(sql.withTransaction(Effect.gen(function*() {
          yield* PostgresLock.fence(lease)
          yield* lease.renew
          yield* PostgresLock.fence(lease)
        })))
        assert.isBelow(took, 4500, "the command timeout is five seconds")
      }))

    it.effect("a key whose lease was released inside its fenced transaction goes to the next afterwards", () =>
      Effect.gen(function*() {
        const sql = yield* PgClient.PgClient
        const key = freshKey()
        const lease = yield* acquire(key)
        const { make, url } = yield* Target
        const waiting = yield* Effect.forkScoped((yield* make(url)).acquire(newRequest(key)), {
          startImmediately: true
        })
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* PostgresLock.fence(lease)
          yield* lease.release
          yield* Effect.sleep("700 millis")
          assert.isUndefined(waiting.pollUnsafe())
        }))
        const [, took] = yield* millis(Fiber.join(waiting))
        assert.isBelow(took, 10_000, "long before the ttl is over")
      }))

    it.effect("no transaction, or a lease of another backend, is an error", () =>
      Effect.gen(function*() {
        const lease = yield* acquire(freshKey())
        const outside = yield* Effect.flip(PostgresLock.fence(lease))
        assert.include(outside.message, "withTransaction")
        const memory = yield* Effect.provide(acquire(freshKey()), MemoryLock.layer)
        const foreign = yield* Effect.exit(fencedWrite(memory, "foreign"))
        assert.isTrue(Exit.isFailure(foreign))
        assert.include(String(foreign), "memory")
      }))
  }
)
