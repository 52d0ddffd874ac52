/**
 * Getting in: users and roles, wrong passwords, servers that are not there, a driver of one's own, TLS.
 */
import { type LockBackend, withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Deferred, Effect, Fiber, Layer, Option, Redacted } from "effect"
import type { Etcd3 } from "etcd3"
import * as Fs from "node:fs"
import { authority } from "../harness/Certificates.ts"
import { etcd } from "../harness/EtcdServer.ts"
import { reserve } from "../harness/Port.ts"
import { freshKey, millis, newRequest } from "../requests.ts"
import { connect, keysOf, roadTo } from "./support.ts"

const secret = "hunter2-very-secret"

/** Adds `root`, and `app` who may do what begins with `locks/`; authentication is on afterwards. */
const guard = (bare: Etcd3) =>
  Effect.promise(async () => {
    const prefix = bare.range({ prefix: "locks/" })
    await bare.role("root").create()
    const role = await bare.role("locker").create()
    await role.grant({ permission: "Readwrite", range: prefix })
    const root = await bare.user("root").create("rootpw")
    await root.addRole("root")
    const app = await bare.user("app").create(secret)
    await app.addRole("locker")
    await bare.auth.authEnable()
  })

const guarded = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const server = yield* etcd({ args })
  yield* guard(yield* connect([server.addr]))
  return server
})

/** A login alone takes seconds on a busy machine. */
const patient = { commandTimeout: "20 seconds", dialTimeout: "20 seconds" } as const

const asApp = (endpoint: string) => ({
  ...patient,
  endpoints: [endpoint],
  username: "app",
  password: Redacted.make(secret),
  prefix: "locks"
})

const pem = (path: string) => Fs.readFileSync(path, "utf8")

/** A server that wants a certificate of each client, and takes its common name for the user. */
const mutual = Effect.fnUntraced(function*(alternative: string) {
  const { ca, encrypt, sign } = yield* authority
  const own = yield* sign("server", true, alternative)
  const secure = `127.0.0.1:${yield* reserve}`
  const server = yield* etcd({
    listen: [`https://${secure}`],
    args: [`--cert-file=${own.cert}`, `--key-file=${own.key}`, `--trusted-ca-file=${ca}`, "--client-cert-auth"]
  })
  return { ca, encrypt, sign, server, secure, app: yield* sign("app", false) }
}, Effect.provide(NodeServices.layer))

