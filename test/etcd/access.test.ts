/**
 * Getting in: users and roles, wrong passwords, servers that are not there, a driver of one's own, TLS.
 */
import { withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Deferred, Effect, Exit, Fiber, Layer, Option, Redacted } from "effect"
import { Etcd3 } from "etcd3"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Tls from "node:tls"
import { etcd } from "../harness/EtcdServer.ts"
import type { Server } from "../harness/Server.ts"
import { attempt, freshKey, millis } from "../requests.ts"
import { connect, keysOf, roadTo } from "./support.ts"

const secret = "hunter2-very-secret"

/** A server with `root`, and `app` who may touch what begins with `locks/`. */
const guarded = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const server = yield* etcd({ args })
  const bare = yield* connect([server.addr])
  yield* Effect.promise(async () => {
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
  return server
})

const asApp = (endpoint: string) => ({
  endpoints: [endpoint],
  username: "app",
  password: Redacted.make(secret),
  prefix: "locks"
})

const everythingOf = (value: unknown): string => {
  const error = value instanceof Error ? value : new Error(String(value))
  const cause = error.cause === undefined ? "" : everythingOf(error.cause)
  return `${error.name} ${error.message} ${JSON.stringify(error)} ${error.stack} ${cause}`
}

/** An authority, and a certificate each for a server and a client. */
const certificates = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "dlock-tls-"))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  const openssl = (command: string) =>
    Effect.sync(() => execFileSync("openssl", command.split(" "), { cwd: folder, stdio: "pipe" }))
  Fs.writeFileSync(`${folder}/ext`, "subjectAltName=IP:127.0.0.1")
  yield* openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
  for (const name of ["server", "client"]) {
    yield* openssl(`req -newkey rsa:2048 -nodes -subj /CN=${name} -keyout ${name}.key -out ${name}.csr`)
    const signed = `-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out ${name}.crt`
    yield* openssl(`x509 -req -in ${name}.csr ${signed}`)
  }
  return (name: string) => Fs.readFileSync(Path.join(folder, name), "utf8")
})

/** Speaks TLS before a server that does not; answers its `host:port`. */
const terminate = (server: Server, options: Tls.TlsOptions) =>
  Effect.acquireRelease(
    Effect.callback<Tls.Server>((resume) => {
      const listener = Tls.createServer({ ...options, ALPNProtocols: ["h2"] }, (client) => {
        const upstream = Net.connect(server.port, server.host)
        client.pipe(upstream).pipe(client)
        client.on("error", () => upstream.destroy())
        upstream.on("error", () => client.destroy())
      })
      listener.on("tlsClientError", () => {})
      listener.listen(0, "127.0.0.1", () => resume(Effect.succeed(listener)))
    }),
    (listener) => Effect.sync(() => listener.close())
  ).pipe(Effect.map((listener) => {
    const address = listener.address()
    return `127.0.0.1:${typeof address === "object" ? address?.port : 0}`
  }))

