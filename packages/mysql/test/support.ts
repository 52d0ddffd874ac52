/**
 * What the tests of the backend share.
 */
import type { LockRequest, LossReason } from "@dlock/core"
import { assert } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import * as MysqlBackend from "../src/internal/MysqlBackend.ts"
import * as MysqlName from "../src/internal/MysqlName.ts"
import type { ClientOptions } from "../src/MysqlLock.ts"
import type { FakeServer } from "./FakeServer.ts"

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

export const backendOf = (fake: FakeServer, options: ClientOptions = {}) => MysqlBackend.make(fake.client, options)

/** Lets everything happen that needs no time. */
export const turns = Effect.repeat(Effect.yieldNow, { times: 50 })

export const expectSome = <A>(option: Option.Option<A>): A =>
  Option.getOrElse(option, () => assert.fail("what is free is granted, and what is held is renewed"))
