/**
 * `etcdctl lock` and this backend exclude each other.
 */
import { EtcdLock } from "@dlock/etcd"
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option } from "effect"
import { execFile, spawn } from "node:child_process"
import { available } from "../harness/Program.ts"
import { freshKey, newRequest, until } from "../requests.ts"
import { Etcd, leasesOf, lineOf, revoke } from "./support.ts"

/** Runs `etcdctl`, and answers what it wrote. */
const etcdctl = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(Etcd, ({ endpoints }) =>
    Effect.callback<string>((resume) => {
      const env = { ...process.env, ETCDCTL_API: "3" }
      execFile("etcdctl", [`--endpoints=${endpoints.join(",")}`, ...args], { env }, (error, stdout, stderr) => {
        if (error === null) resume(Effect.succeed(stdout))
        else resume(Effect.die(new Error(`etcdctl ${args.join(" ")}: ${error.message}\n${stderr}`)))
      })
    }))

/** Runs `etcdctl lock`: it waits for the lock, prints the key, and holds until it is told to stop. */
const etcdctlLock = Effect.fnUntraced(function*(name: string) {
  const { endpoints } = yield* Etcd
  const got = Deferred.makeUnsafe<string>()
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("etcdctl", [`--endpoints=${endpoints.join(",")}`, "lock", name], {
        env: { ...process.env, ETCDCTL_API: "3" },
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  child.stdout.on("data", (text: Buffer) => Deferred.doneUnsafe(got, Effect.succeed(text.toString().trim())))
  return {
    got: Deferred.await(got),
    has: Deferred.isDone(got),
    /** It gives the lock back when it is interrupted. */
    stop: Effect.callback<void>((resume) => {
      child.once("exit", () => resume(Effect.void))
      child.kill("SIGINT")
    }),
    kill: Effect.sync(() => child.kill("SIGKILL"))
  }
})

const inLine = (key: string, count: number) =>
  Effect.flatMap(Etcd, ({ bare }) => until(Effect.map(lineOf(bare, key), (keys) => keys.length === count)))

describe.skipIf(!available("etcdctl"))("etcdctl", () => {
  layer(Etcd.layer(), { excludeTestServices: true, concurrent: true })("lock", (it) => {
    it.effect("waits for us, and takes over when we release", () =>
      Effect.gen(function*() {
        const { endpoints } = yield* Etcd
        const backend = yield* EtcdLock.make({ endpoints })
        const request = newRequest(freshKey())
        yield* backend.tryAcquire(request)
        const other = yield* etcdctlLock(request.key)
        yield* inLine(request.key, 2)
        yield* Effect.sleep("200 millis")
        assert.isFalse(yield* other.has, "it does not hold while we do")
        assert.strictEqual(yield* backend.release(request), "released")
        assert.match(yield* other.got, new RegExp(`^${request.key}/`), "it holds when we have released")
        assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(request.key))), "we do not take what it holds")
        yield* other.stop
      }))

    it.effect("is waited for by us, and we take over when it stops, or dies", () =>
      Effect.gen(function*() {
        const { endpoints } = yield* Etcd
        const backend = yield* EtcdLock.make({ endpoints })
        for (const end of ["stop", "kill"] as const) {
          const key = freshKey()
          const other = yield* etcdctlLock(key)
          yield* other.got
          assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(key))), "a lock that it holds is refused")
          const request = newRequest(key)
          const waiting = yield* Effect.forkScoped(backend.acquire(request))
          yield* inLine(key, 2)
          yield* Effect.sleep("200 millis")
          assert.isUndefined(waiting.pollUnsafe(), "we wait while it holds")
          if (end === "stop") yield* other.stop
          else {
            // Its lease lives on for a while.
            const { bare } = yield* Etcd
            const [lease] = yield* leasesOf(bare, key)
            yield* revoke(bare, lease)
          }
          yield* Fiber.join(waiting)
          assert.strictEqual(yield* backend.release(request), "released")
        }
      }))

    it.effect("stands in one line with us, first come, first served", () =>
      Effect.gen(function*() {
        const { endpoints } = yield* Etcd
        const backend = yield* EtcdLock.make({ endpoints })
        const key = freshKey()
        const [first, third] = [newRequest(key), newRequest(key)]
        yield* backend.tryAcquire(first)
        const second = yield* etcdctlLock(key)
        yield* inLine(key, 2)
        const waiting = yield* Effect.forkScoped(backend.acquire(third))
        yield* inLine(key, 3)
        yield* backend.release(first)
        yield* second.got
        yield* Effect.sleep("200 millis")
        assert.isUndefined(waiting.pollUnsafe(), "the later one waits for it")
        yield* second.stop
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(third), "released")
      }))

    it.effect("is not disturbed by our keys with a slash below the name, nor by our marks", () =>
      Effect.gen(function*() {
        const { bare, endpoints } = yield* Etcd
        const backend = yield* EtcdLock.make({ endpoints })
        const key = freshKey()
        const below = [newRequest(`${key}/sub`), newRequest(`${key}/sub/sub`), newRequest(`${key}/`)]
        for (const request of below) assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
        yield* Effect.promise(() => bare.put(`${key}%void/somebody`).value("").exec())
        const other = yield* etcdctlLock(key)
        yield* other.got
        yield* other.stop
        for (const request of below) assert.strictEqual(yield* backend.release(request), "released")
      }))

    it.effect("takes our locks away, and we notice: lease revoke, del", () =>
      Effect.gen(function*() {
        const { bare, endpoints } = yield* Etcd
        const backend = yield* EtcdLock.make({ endpoints })
        const [robbed, other] = [newRequest(freshKey()), newRequest(freshKey())]
        yield* backend.tryAcquire(robbed)
        yield* backend.tryAcquire(other)
        const [place = ""] = yield* lineOf(bare, robbed.key)
        yield* etcdctl("del", place)
        yield* Deferred.await(robbed.lost).pipe(Effect.timeout("8 seconds"))
        assert.deepStrictEqual([robbed.losses, other.losses], [["taken"], []])
        const [lease = "0"] = yield* leasesOf(bare, other.key)
        yield* etcdctl("lease", "revoke", BigInt(lease).toString(16))
        yield* Deferred.await(other.lost).pipe(Effect.timeout("8 seconds"))
        assert.deepStrictEqual(other.losses, ["session"])
      }))

    it.effect("finds us under the prefix, when there is one", () =>
      Effect.gen(function*() {
        const { endpoints } = yield* Etcd
        const backend = yield* EtcdLock.make({ endpoints, prefix: "locks/of/mine" })
        const key = freshKey()
        const other = yield* etcdctlLock(`locks/of/mine/${key}`)
        yield* other.got
        assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(key))))
        const plain = yield* EtcdLock.make({ endpoints })
        assert.isTrue(Option.isSome(yield* plain.tryAcquire(newRequest(key))), "without it the name is another one")
        yield* other.stop
      }))
  })
})
