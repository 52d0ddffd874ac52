/**
 * Many waiters, few connections, and addresses that lead to several servers.
 */
import { MysqlLock } from "@dlock/mysql"
import { assert, describe, it as live } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import {
  connect,
  expectSome,
  flavours,
  freshKey,
  lineUp,
  MysqlServer,
  newRequest,
  onBoth,
  optionsFor,
  rows,
  switchboard,
  until,
  value,
  waitersOf
} from "./support.ts"

const sessionsOf = (bare: Parameters<typeof rows>[0]) =>
  Effect.map(value(bare, "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'"), Number)

const batches = <A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / 100) }, (_, i) => all.slice(i * 100, (i + 1) * 100))

onBoth((it) => {
  describe("many waiters", () => {
    it.effect("1,000 keys that others hold, with 50 connections: none fails, and all are granted in the end", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const backend = yield* MysqlLock.make({ ...optionsFor(server), connectionLimit: 50 })
        const requests = Array.from({ length: 1000 }, () => newRequest(freshKey()))
        const each = (f: string) =>
          Effect.forEach(
            batches(requests),
            (some) => rows(bare, some.map(({ key }) => `SELECT ${f.replace("?", `'${key}'`)}`).join(" UNION ALL "))
          )
        yield* each("GET_LOCK(?, 0)")
        const before = yield* sessionsOf(bare)
        const waits = yield* Effect.forEach(
          requests,
          (request) => Effect.forkScoped(backend.acquire(request), { startImmediately: true })
        )
        yield* Effect.sleep("3 seconds")
        assert.deepStrictEqual(waits.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 0, "none fails")
        assert.isAtMost((yield* sessionsOf(bare)) - before, 50)
        yield* each("RELEASE_LOCK(?)")
        // They keep what they got: those that had no connection to wait on must not depend on the others.
        yield* Fiber.joinAll(waits)
        const released = yield* Effect.forEach(requests, backend.release, { concurrency: "unbounded" })
        assert.isTrue(released.every((answer) => answer === "released"))
        assert.isTrue(requests.every(({ losses }) => losses.length === 0))
      }))

    it.effect("40 waiting programs on a server with 100 connections leave room for others", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const before = yield* sessionsOf(bare)
        const [limit] = yield* rows(bare, "SELECT @@global.max_connections")
        yield* rows(bare, "SET GLOBAL max_connections = 100")
        yield* Effect.gen(function*() {
          const key = freshKey()
          yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
          const programs = yield* Effect.forEach(Array.from({ length: 40 }), () => MysqlLock.make(optionsFor(server)))
          const order: Array<number> = []
          const sections = []
          for (const [i, backend] of programs.entries()) {
            const request = newRequest(key)
            const waiting = yield* lineUp(bare, backend, request)
            sections.push(
              yield* Effect.forkScoped(Effect.gen(function*() {
                yield* Fiber.join(waiting)
                order.push(i)
                assert.strictEqual(yield* backend.release(request), "released")
              }))
            )
          }
          assert.isAtMost((yield* sessionsOf(bare)) - before, 80, "two each")
          const others = yield* Effect.forEach(Array.from({ length: 10 }), () => connect(server))
          assert.strictEqual(yield* value(others[9] ?? bare, "SELECT 1"), 1, "others get in")
          yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
          yield* Fiber.joinAll(sections)
          assert.deepStrictEqual(order, programs.map((_, i) => i), "in the order of arrival")
        }).pipe(Effect.ensuring(rows(bare, `SET GLOBAL max_connections = ${limit?.[0]}`)))
      }))

    it.effect("a wait that is given up is forgotten by the server, and the next in line has the key at once", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const [a, b] = [yield* MysqlLock.make(optionsFor(server)), yield* MysqlLock.make(optionsFor(server))]
        const key = freshKey()
        yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
        const [gone, next] = [newRequest(key), newRequest(key)]
        const leaving = yield* lineUp(bare, a, gone)
        const waiting = yield* lineUp(bare, b, next)
        yield* Fiber.interrupt(leaving)
        yield* a.release(gone)
        yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
        yield* Fiber.join(waiting).pipe(Effect.timeout("20 seconds"))
        assert.strictEqual(yield* b.release(next), "released")
        yield* until(Effect.map(waitersOf(bare, key), (n) => n === 0))
      }))
  })
})

for (const flavour of flavours) {
  describe.skipIf(!flavour.runs)(`two servers behind one address: ${flavour.name}`, () => {
    live.live(
      "the second one's connection ends what is held on the first one, for every purpose",
      () =>
        Effect.gen(function*() {
          const [a, b] = [yield* flavour.server, yield* flavour.server]
          const [onA, onB] = [yield* connect(a), yield* connect(b)]
          const board = yield* switchboard(a)
          const purposes = {
            "a wait": (backend: Effect.Success<ReturnType<typeof MysqlLock.make>>, key: string) =>
              Effect.asVoid(backend.acquire(newRequest(key))),
            "another ttl": (backend: Effect.Success<ReturnType<typeof MysqlLock.make>>, key: string) =>
              Effect.asVoid(backend.tryAcquire(newRequest(key, "10 seconds")))
          }
          for (const [purpose, use] of Object.entries(purposes)) {
            yield* board.to(a)
            const backend = yield* MysqlLock.make({ ...optionsFor(a, board) })
            const key = freshKey()
            const held = newRequest(freshKey())
            expectSome(yield* backend.tryAcquire(held), "free")
            yield* value(onA, `SELECT GET_LOCK('${key}', 0)`)
            yield* board.to(b)
            yield* use(backend, key)
            assert.deepStrictEqual(held.losses, ["session"], purpose)
            yield* until(Effect.map(value(onA, `SELECT IS_FREE_LOCK('${held.key}')`), (free) => free === 1))
            assert.strictEqual(yield* value(onB, `SELECT IS_FREE_LOCK('${key}')`), 0)
            yield* value(onA, `SELECT RELEASE_LOCK('${key}')`)
          }
        }),
      120_000
    )

    live.live("a server that becomes read-only is left, and refused", () =>
      Effect.gen(function*() {
        const a = yield* flavour.server
        const bare = yield* connect(a)
        const backend = yield* MysqlLock.make({ ...optionsFor(a), commandTimeout: "1 second" })
        const held = newRequest(freshKey(), "3 seconds")
        expectSome(yield* backend.tryAcquire(held), "free")
        yield* rows(bare, "SET GLOBAL read_only = 1")
        assert.strictEqual((yield* backend.renew(held, { fresh: true }))._tag, "None")
        assert.deepStrictEqual(held.losses, ["session"])
        for (
          const refused of [
            backend.tryAcquire(held),
            backend.ping,
            Effect.scoped(MysqlLock.make({ ...optionsFor(a), commandTimeout: "1 second" }))
          ]
        ) {
          const error = yield* Effect.flip(refused)
          assert.strictEqual(error.reason, "Unreachable")
          assert.include(error.message, "read-only")
        }
        const replica = yield* MysqlLock.make({ ...optionsFor(a), allowReadOnly: true })
        expectSome(yield* replica.tryAcquire(newRequest(freshKey())), "free")
        yield* rows(bare, "SET GLOBAL read_only = 0")
        yield* backend.ping
        expectSome(yield* backend.tryAcquire(newRequest(freshKey())), "free")
      }), 120_000)
  })
}
