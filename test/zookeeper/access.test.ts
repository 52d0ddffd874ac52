import { Lock, LockBackend } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { ConfigProvider, Context, Deferred, Duration, Effect, Layer, Option, Redacted } from "effect"
import { attempt, freshKey, until } from "../requests.ts"
import { aclOf, childrenOf, connect, create, mkdirp, remove, roadTo, ZooKeeper } from "./support.ts"

const limit = (property: string) =>
  Effect.timeoutOrElse({
    duration: "20 seconds",
    orElse: () => Effect.sync(() => assert.fail(`${property}, within 20 seconds`))
  })

const secret = "open sesame"
const credentials = { username: "app", password: Redacted.make(secret) }

layer(ZooKeeper.layer({ settings: ["enforceQuota=true"] }), { excludeTestServices: true, timeout: "1 minute" })(
  "access",
  (it) => {
    describe("with a username and a password", () => {
      it.effect("nobody else can read, remove or add a node, also after a new connection", () =>
        Effect.gen(function*() {
          const { bare: stranger, servers: [server = ""] } = yield* ZooKeeper
          const road = yield* roadTo(server)
          const prefix = `/${freshKey()}`
          const client = yield* ZooKeeperLock.make({
            servers: [road.addr],
            prefix,
            ...credentials,
            sessionTimeout: "8 seconds"
          })
          const insider = yield* connect([server], { digest: `app:${secret}` })
          for (const round of [1, 2]) {
            const request = attempt(`orders/${round}`)
            yield* client.acquire(request)
            const directory = `${prefix}/orders/${round}`
            const [node = ""] = yield* childrenOf(insider, directory)
            for (const path of [`${directory}/${node}`, directory, `${prefix}/orders`, prefix]) {
              const acl = yield* aclOf(insider, path)
              assert.lengthOf(acl, 1)
              assert.strictEqual(acl[0]?.permission, 31)
              assert.strictEqual(acl[0]?.id.scheme, "digest")
              assert.isTrue(acl[0]?.id.id.startsWith("app:"))
            }
            const attempts = [remove(stranger, `${directory}/${node}`), create(stranger, `${directory}/x`)]
            for (const each of attempts) assert.strictEqual((yield* Effect.flip(each)).name, "NO_AUTH")
            assert.isTrue(yield* client.release(request))
            yield* road.cut
          }
        }))

      it.effect("others are told that they have no right to the prefix", () =>
        Effect.gen(function*() {
          const { servers } = yield* ZooKeeper
          const prefix = `/${freshKey()}`
          const client = yield* ZooKeeperLock.make({ servers, prefix, ...credentials })
          const request = attempt(freshKey())
          yield* client.acquire(request)
          for (const options of [{}, { ...credentials, password: Redacted.make("wrong") }]) {
            const error = yield* Effect.flip(Effect.scoped(ZooKeeperLock.make({ servers, prefix, ...options })))
            assert.strictEqual(error.reason, "Unauthorized")
            assert.notInclude(JSON.stringify(error) + error.message, secret)
          }
          yield* client.release(request)
        }))
    })

    it.effect("by the layer and by the configuration, which mean the same locks", () =>
      Effect.gen(function*() {
        const { servers } = yield* ZooKeeper
        const environment = ConfigProvider.fromEnvRecord({
          DLOCK_ZOOKEEPER_SERVERS: servers.join(","),
          DLOCK_ZOOKEEPER_SESSION_TIMEOUT: "6s",
          DLOCK_ZOOKEEPER_PREFIX: "/configured"
        })
        const configured = Context.get(
          yield* Layer.build(ZooKeeperLock.layerConfig()).pipe(
            Effect.provideService(ConfigProvider.ConfigProvider, environment)
          ),
          Lock
        )
        const direct = Context.get(yield* Layer.build(ZooKeeperLock.layer({ servers, prefix: "/configured" })), Lock)
        const key = freshKey()
        const inside = configured.withLock(key, direct.withLockIfAvailable(key, Effect.succeed("both")))
        assert.isTrue(Option.isNone(yield* inside), "each excludes the other")
        assert.deepStrictEqual(yield* direct.withLockIfAvailable(key, Effect.succeed("free")), Option.some("free"))
        const lease = yield* configured.acquire(key)
        const remaining = Duration.toMillis(yield* lease.remaining)
        assert.isTrue(remaining > 2000 && remaining <= 6000, "the ttl is the session's timeout")
        const refused = yield* Effect.flip(direct.withLock("a//b", Effect.void))
        assert.strictEqual(refused._tag, "InvalidLockRequest")
      }))

    it.effect("an error that the driver has no name for is an error of the verb, and of nothing else", () =>
      Effect.gen(function*() {
        const { bare, servers } = yield* ZooKeeper
        const prefix = `/${freshKey()}`
        yield* mkdirp(bare, `${prefix}/full`)
        yield* mkdirp(bare, `/zookeeper/quota${prefix}/full`)
        const quota = Buffer.from("count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=2")
        yield* create(bare, `/zookeeper/quota${prefix}/full/zookeeper_limits`, 0, quota)
        yield* create(bare, `/zookeeper/quota${prefix}/full/zookeeper_stats`, 0, Buffer.from("count=1,bytes=0"))
        const client = yield* ZooKeeperLock.make({ servers, prefix })
        const [within, beyond, elsewhere] = [attempt("full"), attempt("full"), attempt("empty")]
        yield* client.acquire(within)
        const error = yield* limit("it is told")(Effect.flip(client.acquire(beyond)))
        assert.strictEqual(error.reason, "Rejected")
        assert.include(error.message, "QuotaExceeded")
        assert.isFalse(yield* client.release(beyond), "nothing is held")
        yield* limit("other keys are had")(client.acquire(elsewhere))
        assert.deepStrictEqual(within.losses, [], "and held leases go on")
        assert.isTrue(yield* client.release(within))
        assert.isTrue(yield* client.release(elsewhere))
      }))

    describe("with a client that was given", () => {
      const given = Effect.fnUntraced(function*(options: Parameters<typeof connect>[1] = {}) {
        const { servers: [server = ""] } = yield* ZooKeeper
        const road = yield* roadTo(server)
        const driver = yield* connect([road.addr], options)
        return { driver, road, server }
      })

      it.effect("locks live on its session, and the client is left as it was", () =>
        Effect.gen(function*() {
          const { bare, servers } = yield* ZooKeeper
          const { driver } = yield* given()
          const request = attempt(freshKey())
          const other = yield* ZooKeeperLock.make({ servers })
          yield* Effect.scoped(Effect.gen(function*() {
            const context = yield* Layer.build(ZooKeeperLock.layerBackendClient(driver))
            const client = Context.get(context, LockBackend)
            yield* limit("the key is had")(client.acquire(request))
            assert.isTrue(Option.isNone(yield* other.tryAcquire(attempt(request.key))))
            assert.isTrue(Option.isSome(yield* client.renew(request)))
            assert.isTrue(yield* client.release(request))
          }))
          assert.isNotEmpty(yield* childrenOf(driver, "/"), "it is not closed")
          assert.isNotEmpty(yield* childrenOf(bare, "/"))
        }))

      it.effect("a disconnection loses nothing, and the end of the session everything, for good", () =>
        Effect.gen(function*() {
          const { driver, road, server } = yield* given({ sessionTimeout: 6000 })
          const client = yield* ZooKeeperLock.makeClient(driver, { commandTimeout: "2 seconds" })
          const holders = [attempt(freshKey()), attempt(freshKey())]
          yield* Effect.forEach(holders, client.acquire)
          yield* road.cut
          yield* until(Effect.map(Effect.option(client.renew(holders[0] ?? assert.fail())), Option.isSome))
          assert.deepStrictEqual(holders.flatMap(({ losses }) => losses), [])
          yield* road.refuse
          yield* Effect.scoped(connect([server], { session: driver }))
          yield* road.pass
          yield* limit("every holder is told")(Effect.forEach(holders, ({ lost }) => Deferred.await(lost)))
          assert.deepStrictEqual(holders.flatMap(({ losses }) => losses), ["session", "session"])
          const error = yield* Effect.flip(client.acquire(attempt(freshKey())))
          assert.strictEqual(error.reason, "Unreachable")
          assert.include(error.message, "given client")
        }))

      it.effect("its credentials decide whose the nodes are", () =>
        Effect.gen(function*() {
          const { driver } = yield* given({ digest: `app:${secret}` })
          const prefix = `/${freshKey()}`
          const client = yield* ZooKeeperLock.makeClient(driver, { prefix })
          const request = attempt(freshKey())
          yield* client.acquire(request)
          const [acl] = yield* aclOf(driver, prefix)
          assert.strictEqual(acl?.id.scheme, "digest")
          assert.isTrue(yield* client.release(request))
        }))

      it.effect("that is not connected, building fails within the command timeout", () =>
        Effect.gen(function*() {
          const { driver, road } = yield* given()
          yield* road.refuse
          yield* Effect.sleep("100 millis")
          const error = yield* Effect.flip(
            Effect.scoped(ZooKeeperLock.makeClient(driver, { commandTimeout: "500 millis" }))
          )
          assert.strictEqual(error.reason, "Unreachable")
        }))
    })
  }
)