describe.concurrent("etcd access", () => {
  it.live("a user with a role: locks, waits, renews, loses and releases", () =>
    Effect.gen(function*() {
      const server = yield* guarded()
      const root = yield* connect([server.addr], { username: "root", password: "rootpw" })
      const [a, b] = [yield* EtcdLock.make(asApp(server.addr)), yield* EtcdLock.make(asApp(server.addr))]
      const key = freshKey()
      const [holder, waiter] = [newRequest(key), newRequest(key)]
      yield* a.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* Effect.sleep("800 millis")
      assert.strictEqual((yield* keysOf(root, `locks/${key}/`)).length, 2, "all of it is below the prefix")
      assert.isTrue(Option.isSome(yield* a.renew(holder, {})))
      assert.strictEqual(yield* a.release(holder), "released")
      yield* Fiber.join(waiting)
      yield* Effect.sleep("800 millis")
      yield* Effect.promise(() => root.delete().prefix(`locks/${key}/`).exec())
      yield* Deferred.await(waiter.lost).pipe(Effect.timeout("20 seconds"))
    }))

  it.live("rights that do not reach the key: a clear error, and nothing is owed", () =>
    Effect.gen(function*() {
      const server = yield* guarded()
      const backend = yield* EtcdLock.make({ ...asApp(server.addr), prefix: "elsewhere" })
      const request = newRequest(freshKey())
      for (const verb of [backend.tryAcquire(request), backend.acquire(request)]) {
        const error = yield* Effect.flip<unknown, { readonly reason: string }, never>(verb)
        assert.strictEqual(error.reason, "Unauthorized")
      }
      assert.strictEqual(yield* backend.release(request), "gone")
    }))

  it.live("tokens that run out while a lock is waited for and held", () =>
    Effect.gen(function*() {
      const server = yield* guarded("--auth-token-ttl=1")
      const [a, b] = [yield* EtcdLock.make(asApp(server.addr)), yield* EtcdLock.make(asApp(server.addr))]
      for (const pause of ["100 millis", "2500 millis"] as const) {
        const key = freshKey()
        const [holder, waiter] = [newRequest(key), newRequest(key)]
        assert.isTrue(Option.isSome(yield* a.tryAcquire(holder)))
        yield* Effect.sleep(pause)
        const waiting = yield* Effect.forkScoped(b.acquire(waiter))
        yield* Effect.sleep("2500 millis")
        assert.deepStrictEqual(holder.losses, [])
        assert.strictEqual(yield* a.release(holder), "released")
        yield* Fiber.join(waiting).pipe(Effect.timeout("20 seconds"))
        yield* Effect.sleep("2500 millis")
        assert.deepStrictEqual(waiter.losses, [])
        assert.strictEqual(yield* b.release(waiter), "released")
      }
    }))

  it.live("a server that says nothing: the build fails within the dial timeout", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const road = yield* roadTo(server.addr)
      yield* road.blackhole()
      const [exit, took] = yield* millis(
        Effect.exit(Effect.scoped(EtcdLock.make({ endpoints: [road.addr], dialTimeout: "200 millis" })))
      )
      const error = yield* Effect.flip(exit)
      assert.include(["Timeout", "Unreachable"], error.reason)
      assert.isBelow(took, 4500, "the default is five seconds")
    }))

  it.live("mutual TLS: the common name is the user; by code, by configuration, with a passphrase, without a certificate", () =>
    Effect.gen(function*() {
      const { app, ca, encrypt, secure, server } = yield* mutual("IP:127.0.0.1")
      yield* guard(yield* connect([server.addr]))
      const works = Effect.fnUntraced(function*(backend: LockBackend["Service"]) {
        const [holder, waiter] = [newRequest(freshKey()), newRequest("")]
        yield* backend.tryAcquire(holder)
        const next = { ...waiter, key: holder.key }
        const waiting = yield* Effect.forkScoped(backend.acquire(next))
        yield* Effect.sleep("300 millis")
        assert.isTrue(Option.isSome(yield* backend.renew(holder, { fresh: true })))
        assert.strictEqual(yield* backend.release(holder), "released")
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(next), "released")
      })
      const locked = yield* encrypt(app, "open-sesame")
      const tls: ReadonlyArray<EtcdLock.Options["tls"]> = [
        { ca: pem(ca), cert: pem(app.cert), key: pem(app.key) },
        { ca, cert: app.cert, key: Redacted.make(pem(locked)), passphrase: Redacted.make("open-sesame") }
      ]
      for (const each of tls) {
        yield* works(yield* EtcdLock.make({ ...patient, endpoints: secure, tls: each, prefix: "locks" }))
      }
      const environment = ConfigProvider.layer(ConfigProvider.fromEnvRecord({
        DLOCK_ETCD_ENDPOINTS: secure,
        DLOCK_ETCD_TLS: "true",
        DLOCK_ETCD_TLS_CA: ca,
        DLOCK_ETCD_TLS_CERT: app.cert,
        DLOCK_ETCD_TLS_KEY: locked,
        DLOCK_ETCD_TLS_PASSPHRASE: "open-sesame",
        DLOCK_ETCD_PREFIX: "locks"
      }))
      const layer = Layer.provide(EtcdLock.layerConfig(), environment)
      assert.strictEqual(yield* Effect.provide(withLock(freshKey(), Effect.succeed(42)), layer), 42)
      const error = yield* Effect.flip(
        Effect.scoped(EtcdLock.make({ endpoints: secure, tls: { ca }, dialTimeout: "1 second" }))
      )
      assert.include(["Unreachable", "Unauthorized"], error.reason, error.message)
    }))

  it.live("a server name for an endpoint that is given by its address; rotated certificates are read at each connect", () =>
    Effect.gen(function*() {
      const { app, ca, secure, server, sign } = yield* mutual("DNS:etcd.example")
      const tls = { ca, ...app }
      const error = yield* Effect.flip(
        Effect.scoped(EtcdLock.make({ endpoints: secure, tls, dialTimeout: "5 seconds" }))
      )
      assert.match(error.message, /another name; set tls\.serverName|not trusted|ERR_TLS_CERT_ALTNAME|altnames/i)
      const backend = yield* EtcdLock.make({ endpoints: secure, tls: { ...tls, serverName: "etcd.example" } })
      const held = newRequest(freshKey())
      yield* backend.tryAcquire(held)
      // Half of a rotation, as the next connection meets it: then the rest.
      const next = yield* sign("next", false)
      Fs.writeFileSync(app.cert, "nonsense")
      yield* server.kill
      const halfway = yield* Effect.flip(backend.renew(held, { fresh: true }))
      assert.match(halfway.message, /cert/)
      yield* server.start
      Fs.copyFileSync(next.cert, app.cert)
      Fs.copyFileSync(next.key, app.key)
      assert.isTrue(Option.isSome(yield* Effect.retry(backend.renew(held, { fresh: true }), { times: 5 })))
      assert.notStrictEqual(yield* backend.release(held), "gone")
    }))
})
