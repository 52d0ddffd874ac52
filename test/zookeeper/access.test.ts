import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Deferred, Effect, Option, Redacted } from "effect"
import { freshKey, newRequest, until } from "../requests.ts"
import { aclOf, childrenOf, connect, create, dataOf, limit, mkdirp, remove, roadTo, ZooKeeper } from "./support.ts"

const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

const secret = "open sesame"
const credentials = { username: "app", password: Redacted.make(secret) }

layer(ZooKeeper.layer({ settings: ["enforceQuota=true"] }), { excludeTestServices: true, timeout: "1 minute" })(
  "access",
  (it) => {
    describe("with a username and a password", () => {
      it.effect("others may read nodes that are readable, and do nothing else", () =>
        Effect.gen(function*() {
          const { bare, servers } = yield* ZooKeeper
          const prefix = `/${freshKey()}`
          const client = yield* ZooKeeperLock.make({ servers, prefix, ...credentials, acl: "readable" })
          const request = newRequest("orders")
          yield* client.acquire(request)
          const [node = ""] = yield* childrenOf(bare, `${prefix}/orders`)
          for (const path of [prefix, `${prefix}/orders`, `${prefix}/orders/${node}`]) {
            assert.deepStrictEqual((yield* aclOf(bare, path)).map(({ id, permission }) => [id.scheme, permission]), [
              ["digest", 31],
              ["world", 1]
            ])
          }
          assert.strictEqual(String(yield* dataOf(bare, `${prefix}/orders/${node}`)), request.owner)
          assert.strictEqual((yield* Effect.flip(remove(bare, `${prefix}/orders/${node}`))).name, "NO_AUTH")
          yield* client.release(request)
        }))

      it.effect("no other user can read, remove or add a node, also after a new connection", () =>
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
            const request = newRequest(`orders/${round}`)
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
            assert.strictEqual(yield* client.release(request), "released")
            yield* road.cut
          }
        }))
    })

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
        const [within, beyond, elsewhere] = [newRequest("full"), newRequest("full"), newRequest("empty")]
        yield* client.acquire(within)
        const error = yield* limit("it is told")(Effect.flip(client.acquire(beyond)))
        assert.strictEqual(error.reason, "Rejected")
        assert.include(error.message, "QuotaExceeded")
        assert.strictEqual(yield* client.release(beyond), "gone", "nothing is held")
        yield* limit("other keys are granted")(client.acquire(elsewhere))
        assert.deepStrictEqual(within.losses, [], "and held leases go on")
        assert.strictEqual(yield* client.release(within), "released")
        assert.strictEqual(yield* client.release(elsewhere), "released")
      }))

    describe("with a client that was given", () => {
      const given = Effect.fnUntraced(function*(options: Parameters<typeof connect>[1] = {}) {
        const { servers: [server = ""] } = yield* ZooKeeper
        const road = yield* roadTo(server)
        const driver = yield* connect([road.addr], options)
        return { driver, road, server }
      })

      it.effect("a disconnection loses nothing, and the end of the session everything, for good", () =>
        Effect.gen(function*() {
          const { driver, road, server } = yield* given({ sessionTimeout: 6000 })
          const client = yield* ZooKeeperLock.makeClient(driver, { commandTimeout: "2 seconds" })
          const holders = [newRequest(freshKey()), newRequest(freshKey())]
          yield* Effect.forEach(holders, client.acquire)
          yield* road.cut
          yield* until(Effect.map(Effect.option(client.renew(holders[0] ?? assert.fail(), {})), Option.isSome))
          assert.deepStrictEqual(holders.flatMap(({ losses }) => losses), [])
          yield* road.refuse
          yield* Effect.scoped(connect([server], { session: driver }))
          yield* road.pass
          yield* limit("every holder is told")(Effect.forEach(holders, ({ lost }) => Deferred.await(lost)))
          assert.deepStrictEqual(holders.flatMap(({ losses }) => losses), ["session", "session"])
          const error = yield* Effect.flip(client.acquire(newRequest(freshKey())))
          assert.strictEqual(error.reason, "Unreachable")
          assert.include(error.message, "given client")
        }))

      it.effect("that was connected before, locks are granted from the first moment on", () =>
        Effect.gen(function*() {
          const { driver } = yield* given({ sessionTimeout: 16_000 })
          const client = yield* ZooKeeperLock.makeClient(driver, { commandTimeout: "2 seconds" })
          const firstQuarter = (yield* now) + 4000
          const section = Effect.suspend(() => {
            const request = newRequest(freshKey())
            return Effect.andThen(client.acquire(request), client.release(request))
          })
          const isOver = Effect.map(now, (time) => time > firstQuarter + 500)
          yield* Effect.repeat(section, { until: () => isOver })
        }))

      it.effect("that was connected before, a fresh renewal claims no more than the driver's pings prove", () =>
        Effect.gen(function*() {
          const sessionTimeout = 30_000
          const { driver } = yield* given({ sessionTimeout })
          const client = yield* ZooKeeperLock.makeClient(driver)
          const request = newRequest(freshKey())
          yield* client.acquire(request)
          const { validFrom } = Option.getOrThrow(yield* client.renew(request, { fresh: true }))
          // One is sent every third of the timeout, and the leader is told within a quarter.
          assert.isAtMost(validFrom, (yield* now) - 7 / 12 * sessionTimeout)
          yield* client.release(request)
        }))

      it.effect("its credentials decide whose the nodes are", () =>
        Effect.gen(function*() {
          const { driver } = yield* given({ digest: `app:${secret}` })
          const prefix = `/${freshKey()}`
          const client = yield* ZooKeeperLock.makeClient(driver, { prefix })
          const request = newRequest(freshKey())
          yield* client.acquire(request)
          const [acl] = yield* aclOf(driver, prefix)
          assert.strictEqual(acl?.id.scheme, "digest")
          assert.strictEqual(yield* client.release(request), "released")
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