describe.concurrent("etcd access", () => {
  it.live("a user with a role: locks, waits, renews, loses and gives back", () =>
    Effect.gen(function*() {
      const server = yield* guarded()
      const root = yield* connect([server.addr], { username: "root", password: "rootpw" })
      const [a, b] = [yield* EtcdLock.make(asApp(server.addr)), yield* EtcdLock.make(asApp(server.addr))]
      const key = freshKey()
      const [holder, waiter] = [attempt(key), attempt(key)]
      yield* a.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* Effect.sleep("800 millis")
      assert.strictEqual((yield* keysOf(root, `locks/${key}/`)).length, 2, "all of it is below the prefix")
      assert.isTrue(Option.isSome(yield* a.renew(holder)))
      assert.isTrue(yield* a.release(holder))
      yield* Fiber.join(waiting)
      yield* Effect.sleep("800 millis")
      yield* Effect.promise(() => root.delete().prefix(`locks/${key}/`).exec())
      yield* Deferred.await(waiter.lost).pipe(Effect.timeout("2 seconds"))
    }))

  it.live("rights that do not reach the key: a clear error, and nothing is owed", () =>
    Effect.gen(function*() {
      const server = yield* guarded()
      const backend = yield* EtcdLock.make({ ...asApp(server.addr), prefix: "elsewhere" })
      const request = attempt(freshKey())
      for (const verb of [backend.tryAcquire(request), backend.acquire(request)]) {
        const error = yield* Effect.flip<unknown, { readonly reason: string }, never>(verb)
        assert.strictEqual(error.reason, "Unauthorized")
      }
      assert.isFalse(yield* backend.release(request))
    }))

  it.live("a wrong password, no password, an unknown user: Unauthorized, at once, without the password", () =>
    Effect.gen(function*() {
      const server = yield* guarded()
      const wrong = [
        { ...asApp(server.addr), password: Redacted.make(`${secret}-not`) },
        { ...asApp(server.addr), username: "nobody" },
        { endpoints: [server.addr] }
      ]
      for (const options of wrong) {
        const [exit, took] = yield* millis(Effect.exit(Effect.scoped(EtcdLock.make(options))))
        assert.isTrue(Exit.isFailure(exit))
        assert.isBelow(took, 2000, "a refusal is not tried again")
        const error = yield* Effect.flip(exit)
        assert.strictEqual(error.reason, "Unauthorized", error.message)
        assert.notInclude(everythingOf(error), secret, "the password is in no error")
      }
    }))

  it.live("tokens that run out while a lock is waited for and held", () =>
    Effect.gen(function*() {
      const server = yield* guarded("--auth-token-ttl=1")
      const [a, b] = [yield* EtcdLock.make(asApp(server.addr)), yield* EtcdLock.make(asApp(server.addr))]
      for (const pause of ["100 millis", "2500 millis"] as const) {
        const key = freshKey()
        const [holder, waiter] = [attempt(key), attempt(key)]
        assert.isTrue(Option.isSome(yield* a.tryAcquire(holder)))
        yield* Effect.sleep(pause)
        const waiting = yield* Effect.forkScoped(b.acquire(waiter))
        yield* Effect.sleep("2500 millis")
        assert.deepStrictEqual(holder.losses, [])
        assert.isTrue(yield* a.release(holder))
        yield* Fiber.join(waiting).pipe(Effect.timeout("3 seconds"))
        yield* Effect.sleep("2500 millis")
        assert.deepStrictEqual(waiter.losses, [])
        assert.isTrue(yield* b.release(waiter))
      }
    }))

  it.live("nobody there: the build fails with what is wrong, within the dial timeout", () =>
    Effect.gen(function*() {
      const [exit, took] = yield* millis(
        Effect.exit(Effect.scoped(EtcdLock.make({ endpoints: ["127.0.0.1:1"], dialTimeout: "1 second" })))
      )
      const error = yield* Effect.flip(exit)
      assert.strictEqual(error.reason, "Unreachable")
      assert.isBelow(took, 2500)
      assert.match(error.message, /etcd could not connect: .*ECONNREFUSED 127\.0\.0\.1:1/)
    }))

  it.live("somebody there who says nothing: the build fails within the dial timeout", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const road = yield* roadTo(server.addr)
      yield* road.blackhole()
      const [exit, took] = yield* millis(
        Effect.exit(Effect.scoped(EtcdLock.make({ endpoints: [road.addr], dialTimeout: "1 second" })))
      )
      const error = yield* Effect.flip(exit)
      assert.include(["Timeout", "Unreachable"], error.reason)
      assert.isBelow(took, 2500)
    }))

  it.live("a driver of one's own: locks over it, and it stays open", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const driver = yield* connect([server.addr])
      const key = freshKey()
      const inside = yield* withLock(key, Effect.promise(() => driver.getAll().prefix(`${key}/`).count())).pipe(
        Effect.provide(EtcdLock.layerClient(driver))
      )
      assert.strictEqual(inside, 1)
      assert.strictEqual(yield* Effect.promise(() => driver.getAll().prefix(key).count()), 0)
      const error = yield* Effect.flip(Effect.scoped(Effect.gen(function*() {
        const closed = new Etcd3({ hosts: server.addr })
        const backend = yield* EtcdLock.makeClient(closed, { commandTimeout: "1 second" })
        closed.close()
        return yield* backend.tryAcquire(attempt(freshKey()))
      })))
      assert.strictEqual(error.reason, "Unreachable", "a driver that its owner closed")
    }))

  it.live("as the environment says", () =>
    Effect.gen(function*() {
      const server = yield* guarded()
      const environment = ConfigProvider.layer(ConfigProvider.fromEnvRecord({
        DLOCK_ETCD_ENDPOINTS: server.addr,
        DLOCK_ETCD_USERNAME: "app",
        DLOCK_ETCD_PASSWORD: secret,
        DLOCK_ETCD_DIAL_TIMEOUT: "2s",
        DLOCK_ETCD_PREFIX: "locks"
      }))
      const layer = Layer.provide(EtcdLock.layerConfig(), environment)
      assert.strictEqual(yield* Effect.provide(withLock(freshKey(), Effect.succeed(42)), layer), 42)
    }))

  it.live("TLS: with the authority's certificate, with a client's, and with neither", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const pem = yield* certificates
      const open = yield* terminate(server, { key: pem("server.key"), cert: pem("server.crt") })
      const strict = yield* terminate(server, {
        key: pem("server.key"),
        cert: pem("server.crt"),
        ca: pem("ca.crt"),
        requestCert: true,
        rejectUnauthorized: true
      })
      const rootCertificate = pem("ca.crt")
      const client = { rootCertificate, privateKey: Redacted.make(pem("client.key")), certChain: pem("client.crt") }
      for (const [endpoint, tls] of [[open, { rootCertificate }], [strict, client]] as const) {
        const backend = yield* EtcdLock.make({ endpoints: [endpoint], tls })
        const request = attempt(freshKey())
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
        assert.isTrue(yield* backend.release(request))
      }
      const dialTimeout = "1 second" as const
      const refused: ReadonlyArray<EtcdLock.Options> = [
        { endpoints: [open], tls: true, dialTimeout },
        { endpoints: [`https://${open}`], dialTimeout },
        { endpoints: [open], dialTimeout },
        { endpoints: [strict], tls: { rootCertificate }, dialTimeout }
      ]
      for (const options of refused) {
        const error = yield* Effect.flip(Effect.scoped(EtcdLock.make(options)))
        assert.strictEqual(error.reason, "Unreachable", error.message)
      }
      const mixed = yield* Effect.flip(
        Effect.scoped(EtcdLock.make({ endpoints: [open], tls: { rootCertificate: "nonsense" }, dialTimeout }))
      )
      assert.include(["Options", "Unreachable"], mixed.reason)
    }))
})
