import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "./Case.ts"
import { assertSilent, failsTo, failsToSay, need, open, patience, until, within } from "./Case.ts"
import * as strangers from "./strangers.ts"

/** More connections in a second than that are a loop without a pause. */
export const mostPerSecond = 60

const secret = "hunter2-and-more"

const isUnauthorized = (error: LockBackendError): boolean => error.reason === "Unauthorized"

const greetings = {
  "speaks of mail": "220 mail.example.org ESMTP ready\r\n",
  "speaks of the web": "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
  "sends bytes that mean nothing": "\u0000\u0000\u0000\u0001\u0000\u0000\u0000\u0000".repeat(8)
}

const toStrangers: ReadonlyArray<Definition> = Object.entries(greetings).map(([what, text]) => ({
  name: `a server that ${what} is a typed error that names the address`,
  run: (kit) =>
    Effect.gen(function*() {
      const stranger = yield* strangers.speaking(text)
      yield* failsTo(kit, stranger, Effect.scoped(kit.connect(stranger)))
      assert.isAtMost(
        yield* stranger.accepted,
        mostPerSecond * (1 + kit.commandTimeout / 1000),
        "it pauses between attempts"
      )
      yield* until(Effect.sync(() => stranger.open() === 0), kit.slack, "no connection stays open")
    })
}))

export const connecting: ReadonlyArray<Definition> = [
  {
    name: "nothing there is Unreachable, and names the address",
    run: (kit) =>
      Effect.gen(function*() {
        const place = yield* strangers.nothing
        const error = yield* failsTo(kit, place, Effect.scoped(kit.connect(place)))
        assert.strictEqual(error.reason, "Unreachable", error.message)
      })
  },
  {
    name: "a server that says nothing fails within the command timeout",
    run: (kit) =>
      Effect.gen(function*() {
        const stranger = yield* strangers.silent
        const error = yield* failsTo(kit, stranger, Effect.scoped(kit.connect(stranger)))
        assert.include(["Unreachable", "Timeout"], error.reason, error.message)
        yield* until(Effect.sync(() => stranger.open() === 0), kit.slack, "no connection stays open")
      })
  },
  {
    name: "a server that hangs up is asked again with a pause",
    run: (kit) =>
      Effect.gen(function*() {
        const stranger = yield* strangers.hangingUp()
        yield* failsTo(kit, stranger, Effect.scoped(kit.connect(stranger)))
        assert.isAtMost(yield* stranger.accepted, mostPerSecond * (1 + kit.commandTimeout / 1000))
        const isQuiet = Effect.gen(function*() {
          const before = yield* stranger.accepted
          yield* Effect.sleep("300 millis")
          return (yield* stranger.accepted) === before
        })
        // A connection may be under way still.
        yield* until(isQuiet, kit.slack, "nothing is tried after the layer has failed")
      })
  },
  ...toStrangers,
  {
    name: "a wrong password, and none, is Unauthorized and is not told",
    needs: "locked",
    run: (kit) =>
      Effect.gen(function*() {
        const { options, server } = yield* need(kit.adapter.locked)
        const logs: Array<unknown> = []
        const failure = (password: string | Redacted.Redacted | undefined) =>
          failsTo(kit, server, Effect.scoped(kit.adapter.make(options(server, password))), isUnauthorized).pipe(
            Effect.provide(Logger.layer([Logger.make((entry) => logs.push(entry))])),
            Effect.provideService(References.MinimumLogLevel, "All")
          )
        for (const password of [secret, Redacted.make(secret), undefined]) {
          const error = yield* failure(password)
          assert.strictEqual(error.reason, "Unauthorized", error.message)
          assertSilent(error, secret)
        }
        assertSilent(logs, secret)
      })
  },
  {
    name: "the right password is taken as a text, redacted, and from an effect that runs at each connect",
    needs: "locked",
    run: (kit) =>
      Effect.gen(function*() {
        const { adapter, request } = kit
        const { eachConnect = true, options, password, server } = yield* need(adapter.locked)
        const road = yield* kit.road(server)
        let runs = 0
        const token = Effect.sync(() => {
          runs++
          return Redacted.make(password)
        })
        for (const input of [password, Redacted.make(password), token]) {
          const client = yield* open(adapter.make(options(road, input)))
          yield* client.ping
          const before = runs
          yield* road.cut
          const again = request()
          yield* within(client.tryAcquire(again), patience, "it is back after the connection broke")
          yield* client.release(again)
          if (input === token && eachConnect) assert.isAbove(runs, before, "the effect runs for a new connection")
        }
      })
  },
  {
    name: "an effect without a password is a typed error",
    needs: "locked",
    run: (kit) =>
      Effect.gen(function*() {
        const { options, server } = yield* need(kit.adapter.locked)
        for (const password of [Effect.fail("the vault is closed"), Effect.die("the vault is closed")]) {
          yield* failsToSay(kit, server, options(server, password), "the vault is closed")
        }
      })
  },
  {
    name: "a user with the least rights has locks",
    needs: "leastRights",
    run: ({ adapter, request }) =>
      Effect.gen(function*() {
        const client = yield* open(adapter.make(yield* need(adapter.leastRights)))
        const held = request()
        yield* client.ping
        yield* client.acquire(held)
        yield* client.renew(held, {})
        const waiter = request(held.key)
        const waiting = yield* Effect.forkScoped(client.acquire(waiter))
        yield* client.release(held)
        yield* within(Fiber.join(waiting), patience, "the next has it")
        yield* client.release(waiter)
      })
  }
]
