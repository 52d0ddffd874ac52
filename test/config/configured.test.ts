/**
 * One program, `examples/src/configured.ts`, on each backend: nothing changes but its environment, or the file that it
 * finds.
 */
import { LockRegistry, MemoryLock, withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { ConfigProvider, Context, Effect, FileSystem, Layer, Path, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { bundled } from "../harness/Bundle.ts"
import { etcd } from "../harness/EtcdServer.ts"
import { mariadb } from "../harness/MysqlServer.ts"
import { postgres } from "../harness/PostgresServer.ts"
import { redis } from "../harness/RedisServer.ts"
import { zooKeeper } from "../harness/ZooKeeperServer.ts"

type Variables = Record<string, string>

const servers = ["redis", "etcd", "mysql", "postgres", "zookeeper"] as const

/** The environment that leads to each server, and a folder without a file. */
class World extends Context.Service<World, {
  readonly variables: { readonly [name in typeof servers[number]]: Variables }
  readonly folder: string
}>()("test/config/World") {
  static readonly layer = Layer.effect(
    World,
    Effect.gen(function*() {
      const [redisServer, etcdServer, mysqlServer, postgresServer, zooKeeperServer] = yield* Effect.all(
        [redis({ password: "open sesame" }), etcd(), mariadb(), postgres(), zooKeeper()],
        { concurrency: "unbounded" }
      )
      return {
        folder: yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped(),
        variables: {
          redis: {
            DLOCK_REDIS_ENABLED: "true",
            DLOCK_REDIS_ADDRS: redisServer.addr,
            DLOCK_REDIS_PASSWORD: "open sesame"
          },
          etcd: { DLOCK_ETCD_ENABLED: "true", DLOCK_ETCD_ENDPOINTS: etcdServer.addr },
          mysql: {
            DLOCK_MYSQL_ENABLED: "true",
            DLOCK_MYSQL_HOST: mysqlServer.host,
            DLOCK_MYSQL_PORT: String(mysqlServer.port),
            DLOCK_MYSQL_USERNAME: mysqlServer.username,
            DLOCK_MYSQL_PASSWORD: mysqlServer.password
          },
          postgres: { DLOCK_POSTGRES_ENABLED: "true", DLOCK_POSTGRES_URL: postgresServer.url },
          zookeeper: {
            DLOCK_ZOOKEEPER_ENABLED: "true",
            DLOCK_ZOOKEEPER_SERVERS: zooKeeperServer.addr,
            DLOCK_ZOOKEEPER_SESSION_TIMEOUT: "5s"
          }
        }
      }
    })
  ).pipe(Layer.provideMerge(NodeServices.layer))
}

const run = Effect.fnUntraced(function*(variables: Variables, folder?: string) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const world = yield* World
  const child = yield* spawner.spawn(ChildProcess.make(process.execPath, [bundled("configured")], {
    cwd: folder ?? world.folder,
    env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"], ...variables }
  }))
  const [output, code] = yield* Effect.all([Stream.mkString(Stream.decodeText(child.all)), child.exitCode], {
    concurrency: "unbounded"
  })
  return { output, code: Number(code) }
}, Effect.scoped)

const written = (name: string, output: string): bigint => {
  const [, token] = new RegExp(`^${name}: the report is written once, with token (\\d+)$`, "m").exec(output) ?? []
  return token === undefined ? assert.fail(`the report was not written on ${name}: ${output}`) : BigInt(token)
}

/** The registry of the program, in this process. */
const registry = (variables: Variables) =>
  LockRegistry.layerConfig([MemoryLock, RedisLock, EtcdLock, MysqlLock, PostgresLock, ZooKeeperLock]).pipe(
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(variables)))
  )

