/**
 * Faults that users of etcd meet: many logins at once, members without a majority, tokens that run out, a proxy,
 * authentication that is switched on and off, a store without space, two clusters.
 */
import { EtcdLock } from "@dlock/etcd"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Logger, Option, Redacted } from "effect"
import type { Etcd3 } from "etcd3"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { openssl } from "../harness/Certificates.ts"
import { etcd, etcdDivided, type Options } from "../harness/EtcdServer.ts"
import { reserve } from "../harness/Port.ts"
import * as Program from "../harness/Program.ts"
import type { Server } from "../harness/Server.ts"
import { freshKey, millis, newRequest, type TestRequest, until } from "../requests.ts"
import { turnout } from "./roads.ts"
import { clear, connect, escaped, keysOf, lineOf, roadTo } from "./support.ts"

const password = "hunter2-very-secret"

/** `root` and `app`, who may do everything; authentication is off. */
const addUsers = (bare: Etcd3) =>
  Effect.promise(async () => {
    const role = await bare.role("root").create()
    for (const [name, secret] of [["root", "rootpw"], ["app", password]] as const) {
      await (await bare.user(name).create(secret)).addRole(role)
    }
  })

const guarded = Effect.fnUntraced(function*(options: Options) {
  const server = yield* etcd(options)
  const bare = yield* connect([server.addr])
  yield* addUsers(bare)
  yield* Effect.promise(() => bare.auth.authEnable())
  return server
})

const asApp = { username: "app", password: Redacted.make(password) }

/** How many requests of a method the server has answered. */
const handled = (server: Server, method: string) =>
  Effect.promise(async () => {
    const text = await (await fetch(`http://${server.addr}/metrics`)).text()
    const counts = text.matchAll(
      new RegExp(`^grpc_server_handled_total\\{.*grpc_method="${method}".*\\} (\\S+)$`, "gm")
    )
    return Array.from(counts, ([, count]) => Number(count)).reduce((sum, count) => sum + count, 0)
  })

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "dlock-etcd-"))),
  (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
)

/** Fills a store that was started with a small quota. */
const fill = ({ addr }: Server) =>
  Effect.flatMap(connect([addr]), (bare) =>
    Effect.promise(async () => {
      for (let i = 0; i < 64; i++) await bare.put(`fill/${i}`).value("x".repeat(100_000)).exec().catch(() => {})
    }))

