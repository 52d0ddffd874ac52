import {
  InvalidLockRequest,
  Lock,
  LockBackendError,
  LockLost,
  LockUnavailable,
  MemoryLock,
  withLock
} from "@dlock/core"
import { LockManager, type PromiseLease } from "@dlock/core/promise"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

/** Two processes over one store, and the store. */
const make = async () => {
  const backend = await Effect.runPromise(MemoryLock.make)
  const layer = MemoryLock.layerShared(backend)
  const locks = await LockManager.make(layer)
  const other = await LockManager.make(layer)
  const rob = async (lease: PromiseLease) => {
    await Effect.runPromise(backend.revoke(lease.key, lease.owner))
  }
  return { backend, locks, other, rob }
}

const errorOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then((value) => assert.fail(`no error but ${String(value)}`), (error: unknown) => error)

const tick = () => new Promise((resolve) => setTimeout(resolve, 5))

/** A promise that is settled by hand. */
const gate = () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { open: resolve, opened: promise }
}

const keyOf = (lease: PromiseLease | null) => lease?.key

const types = (locks: LockManager) => {
  expectTypeOf(locks.request("k", (lease) => lease.fencingToken)).toEqualTypeOf<Promise<bigint>>()
  locks.request("k", async (lease) => expectTypeOf(lease).toEqualTypeOf<PromiseLease>())
  locks.request("k", { timeout: 5 }, async (lease) => expectTypeOf(lease).toEqualTypeOf<PromiseLease>())
  locks.request("k", { ifAvailable: true }, (lease) => {
    expectTypeOf(lease).toEqualTypeOf<PromiseLease | null>()
  })
}

describe("types", () => {
  it("the callback gets null only where the lock may not be available", () => {
    assert.isFunction(types)
    expectTypeOf(LockManager.make<never>).returns.toEqualTypeOf<Promise<LockManager>>()
  })
})

describe("request", () => {
  it("excludes within the process and between processes, and answers with the callback's result", async () => {
    const { locks, other } = await make()
    let inside = 0
    const callback = async () => {
      assert.strictEqual(++inside, 1)
      await tick()
      return inside--
    }
    const all = [locks, other, locks, other].map((manager) => manager.request("k", callback))
    assert.deepStrictEqual(await Promise.all(all), [1, 1, 1, 1])
    assert.strictEqual(await locks.request("k", { ttl: "5 seconds", signal: undefined }, () => "sync"), "sync")
    await Promise.all([locks.close(), other.close()])
  })

  it("the callback's own error arrives as it is, also when it is none", async () => {
    const { locks } = await make()
    const mine = new TypeError("mine")
    assert.strictEqual(await errorOf(locks.request("k", () => Promise.reject(mine))), mine)
    assert.strictEqual(
      await errorOf(locks.request("k", () => {
        throw mine
      })),
      mine
    )
    assert.strictEqual(await errorOf(locks.request("k", () => Promise.reject())), undefined)
    await locks.close()
  })

  it("the errors are the classes of core", async () => {
    const { locks } = await make()
    assert.instanceOf(await errorOf(locks.request("", () => 1)), InvalidLockRequest)
    // @ts-expect-error no callback
    assert.instanceOf(await errorOf(locks.request("k", {})), InvalidLockRequest)
    // @ts-expect-error no options
    assert.instanceOf(await errorOf(locks.request("k", null, () => 1)), InvalidLockRequest)
    // @ts-expect-error no options
    assert.instanceOf(await errorOf(locks.acquire("k", null)), InvalidLockRequest)
    // @ts-expect-error no signal
    assert.instanceOf(await errorOf(locks.request("k", { signal: "abort" }, () => 1)), InvalidLockRequest)
    await locks.request("k", async () => {
      const error = await errorOf(locks.request("k", { timeout: 5 }, () => 1))
      assert.instanceOf(error, LockUnavailable)
      assert.deepInclude(error, { _tag: "LockUnavailable", reason: "timeout" })
    })
    await locks.close()
  })

  it("ifAvailable calls back with null when the key is taken", async () => {
    const { locks, other } = await make()
    assert.strictEqual(await locks.request("k", { ifAvailable: true }, keyOf), "k")
    await other.request("k", async () => {
      assert.strictEqual(await locks.request("k", { ifAvailable: true }, keyOf), undefined)
    })
    await Promise.all([locks.close(), other.close()])
  })

  it("a loss aborts the lease's signal, and the promise settles when the callback has", async () => {
    const { locks, rob } = await make()
    const { open, opened } = gate()
    let isSettled = false
    let seen: PromiseLease | undefined
    const request = locks.request("k", async (lease) => {
      seen = lease
      await rob(lease)
      await opened
      return "done"
    })
    const error = errorOf(request).finally(() => {
      isSettled = true
    })
    await tick()
    assert.isTrue(seen?.signal.aborted)
    assert.instanceOf(seen?.signal.reason, LockLost)
    assert.isFalse(seen?.isHeld)
    assert.isFalse(isSettled, "the callback still runs")
    open()
    assert.deepInclude(await error, { _tag: "LockLost", reason: "taken", key: "k" })
    await locks.close()
  })

  it("the signal ends the wait with its reason, and nothing that is granted", async () => {
    const { locks, other } = await make()
    const { open, opened } = gate()
    const holding = other.request("k", () => opened)
    const reason = new Error("enough")
    assert.strictEqual(await errorOf(locks.request("k", { signal: AbortSignal.abort(reason) }, () => 1)), reason)
    const controller = new AbortController()
    const waiting = errorOf(locks.request("k", { signal: controller.signal }, () => 1))
    await tick()
    controller.abort(reason)
    assert.strictEqual(await waiting, reason)
    open()
    await holding
    const late = new AbortController()
    const granted = locks.request("k", { signal: late.signal }, async () => {
      late.abort(reason)
      await tick()
      return "done"
    })
    assert.strictEqual(await granted, "done")
    const refused = new AbortController()
    const none = locks.request("k", { signal: refused.signal, ifAvailable: true }, async (lease) => {
      refused.abort(reason)
      await tick()
      return lease?.key
    })
    assert.strictEqual(await none, "k")
    await Promise.all([locks.close(), other.close()])
  })
})

