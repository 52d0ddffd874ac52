/**
 * Broken networks, killed sessions, stopped servers.
 */
import type { Lease } from "@dlock/core"
import { MysqlLock } from "@dlock/mysql"
import { assert, describe } from "@effect/vitest"
import { it as live } from "@effect/vitest"
import { Clock, Effect, Fiber, Option, Redacted } from "effect"
import { proxy } from "../harness/Proxy.ts"
import {
  connect,
  expectSome,
  freshKey,
  holderOf,
  lineUp,
  lockOf,
  millis,
  MysqlServer,
  newRequest,
  onBoth,
  optionsFor,
  persist,
  rows,
  until,
  value,
  waitersOf
} from "./support.ts"

const seconds = (nanos: bigint): number => Number(nanos) / 1e9

onBoth((it, flavour) => {
  describe("a broken network", () => {
    for (const wait of [false, true]) {
      it.effect(
        `a client that vanishes loses its lock within the ttl, and its deadline passes before (${
          wait ? "waited for" : "free"
        })`,
        () =>
          Effect.gen(function*() {
            const { bare, server } = yield* MysqlServer
            const road = yield* proxy(server)
            const lock = yield* lockOf(optionsFor(server, road))
            const other = yield* MysqlLock.make(optionsFor(server))
            const key = freshKey()
            let lease: Lease | undefined
            let interrupted = false
            const program = (mine: Lease) => {
              lease = mine
              return Effect.onInterrupt(Effect.never, () =>
                Effect.sync(() => {
                  interrupted = true
                }))
            }
            if (wait) yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
            const section = yield* Effect.forkScoped(Effect.flip(lock.withLock(key, program, { ttl: "4 seconds" })))
            if (wait) {
              yield* until(Effect.map(waitersOf(bare, key), (n) => n === 1))
              yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
            }
            yield* until(Effect.map(holderOf(bare, key), (id) => id !== undefined))
            // Long enough to be held by renewals only.
            yield* Effect.sleep("5 seconds")
            const next = newRequest(key)
            const waiting = yield* lineUp(bare, other, next)
            yield* road.blackhole("both")
            const vanished = yield* Clock.monotonicTimeNanos
            yield* Fiber.join(waiting)
            // A process that gets no time may see the other's grant before its own timer.
            assert.isFalse(
              yield* lease?.isHeld ?? Effect.succeed(true),
              "the deadline passed before the key was free"
            )
            const free = yield* Clock.monotonicTimeNanos
            assert.isAtMost(seconds(free - vanished), 10, "the key was free when the ttl was over")
            const error = yield* Fiber.join(section)
            assert.strictEqual(error._tag, "LockLost")
            assert.isTrue(interrupted)
            yield* road.pass
            assert.strictEqual(yield* holderOf(bare, key), yield* holderOf(bare, key))
            assert.strictEqual(yield* other.release(next), "released", "what was held back took nothing away")
            const again = yield* lock.withLock(key, Effect.succeed("back"))
            assert.strictEqual(again, "back", "the backend comes back by itself")
          })
      )
    }

    it.effect("cut connections are a loss that is told at once, and waiters go on", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const road = yield* proxy(server)
        const client = yield* MysqlLock.make(optionsFor(server, road))
        const held = newRequest(freshKey())
        expectSome(yield* client.tryAcquire(held), "free")
        const key = freshKey()
        yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
        const waiter = newRequest(key)
        const waiting = yield* lineUp(bare, client, waiter)
        yield* road.cut
        yield* until(Effect.sync(() => held.losses.length > 0)).pipe(Effect.timeout("8 seconds"))
        assert.deepStrictEqual(held.losses, ["session"])
        yield* until(Effect.map(waitersOf(bare, key), (n) => n === 1)).pipe(Effect.timeout("20 seconds"))
        yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* client.release(waiter), "released")
      }))
  })

  describe("a killed session", () => {
    it.effect("is a loss that is told at once, of everything that it held", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const lock = yield* lockOf(optionsFor(server))
        const keys = [freshKey(), freshKey()]
        const sections = yield* Effect.forEach(keys, (key) =>
          Effect.forkScoped(Effect.flip(lock.withLock(key, Effect.never))))
        yield* Effect.forEach(keys, (key) =>
          until(Effect.map(holderOf(bare, key), (id) => id !== undefined)))
        const id = yield* holderOf(bare, keys[0] ?? "")
        const [errors, took] = yield* millis(
          Effect.andThen(rows(bare, `KILL ${id}`), Effect.forEach(sections, (section) => Fiber.join(section)))
        )
        assert.deepStrictEqual(errors.map((error) => error._tag === "LockLost" && error.reason), [
          "session",
          "session"
        ])
        assert.isAtMost(took, 8000, "before the next renewal")
        assert.strictEqual(yield* lock.withLock(keys[0] ?? "", Effect.succeed(1)), 1)
      }))

    it.effect("an idle session is ended by the server after its ttl, and that is told", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const client = yield* MysqlLock.make(optionsFor(server))
        const request = newRequest(freshKey(), "1 seconds")
        expectSome(yield* client.tryAcquire(request), "free")
        const [, took] = yield* millis(until(Effect.sync(() => request.losses.length > 0)))
        assert.deepStrictEqual(request.losses, ["session"])
        assert.isTrue(took > 800 && took < 2500, `after ${took} ms`)
        assert.isTrue(Option.isNone(yield* client.renew(request, {})))
      }))
  })

  describe("a server that takes no more connections", () => {
    it.effect("is outlasted by waiters, and no harm for the others", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        yield* rows(bare, "CREATE USER 'few'@'%' IDENTIFIED BY 'few' WITH MAX_USER_CONNECTIONS 2")
        const client = yield* MysqlLock.make({
          ...optionsFor(server),
          username: "few",
          password: Redacted.make("few"),
          database: undefined,
          commandTimeout: "1 second"
        })
        const own = newRequest(freshKey())
        expectSome(yield* client.tryAcquire(own), "free")
        const keys = [freshKey(), freshKey()]
        yield* Effect.forEach(keys, (key) => value(bare, `SELECT GET_LOCK('${key}', 0)`))
        const [first, second] = keys.map((key) => newRequest(key))
        assert(first && second)
        const waiting = yield* lineUp(bare, client, first)
        const late = yield* Effect.forkScoped(client.acquire(second), { startImmediately: true })
        const [error, took] = yield* millis(Effect.flip(client.tryAcquire(newRequest(freshKey(), "5 seconds"))))
        assert.strictEqual(error.reason, "Unreachable")
        assert.include(error.message, "max_user_connections")
        assert.isAtMost(took, 10_000, "the command timeout, on a busy machine")
        assert.isUndefined(late.pollUnsafe(), "it waits for a connection")
        yield* Fiber.interrupt(waiting)
        yield* client.release(first)
        yield* until(Effect.map(waitersOf(bare, second.key), (n) => n === 1)).pipe(Effect.timeout("20 seconds"))
        yield* value(bare, `SELECT RELEASE_LOCK('${second.key}')`)
        yield* Fiber.join(late)
        assert.strictEqual(yield* client.release(second), "released")
        assert.strictEqual(yield* client.release(own), "released")
        yield* value(bare, `SELECT RELEASE_LOCK('${first.key}')`)
        yield* rows(bare, "DROP USER 'few'@'%'")
      }))
  })

  live.live(
    "a server that is killed and started again: losses are told, the backend comes back, tokens grow",
    () =>
      Effect.gen(function*() {
        const server = yield* flavour.server
        const client = yield* MysqlLock.make(optionsFor(server))
        const counting = yield* MysqlLock.make({ ...optionsFor(server), fencing: { table: "tokens" } })
        const key = freshKey()
        let last = [0n, 0n]
        for (let run = 0; run < 3; run++) {
          const requests = [newRequest(key), newRequest(`${key}/table`)]
          const tokens = yield* Effect.forEach([client, counting], (backend, i) =>
            Effect.map(
              backend.tryAcquire(requests[i] ?? assert.fail("two")),
              (grant) => expectSome(grant, "the key of a server that restarted is free").tokens.first
            ))
          tokens.forEach((token, i) =>
            assert.isTrue(
              token > (last[i] ?? 0n),
              `${i === 0 ? "UUID_SHORT()" : "the table"}: ${token} after ${last[i]}`
            )
          )
          last = tokens
          yield* server.kill
          yield* until(Effect.sync(() => requests.every((request) => request.losses.length > 0))).pipe(
            Effect.timeout("8 seconds")
          )
          assert.deepStrictEqual(requests.map((request) => request.losses), [["session"], ["session"]])
          const error = yield* Effect.flip(client.tryAcquire(newRequest(key)))
          assert.strictEqual(error.reason, "Unreachable")
          yield* server.start
        }
      }),
    180_000
  )

  live.live(
    "a server that is paused for less than the ttl costs no lease and no place in line",
    () =>
      Effect.gen(function*() {
        const server = yield* flavour.server
        const bare = yield* connect(server)
        const lock = yield* lockOf({ ...optionsFor(server), commandTimeout: "3 seconds" })
        const client = yield* MysqlLock.make({ ...optionsFor(server), commandTimeout: "30 seconds" })
        const key = freshKey()
        const section = yield* Effect.forkScoped(
          persist(lock.withLock(key, Effect.as(Effect.sleep("9 seconds"), "done"), { ttl: "9 seconds" }))
        )
        yield* until(Effect.map(holderOf(bare, key), (id) => id !== undefined))
        const waiter = newRequest(key)
        const waiting = yield* lineUp(bare, client, waiter)
        yield* Effect.sleep("2 seconds")
        yield* server.pause
        yield* Effect.sleep("4 seconds")
        yield* server.resume
        assert.strictEqual(yield* Fiber.join(section), "done")
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* client.release(waiter), "released")
      }),
    180_000
  )
})
