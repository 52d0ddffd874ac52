import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Schedule } from "effect"
import type { Scope } from "effect"
import { createConnection } from "mysql2/promise"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { etcd } from "./harness/EtcdServer.ts"
import { HarnessError } from "./harness/HarnessError.ts"
import { mariadb, mysql } from "./harness/MysqlServer.ts"
import type { Credentials } from "./harness/MysqlServer.ts"
import { host, reserveMany } from "./harness/Port.ts"
import { ask } from "./harness/Probe.ts"
import { makeFolder, removeFolder, rootFolder, script } from "./harness/Process.ts"
import { available } from "./harness/Program.ts"
import { redis } from "./harness/RedisServer.ts"
import { onFreePorts } from "./harness/Server.ts"
import type { Server } from "./harness/Server.ts"
import { zooKeeper } from "./harness/ZooKeeperServer.ts"

const http = (path: string, body: string): string =>
  `POST ${path} HTTP/1.0\r\nContent-Length: ${body.length}\r\n\r\n${body}`

const query = (server: Server & Credentials, sql: string): Effect.Effect<unknown, Error> =>
  Effect.tryPromise({
    try: async () => {
      const { database, host, password, port, username: user } = server
      const connection = await createConnection({ host, port, user, password, database })
      return connection.query(sql).finally(() => connection.destroy())
    },
    catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
  })

/** What is done to a server to see whether it keeps its data. */
interface Memory {
  readonly write: Effect.Effect<unknown, unknown>
  /** Fails when the server does not know it. */
  readonly read: Effect.Effect<unknown, unknown>
}

const inRedis = (server: Server): Memory => ({
  write: ask(server, "SET k v\r\n", /^\+OK/),
  read: ask(server, "GET k\r\n", /^\$1\r\nv\r\n/)
})

const inEtcd = (server: Server): Memory => ({
  write: ask(server, http("/v3/kv/put", `{"key":"aw==","value":"dg=="}`), /"revision"/),
  read: ask(server, http("/v3/kv/range", `{"key":"aw=="}`), /"value":\s*"dg=="/)
})

const inMysql = (server: Server & Credentials): Memory => ({
  write: query(server, "CREATE TABLE t (k INT)"),
  read: query(server, "SELECT * FROM t")
})

interface Case {
  readonly make: Effect.Effect<readonly [Server, Memory?], HarnessError, Scope.Scope>
  /** A question in the server's own protocol, and how its answer begins. */
  readonly greeting: readonly [question: string, answer: RegExp]
  readonly runs?: boolean
}

const cases: Record<string, Case> = {
  Redis: {
    make: Effect.map(redis({}), (server) => [server, inRedis(server)]),
    greeting: ["PING\r\n", /^\+PONG\r\n/]
  },
  "Redis with a password": {
    make: Effect.map(redis({ password: "secret" }), (server) => [server]),
    greeting: ["PING\r\n", /^-NOAUTH/]
  },
  etcd: {
    make: Effect.map(etcd({}), (server) => [server, inEtcd(server)]),
    greeting: ["GET /health HTTP/1.0\r\n\r\n", /"health":\s*"true"/]
  },
  "etcd 3.5": {
    make: Effect.map(etcd({ version: "3.5" }), (server) => [server, inEtcd(server)]),
    greeting: ["GET /version HTTP/1.0\r\n\r\n", /"etcdserver":\s*"3\.5\./],
    runs: available("etcd-3.5")
  },
  MariaDB: {
    make: Effect.map(mariadb(), (server) => [server, inMysql(server)]),
    greeting: ["", /^[^]{4}\n[^\0]*MariaDB/]
  },
  MySQL: {
    make: Effect.map(mysql(), (server) => [server, inMysql(server)]),
    greeting: ["", /^[^]{4}\n(?![^\0]*MariaDB)/],
    runs: available("mysql")
  },
  ZooKeeper: {
    make: Effect.map(zooKeeper({}), (server) => [server]),
    greeting: ["ruok", /^imok/]
  },
  "ZooKeeper 3.9": {
    make: Effect.map(zooKeeper({ version: "3.9" }), (server) => [server]),
    greeting: ["srvr", /^Zookeeper version: 3\.9\./],
    runs: available("zookeeper-3.9")
  }
}

describe.concurrent("a server", () => {
  for (const [name, { greeting: [question, answer], make, runs = true }] of Object.entries(cases)) {
    it.live.skipIf(!runs)(`${name}: paused, resumed, killed, started, wiped`, () =>
      Effect.gen(function*() {
        const [server, memory] = yield* make
        const greet = ask(server, question, answer)
        yield* greet
        if (memory !== undefined) yield* memory.write

        yield* server.pause
        assert.strictEqual((yield* Effect.flip(greet)).received, "", "a paused server says nothing")
        yield* server.resume
        yield* greet

        yield* server.kill
        yield* Effect.flip(greet)
        yield* server.start
        yield* greet
        if (memory !== undefined) yield* memory.read

        assert.include((yield* Effect.flip(server.wipe)).message, "kill it first", "only the dead are wiped")
        yield* server.pause
        yield* server.kill
        yield* server.wipe
        yield* server.start
        yield* greet
        if (memory !== undefined) yield* Effect.flip(memory.read)
      }))
  }
})

/** The folders of servers; the first data folders are kept beside them. */
const foldersIn = (folder: string): ReadonlyArray<string> =>
  Fs.readdirSync(folder).filter((name) => !name.startsWith("initialised-"))

/** The processes whose working folder is in this one. */
const processesIn = (folder: string): ReadonlyArray<string> =>
  Fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return Fs.readlinkSync(`/proc/${pid}/cwd`).startsWith(folder)
    } catch {
      return false
    }
  })