describe("acquire", () => {
  it("holds the key until the lease is released, or disposed of", async () => {
    const { locks, other } = await make()
    const isFree = () => other.request("k", { ifAvailable: true }, (lease) => lease !== null)
    const lease = await locks.acquire("k")
    assert.deepInclude(lease, { key: "k", backend: "memory" })
    assert.isTrue(lease.isHeld)
    assert.isAbove(lease.remaining, 20_000)
    assert.isFalse(await isFree())
    await lease.renew()
    await lease.release()
    await lease.release()
    assert.isFalse(lease.isHeld)
    assert.isTrue(await isFree())
    assert.instanceOf(await errorOf(lease.renew()), LockLost)
    const second = await locks.acquire("k")
    await second[Symbol.asyncDispose]()
    assert.isTrue(await isFree())
    await Promise.all([locks.close(), other.close()])
  })

  it("a loss aborts its signal, and disposing of it is no error", async () => {
    const { locks, rob } = await make()
    const lease = await locks.acquire("k")
    await rob(lease)
    await tick()
    assert.isTrue(lease.signal.aborted)
    await lease[Symbol.asyncDispose]()
    await lease.release()
    await locks.close()
  })

  it("that was aborted leaves nothing", async () => {
    const { locks, other } = await make()
    const holder = await other.acquire("k")
    const controller = new AbortController()
    const waiting = errorOf(locks.acquire("k", { signal: controller.signal }))
    await tick()
    controller.abort()
    assert.strictEqual(await waiting, controller.signal.reason)
    await holder.release()
    assert.isTrue(await other.request("k", { ifAvailable: true }, (lease) => lease !== null))
    assert.instanceOf(await errorOf(locks.acquire("k", { ttl: -1 })), InvalidLockRequest)
    await Promise.all([locks.close(), other.close()])
  })
})

describe("a manager", () => {
  it("rejects with the error of its layer", async () => {
    const problem = new Error("no server")
    assert.strictEqual(await errorOf(LockManager.make(Layer.effect(Lock, Effect.fail(problem)))), problem)
  })

  it("closes what is held and what waits, and may be closed again", async () => {
    const { locks, other } = await make()
    const waiting = other.acquire("k")
    const holder = await waiting
    const behind = errorOf(locks.request("k", () => 1))
    await tick()
    await locks.close()
    await locks.close()
    assert.instanceOf(await behind, LockBackendError)
    await other[Symbol.asyncDispose]()
    assert.isTrue(holder.signal.aborted)
    assert.deepInclude(holder.signal.reason, { _tag: "LockLost", reason: "closed" })
  })

  it("an async function or a promise as the program of withLock is refused with a sentence that names it", async () => {
    type Refused = Effect.Effect<unknown, InvalidLockRequest, Lock>
    // @ts-expect-error an async function makes no effect
    const made: Refused = withLock("k", async () => 1)
    // @ts-expect-error a rejected promise is no effect
    const rejected: Refused = withLock("k", () => Promise.reject(new Error("unseen")))
    // @ts-expect-error a promise is no effect
    const given: Refused = withLock("k", Promise.resolve(1))
    for (const effect of [made, rejected, given]) {
      const error = await Effect.runPromise(Effect.flip(Effect.provide(effect, MemoryLock.layer)))
      assert.include(error.message, "@dlock/core/promise")
    }
  })

  it("serves a whole program in plain JavaScript", async () => {
    const program = fileURLToPath(new URL("webLocks.mjs", import.meta.url))
    const { stderr, stdout } = await promisify(execFile)(process.execPath, ["--unhandled-rejections=strict", program])
    assert.strictEqual(stderr, "")
    assert.deepStrictEqual(stdout.trim().split("\n"), [
      "sold, sold out",
      "busy",
      "true LockUnavailable timeout",
      "true mine",
      "job true true bigint",
      "false",
      "true closed",
      "LockLost closed",
      "LockBackendError"
    ])
  }, 60_000)
})