layer(World.layer, { excludeTestServices: true, timeout: "2 minutes" })("one program", (it) => {
  it.effect("says so when nothing is enabled", () =>
    Effect.gen(function*() {
      const { code, output } = yield* run({})
      assert.strictEqual(code, 0)
      assert.include(output, "No backend is enabled")
    }))

  it.effect("runs on the memory backend", () =>
    Effect.gen(function*() {
      const { code, output } = yield* run({ DLOCK_MEMORY_ENABLED: "true" })
      assert.strictEqual(code, 0, output)
      written("memory", output)
    }))

  for (const name of servers) {
    it.effect(`runs on ${name}, and waits for the holder as long as it says, with nothing changed but the environment`, () =>
      Effect.gen(function*() {
        const variables = (yield* World).variables[name]
        const first = yield* run(variables)
        assert.strictEqual(first.code, 0, first.output)
        const whileHeld = yield* withLock("reports/nightly", run({ ...variables, DLOCK_TIMEOUT: "1s" })).pipe(
          LockRegistry.withBackend(name),
          Effect.provide(registry(variables))
        )
        assert.strictEqual(whileHeld.code, 1, whileHeld.output)
        assert.include(whileHeld.output, "Lock \"reports/nightly\" is unavailable: the wait for it timed out")
        const second = yield* run(variables)
        assert.strictEqual(second.code, 0, second.output)
        assert.isTrue(written(name, second.output) > written(name, first.output), "both asked the same server")
      }))
  }

  it.effect("runs on all of them, by a file, and the environment wins over it", () =>
    Effect.gen(function*() {
      const { variables } = yield* World
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fs.makeTempDirectoryScoped()
      yield* fs.makeDirectory(path.join(folder, "config"))
      yield* fs.writeFileString(
        path.join(folder, "config", "config.yaml"),
        `
timeout: 10s
memory: {enabled: true}
redis:
  enabled: true
  addrs: ["${variables.redis.DLOCK_REDIS_ADDRS}"]
  password: wrong
etcd:
  enabled: true
  endpoints: ["${variables.etcd.DLOCK_ETCD_ENDPOINTS}"]
  dial_timeout: "5s"
mysql:
  enabled: true
  username: app
  password: secret
  host: 127.0.0.1
  port: ${variables.mysql.DLOCK_MYSQL_PORT}
  dbname: locks
  fencing_table: fences
postgres:
  enabled: true
  url: ${variables.postgres.DLOCK_POSTGRES_URL}
zookeeper:
  enabled: true
  servers: ${variables.zookeeper.DLOCK_ZOOKEEPER_SERVERS}
  session_timeout: 5 seconds
  prefix: /by-file
`
      )
      const { code, output } = yield* run({ DLOCK_REDIS_PASSWORD: "open sesame" }, folder)
      assert.strictEqual(code, 0, output)
      for (const name of ["memory", ...servers]) written(name, output)
      const one = yield* run({
        DLOCK_REDIS_ENABLED: "0",
        DLOCK_MYSQL_ENABLED: "no",
        DLOCK_ETCD_ENABLED: "off",
        DLOCK_POSTGRES_ENABLED: "false"
      }, folder)
      assert.strictEqual(one.code, 0, one.output)
      written("zookeeper", one.output)
      assert.notInclude(one.output, "redis:", "a variable disables what the file enables")
    }))

  it.effect("takes no other down with one that is unreachable", () =>
    Effect.gen(function*() {
      const { variables } = yield* World
      const found = yield* Effect.gen(function*() {
        const error = yield* Effect.flip(LockRegistry.get("etcd"))
        return [error._tag, (yield* LockRegistry.get("redis")).backend]
      }).pipe(Effect.provide(registry({
        ...variables.redis,
        DLOCK_ETCD_ENABLED: "true",
        DLOCK_ETCD_ENDPOINTS: "127.0.0.1:1",
        DLOCK_ETCD_DIAL_TIMEOUT: "1s"
      })))
      assert.deepStrictEqual(found, ["LockBackendError", "redis"])
    }))

  it.effect("does not start on a wrong configuration, and says what is wrong with it", () =>
    Effect.gen(function*() {
      const { code, output } = yield* run({ DLOCK_REDIS_DB: "first", DLOCK_TTL: "30", DLOCK_REDIS_PASSWORD: "hunter2" })
      assert.strictEqual(code, 1)
      assert.include(output, "DLOCK_REDIS_DB: expected a whole number of at least 0, got \"first\"")
      assert.include(output, "DLOCK_TTL: expected a duration")
      assert.notInclude(output, "hunter2")
      const given = yield* run({ DLOCK_CONFIG: "gone.yaml" })
      assert.strictEqual(given.code, 1)
      assert.include(given.output, "gone.yaml (DLOCK_CONFIG): there is no such file")
    }))

  it.effect("finds no file where the folder of its default path is a file", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fs.makeTempDirectoryScoped()
      yield* fs.writeFileString(path.join(folder, "config"), "not a folder")
      yield* fs.makeDirectory(path.join(folder, "config.yaml"))
      const { code, output } = yield* run({ DLOCK_MEMORY_ENABLED: "true" }, folder)
      assert.strictEqual(code, 0, output)
      written("memory", output)
    }))
})