const until = (condition: () => boolean, message: string): Effect.Effect<void> =>
  Effect.sync(condition).pipe(
    Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(new Error(`never: ${message}`)) }),
    Effect.asVoid
  )

describe("nothing is left behind", () => {
  it.live("when scopes close", () =>
    Effect.gen(function*() {
      const folder = rootFolder()
      assert.deepStrictEqual(processesIn(folder), [], "the servers of the tests above are gone")
      assert.deepStrictEqual(foldersIn(folder), [], "and so are their folders")
      yield* Effect.scoped(Effect.gen(function*() {
        yield* (yield* redis({})).pause
        assert.strictEqual(processesIn(folder).length, 1, "a server runs")
      }))
      assert.deepStrictEqual(processesIn(folder), [], "a paused server is killed as well")
      assert.deepStrictEqual(foldersIn(folder), [], "its folder is removed")
    }))

  it.live("when a start is interrupted", () =>
    Effect.gen(function*() {
      const folder = rootFolder()
      Fs.rmSync(`${folder}/initialised-mariadb`, { recursive: true, force: true })
      const starting = yield* Effect.forkChild(Effect.scoped(mariadb()))
      // The first program of a start has children of its own.
      yield* until(() => processesIn(folder).length >= 2, "the programs of a start run")
      yield* Fiber.interrupt(starting)
      yield* until(() => processesIn(folder).length === 0, "they are gone")
      assert.deepStrictEqual(foldersIn(folder), [], "their folder is removed")
    }))

  for (const [way, signal] of [["bare", "SIGINT"], ["bare", "SIGKILL"], ["effect", "SIGTERM"]] as const) {
    it.live(`when the test process is ended by ${signal} (${way})`, () =>
      Effect.gen(function*() {
        const folder = Fs.mkdtempSync(Path.join(rootFolder(), "orphans-"))
        const isEmpty = () => processesIn(folder).length === 0 && Fs.readdirSync(folder).length === 0
        yield* Effect.addFinalizer(() =>
          Effect.andThen(until(isEmpty, "the reaper is done"), Effect.sync(() => Fs.rmdirSync(folder)))
        )
        const node = fileURLToPath(new URL("../node_modules/.bin/node", import.meta.url))
        const child = ChildProcess.spawn(node, [script("holdServers.ts"), way], {
          detached: true,
          stdio: ["ignore", "pipe", "inherit"],
          env: { ...process.env, DLOCK_TEST_TMP: folder }
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
        yield* Effect.callback<void>((resume) => {
          child.stdout.once("data", () => resume(Effect.void))
        })
        assert.strictEqual(processesIn(folder).length, 2, "two servers run, one of them paused")
        // As Ctrl-C does, to the whole group.
        process.kill(-(child.pid ?? 0), signal)
        yield* until(() => processesIn(folder).length === 0, "no process is left")
        yield* until(() => Fs.readdirSync(folder).length === 0, "no folder is left")
      }))
  }
})

describe("finding and failing", () => {
  it.live("a server that cannot start says why", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(redis({ args: ["--no-such-setting", "1"] }))
      assert.strictEqual(error._tag, "HarnessError")
      assert.include(error.message, "no-such-setting", "its own words")
    }))

  it.live("a server given by its address is used as it is, and not harmed", () =>
    Effect.gen(function*() {
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          process.env.DLOCK_TEST_REDIS = "example.org:1234"
        }),
        () =>
          Effect.sync(() => {
            delete process.env.DLOCK_TEST_REDIS
          })
      )
      const server = yield* redis()
      assert.deepStrictEqual([server.host, server.port, server.addr], ["example.org", 1234, "example.org:1234"])
      const exit = yield* Effect.exit(server.kill)
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, HarnessError)
      assert.instanceOf(yield* Effect.flip(server.start), HarnessError)
      const own = yield* redis({})
      assert.strictEqual(own.host, host, "a server with options is started")
    }))

  /** A folder with a program in it, and what a run of something sees that has it first on its PATH. */
  const withFake = Effect.fnUntraced(function*(name: string, text: string) {
    const folder = yield* Effect.acquireRelease(makeFolder("fake"), removeFolder)
    Fs.writeFileSync(Path.join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
    const run = (program: string, ...args: ReadonlyArray<string>) =>
      ChildProcess.spawnSync(program, args, {
        encoding: "utf8",
        env: { ...process.env, PATH: `${folder}:${process.env.PATH}` }
      })
    return { folder, run }
  })

  it.live("a program that does not say its version is not taken for MySQL", () =>
    Effect.gen(function*() {
      const { folder, run } = yield* withFake("mysqld", "exit 1")
      const look = `import("${new URL("harness/Catalog.ts", import.meta.url).href}")
        .then(({ catalog }) => console.log("found", catalog.mysql.local()?.([])[0]))`
      const { stdout } = run(process.execPath, "-e", look)
      assert.include(stdout, "found")
      assert.notInclude(stdout, folder)
    }))

  // It writes the policy for services.
  it.live.skipIf(process.getuid?.() !== 0)(
    "an installation waits for another one that is under way",
    () =>
      Effect.gen(function*() {
        const { folder, run } = yield* withFake(
          "apt-get",
          `cd "$(dirname "$0")" && echo "$@" >> asked
[ "$(wc -l < asked)" -ge 2 ] || { echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1"; exit 100; }`
        )
        const { status, stdout } = run("/bin/sh", script("install.sh"), Path.join(folder, "lock"), "some-package")
        assert.strictEqual(status, 0, stdout)
        const asked = Fs.readFileSync(Path.join(folder, "asked"), "utf8").trimEnd().split("\n")
        assert.deepStrictEqual(asked.map((line) => / (update|install) /.exec(`${line} `)?.[1]), [
          "update",
          "update",
          "install"
        ])
      })
  )

  it.live("ports are different, below the ephemeral ones, and free again", () =>
    Effect.gen(function*() {
      const ports = yield* reserveMany(200)
      assert.strictEqual(new Set(ports).size, 200, "no port twice")
      for (const port of ports) assert.isBelow(port + 10_000, 32_768, "also the port of the cluster bus")
    }))

  it.effect("servers whose port was taken are built again, and the first are given up", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const made = yield* onFreePorts(Effect.gen(function*() {
        yield* Effect.addFinalizer(() => Effect.sync(() => events.push("given up")))
        events.push("made")
        if (events.length === 1) {
          return yield* new HarnessError({ server: "x", problem: "its port is taken", addressInUse: true })
        }
        return events.length
      }))
      assert.strictEqual(made, 3)
      assert.deepStrictEqual(events, ["made", "given up", "made"])
    }))

  it.effect("a server starts in real time also in a test of virtual time", () =>
    Effect.gen(function*() {
      const server = yield* redis({})
      yield* ask(server, "PING\r\n", /^\+PONG/)
    }))
})