describe("etcd faults", () => {
  it.live(
    "64 layers with a password are back after a restart: no lock is lost, and each logs in once or twice",
    () =>
      Effect.gen(function*() {
        // With the usual 10, 64 passwords cost the server's processor four seconds: too much on a busy machine.
        const server = yield* guarded({ args: ["--bcrypt-cost=8"] })
        const options = { endpoints: [server.addr], dialTimeout: "1 minute", ...asApp } as const
        const layers = yield* Effect.replicateEffect(EtcdLock.make(options), 64, { concurrency: 8 })
        const held = layers.map(() => newRequest(freshKey(), "1 minute"))
        yield* Effect.forEach(layers, (backend, i) => backend.tryAcquire(held[i] ?? newRequest("")), { concurrency: 8 })
        yield* server.kill
        yield* Effect.sleep("1 second")
        yield* server.start
        const back = Effect.forEach(layers, (backend) => {
          const request = newRequest(freshKey())
          return Effect.retry(Effect.andThen(backend.tryAcquire(request), backend.release(request)), { times: 20 })
        }, { concurrency: "unbounded", discard: true })
        yield* back
        for (const [i, backend] of layers.entries()) {
          const request: TestRequest | undefined = held[i]
          if (request === undefined) continue
          assert.deepStrictEqual(request.losses, [])
          assert.isTrue(Option.isSome(yield* backend.renew(request, { fresh: true })), "each still holds its lock")
        }
        assert.isAtMost(yield* handled(server, "Authenticate"), 2 * 64, "logins since the restart")
      }),
    300_000
  )

  it.live(
    "a waiter on a member that is cut off from the majority is woken by another member",
    () =>
      Effect.gen(function*() {
        const { heal, isolate, nodes } = yield* etcdDivided
        const [alone, ...others] = nodes
        if (alone === undefined) return assert.fail()
        const road = yield* roadTo(alone.addr)
        const direct = yield* EtcdLock.make({ endpoints: others.map(({ addr }) => addr) })
        const bare = yield* connect(others.map(({ addr }) => addr))
        // The first endpoint is chosen by lot.
        const connected = Effect.gen(function*() {
          for (;;) {
            const backend = yield* EtcdLock.make({ endpoints: [road.addr, ...others.map(({ addr }) => addr)] })
            if ((yield* road.connections) > 0) return backend
          }
        })
        const backend = yield* connected
        const key = freshKey()
        const [holder, waiter, kept] = [
          newRequest(key, "5 minutes"),
          newRequest(key, "5 minutes"),
          newRequest(freshKey(), "5 minutes")
        ]
        yield* direct.tryAcquire(holder)
        yield* backend.tryAcquire(kept)
        const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
        yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
        yield* Effect.sleep("1 second")
        yield* isolate(alone)
        yield* Effect.sleep("1 second")
        yield* Effect.retry(direct.release(holder), { times: 5 })
        const [, took] = yield* millis(Fiber.join(waiting))
        assert.isBelow(took, 15_000, "the waiter has its turn")
        // The watch on what is held was on that member, too.
        yield* clear(bare, kept.key)
        const [, lossTook] = yield* millis(Deferred.await(kept.lost))
        assert.isBelow(lossTook, 10_000, "and a loss is pushed")
        yield* heal
        yield* backend.release(waiter)
      }),
    120_000
  )

  for (const version of ["3.4", "3.5"] as const) {
    it.live.skipIf(!Program.available(`etcd-${version}`))(
      `etcd ${version}: JWT tokens that run out: holders keep their locks, over a client of one's own and over ours`,
      () =>
        Effect.gen(function*() {
          const path = yield* folder
          yield* openssl("genrsa", "-out", `${path}/key`, "2048")
          yield* openssl("rsa", "-in", `${path}/key`, "-pubout", "-out", `${path}/pub`)
          const jwt = `--auth-token=jwt,pub-key=${path}/pub,priv-key=${path}/key,sign-method=RS256,ttl=2s`
          const server = yield* guarded({ version, args: [jwt] })
          const driver = yield* connect([server.addr], { username: "app", password })
          const backends = [
            yield* EtcdLock.makeClient(driver),
            yield* EtcdLock.make({ endpoints: [server.addr], ...asApp })
          ]
          const root = yield* connect([server.addr], { username: "root", password: "rootpw" })
          for (const backend of backends) {
            const held = [newRequest(freshKey(), "7 seconds"), newRequest(freshKey(), "8 seconds")]
            for (const request of held) assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
            yield* Effect.sleep("9 seconds")
            for (const request of held) {
              assert.deepStrictEqual(request.losses, [])
              assert.isTrue(Option.isSome(yield* backend.renew(request, {})), "it is renewed after its token ran out")
            }
            const [first, second] = held
            if (first === undefined || second === undefined) return assert.fail()
            yield* clear(root, first.key)
            yield* Deferred.await(first.lost).pipe(Effect.timeout("20 seconds"))
            assert.notStrictEqual(yield* backend.release(second), "gone")
          }
        }),
      120_000
    )
  }

  it.live(
    "behind etcd's proxy: holders are told of their own keys only, and nothing is left",
    () =>
      Effect.gen(function*() {
        const server = yield* etcd({})
        const bare = yield* connect([server.addr])
        const port = yield* reserve
        const program = yield* Program.find("etcd")
        const listen = `127.0.0.1:${port}`
        yield* Effect.acquireRelease(
          program.launch({
            folder: yield* folder,
            command: () => ["etcd", "grpc-proxy", "start", `--endpoints=${server.addr}`, `--listen-addr=${listen}`]
          }),
          (child) => child.kill
        )
        const dial = Effect.retry(EtcdLock.make({ endpoints: [listen], dialTimeout: "2 seconds" }), { times: 10 })
        const [backend, other] = [yield* dial, yield* dial]
        const held = Array.from({ length: 300 }, () => newRequest(freshKey()))
        yield* Effect.forEach(held, (request) => backend.tryAcquire(request), { concurrency: "unbounded" })
        // The proxy places all watches at the same time, and answers in any order.
        const waiters = held.slice(250).map(({ key }) => newRequest(key))
        const waiting = yield* Effect.forEach(waiters, (waiter) => Effect.forkScoped(other.acquire(waiter)))
        yield* Effect.sleep("1 second")
        const robbed = held.filter((_, i) => i % 4 === 3)
        yield* Effect.forEach(robbed, ({ key }) => clear(bare, key), { concurrency: "unbounded" })
        yield* Effect.forEach(robbed, ({ lost }) => Deferred.await(lost), { concurrency: "unbounded" }).pipe(
          Effect.timeout("20 seconds")
        )
        const kept = held.filter((request) => !robbed.includes(request))
        assert.deepStrictEqual(kept.flatMap(({ losses }) => losses), [], "nothing else is lost")
        yield* Effect.forEach(kept, (request) => backend.release(request), { concurrency: "unbounded" })
        yield* Effect.forEach(waiting, Fiber.join, { concurrency: "unbounded" }).pipe(Effect.timeout("20 seconds"))
        yield* Effect.forEach(waiters, (request) => other.release(request), { concurrency: "unbounded" })
        // A request that was not answered in time leaves a void mark.
        const left = (yield* keysOf(bare, "key-")).filter((key) => !key.includes("%void/"))
        assert.deepStrictEqual(left, [], "nothing is left")
      }),
    120_000
  )

  it.live(
    "credentials before authentication is enabled, and after it is disabled: no lock is lost",
    () =>
      Effect.gen(function*() {
        const server = yield* etcd({})
        const bare = yield* connect([server.addr])
        yield* addUsers(bare)
        const backend = yield* EtcdLock.make({ endpoints: [server.addr], ...asApp })
        const held = newRequest(freshKey(), "4 seconds")
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(held)), "a user name does no harm without authentication")
        const works = Effect.gen(function*() {
          const [first, second] = [newRequest(freshKey()), newRequest(freshKey())]
          assert.isTrue(Option.isSome(yield* backend.tryAcquire(first)))
          const waiter = newRequest(first.key)
          const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
          yield* Effect.sleep("2 seconds")
          yield* backend.acquire(second)
          assert.strictEqual(yield* backend.release(first), "released")
          yield* Fiber.join(waiting).pipe(Effect.timeout("20 seconds"))
          for (const request of [waiter, second]) assert.strictEqual(yield* backend.release(request), "released")
          assert.deepStrictEqual(held.losses, [])
          assert.isTrue(Option.isSome(yield* backend.renew(held, { fresh: true })))
        })
        yield* works
        yield* Effect.promise(() => bare.auth.authEnable())
        yield* works
        const root = yield* connect([server.addr], { username: "root", password: "rootpw" })
        yield* Effect.promise(() => root.auth.authDisable())
        yield* works
        yield* Effect.promise(() => bare.auth.authEnable())
        yield* works
        assert.strictEqual(yield* backend.release(held), "released")
      }),
    120_000
  )

  it.live(
    "a server without space: a request whose outcome is unknown is withdrawn all the same",
    () =>
      Effect.gen(function*() {
        const server = yield* etcd({ args: ["--quota-backend-bytes=1048576"] })
        const bare = yield* connect([server.addr])
        const road = yield* turnout(server.addr)
        const backend = yield* EtcdLock.make({ endpoints: [road.addr] })
        // A session that lives on.
        yield* backend.tryAcquire(newRequest(freshKey()))
        const request = newRequest(freshKey())
        yield* road.loseReplyTo(escaped(request.owner))
        yield* backend.tryAcquire(request)
        assert.strictEqual(road.lost, 1, "the first copy of the request was not answered")
        assert.strictEqual((yield* lineOf(bare, request.key)).length, 1)
        yield* fill(server)
        assert.strictEqual(yield* backend.release(request), "released")
        assert.deepStrictEqual(yield* lineOf(bare, request.key), [], "the key is gone")
        const full = yield* Effect.flip(backend.tryAcquire(newRequest(freshKey())))
        assert.match(full.message, /space exceeded/, "the server has no space")
      }),
    120_000
  )

  it.live("logins leave no connections behind", () =>
    Effect.gen(function*() {
      const server = yield* guarded({ args: ["--auth-token-ttl=1"] })
      const road = yield* roadTo(server.addr)
      let reads = 0
      const backend = yield* EtcdLock.make({
        endpoints: [road.addr],
        username: "app",
        password: Effect.sync(() => {
          reads++
          return Redacted.make(password)
        })
      })
      for (let i = 0; i < 5; i++) {
        yield* Effect.sleep("2100 millis")
        const request = newRequest(freshKey())
        yield* backend.tryAcquire(request)
        yield* backend.release(request)
      }
      assert.isAtLeast(yield* handled(server, "Authenticate"), 4, "tokens have run out")
      assert.isAtLeast(reads, 4, "the password is read at each login")
      assert.strictEqual(yield* road.connections, 1)
    }), 60_000)

  it.live(
    "a server of another cluster is not believed while locks are held, and is afterwards",
    () =>
      Effect.gen(function*() {
        const [ours, foreign] = [yield* etcd({}), yield* etcd({})]
        const road = yield* roadTo(ours.addr)
        // The first endpoint is chosen by lot.
        const connected = Effect.gen(function*() {
          for (;;) {
            const backend = yield* EtcdLock.make({ endpoints: [road.addr, foreign.addr], commandTimeout: "2 seconds" })
            if ((yield* road.connections) > 0) return backend
          }
        })
        const backend = yield* connected
        const bare = yield* connect([foreign.addr])
        const held = newRequest(freshKey(), "6 seconds")
        yield* backend.tryAcquire(held)
        const [, heldFor] = yield* millis(Effect.gen(function*() {
          yield* road.refuse
          const error = yield* Effect.flip(backend.tryAcquire(newRequest(held.key)))
          assert.strictEqual(error.reason, "Unreachable", error.message)
          assert.deepStrictEqual(yield* keysOf(bare), [], "nothing is granted on the other cluster")
          assert.deepStrictEqual(held.losses, [], "what another cluster says is no loss")
          yield* Deferred.await(held.lost).pipe(Effect.timeout("20 seconds"))
        }))
        assert.isAbove(heldFor, 3000)
        assert.deepStrictEqual(held.losses, ["expired"])
        const next = newRequest(held.key)
        const granted = yield* Effect.retry(backend.tryAcquire(next), { times: 5 })
        assert.isTrue(Option.isSome(granted), "with nothing held, the other cluster is the one")
        assert.strictEqual((yield* lineOf(bare, held.key)).length, 1)
        yield* backend.release(next)
      }),
    60_000
  )

  for (const [version, isWarned] of [["3.4", true], ["3.5", false]] as const) {
    it.live.skipIf(!Program.available(`etcd-${version}`))(
      `etcd ${version} is ${isWarned ? "" : "not "}warned of`,
      () =>
        Effect.gen(function*() {
          const server = yield* etcd({ version })
          const warnings: Array<string> = []
          const logger = Logger.make(({ logLevel, message }) => {
            if (logLevel === "Warn") warnings.push(String(message))
          })
          yield* Effect.scoped(Effect.andThen(EtcdLock.make({ endpoints: [server.addr] }), Effect.sleep("1 second")))
            .pipe(
              Effect.provide(Logger.layer([logger]))
            )
          assert.strictEqual(warnings.some((text) => /etcd 3\.4\.\d+ may revoke leases too early/.test(text)), isWarned)
        })
    )
  }
})
