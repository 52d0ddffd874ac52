/**
 * What the tests of the backend share.
 */
import type { LockRequest, LossReason } from "@dlock/core"
import { assert } from "@effect/vitest"
import { Duration, Effect, Option, Scheduler } from "effect"
import * as MysqlBackend from "../src/internal/MysqlBackend.ts"
import * as MysqlName from "../src/internal/MysqlName.ts"
import type { ClientOptions } from "../src/MysqlLock.ts"
import * as FakeServer from "./FakeServer.ts"

/** The name that a key has on the server. */
export const nameOf = (key: string): string => MysqlName.of("", key)

let attempts = 0

/** A request as core makes them, which remembers what it was told. */
export const attempt = (
  key: string,
  ttl: Duration.Input = "30 seconds"
): LockRequest & { readonly losses: Array<LossReason> } => {
  const losses: Array<LossReason> = []
  return {
    key,
    owner: `test/${++attempts}`,
    ttl: Duration.fromInputUnsafe(ttl),
    losses,
    onLost: (reason) => {
      losses.push(reason)
    }
  }
}

export const backendOf = (fake: FakeServer.FakeServer, options: ClientOptions = {}) =>
  MysqlBackend.make(fake.client, options)

/** Lets everything happen that needs no time. */
export const turns = Effect.repeat(Effect.yieldNow, { times: 50 })

export const expectSome = <A>(option: Option.Option<A>): A =>
  Option.getOrElse(option, () => assert.fail("what is free is granted, and what is held is renewed"))

/** Starts it, and goes on. */
export const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkScoped(effect, { startImmediately: true })

/** A backend where a key is held by somebody else. */
export const contended = Effect.fnUntraced(function*(key: string) {
  const fake = FakeServer.make()
  const other = yield* backendOf(fake)
  const holder = attempt(key)
  expectSome(yield* other.tryAcquire(holder))
  return { fake, holder, other, backend: yield* backendOf(fake) }
})

/** What the sessions were asked that are open now, if it contains `what`. */
export const asked = (fake: FakeServer.FakeServer, what = ""): number =>
  fake.sessions().flatMap((session) => session.statements).filter((sql) => sql.includes(what)).length

/** Effect may yield between any two steps; here it does, after every `operations`. */
export const yielding = <A, E>(effect: Effect.Effect<A, E>, operations: number): Effect.Effect<A, E> =>
  Effect.provideService(effect, Scheduler.MaxOpsBeforeYield, operations)
