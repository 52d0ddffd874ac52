/**
 * Redis: a single server, a cluster, and a master with replicas and sentinels.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Fs from "node:fs"
import type { HarnessError } from "./HarnessError.ts"
import { host, reserve, reserveMany } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Program from "./Program.ts"
import * as Server from "./Server.ts"

/** Which server: the distribution's Redis, or a newer one. */
export type Kind = "redis" | "redis-8" | "valkey-9"

/** Of a Redis server. */
export interface Options {
  /** Default: the distribution's Redis. */
  readonly kind?: Kind | undefined
  /** More arguments of `redis-server`; they win over the harness's. */
  readonly args?: ReadonlyArray<string> | undefined
  readonly password?: string | undefined
}

const flags = (settings: Record<string, string>): ReadonlyArray<string> =>
  Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])

/** A question in Redis's own protocol. */
const command = (...words: ReadonlyArray<string>): string =>
  [`*${words.length}`, ...words.flatMap((word) => [`$${word.length}`, word]), ""].join("\r\n")

const ping = (port: number, password?: string) =>
  ask({ host, port }, (password === undefined ? "" : command("AUTH", password)) + command("PING"), /\+PONG\r\n/)

interface Node extends Options {
  readonly name: string
  readonly port: number
  readonly inGroup: boolean
}

const makeNode = Effect.fnUntraced(function*({ args = [], inGroup, kind = "redis", name, password, port }: Node) {
  return yield* Server.make({
    name,
    program: yield* Program.find(kind),
    ports: [port],
    inGroup,
    command: (folder, bind) => [
      "redis-server",
      ...flags({
        port: `${port}`,
        bind,
        "protected-mode": "no",
        dir: `${folder}/data`,
        // A kill of the process loses nothing that was answered, and nothing is ever synced to disk.
        save: "",
        appendonly: "yes",
        appendfsync: "no"
      }),
      ...(password === undefined ? [] : flags({ requirepass: password })),
      ...args
    ],
    probe: ping(port, password)
  })
})

const makeSingle = Effect.fnUntraced(function*(options: Options) {
  return yield* makeNode({ ...options, name: "redis", port: yield* reserve, inGroup: false })
})

/**
 * A Redis server. It keeps its data over `kill` and `start`, unless `args` say otherwise. `DLOCK_TEST_REDIS` is used
 * when there are no options.
 */
export const redis = (options?: Options): Effect.Effect<Server.Server, HarnessError, Scope.Scope> =>
  Effect.suspend(() => {
    const given = options === undefined ? Server.given("DLOCK_TEST_REDIS") : undefined
    return given === undefined ? Server.onFreePorts(makeSingle(options ?? {})) : Effect.succeed(given)
  })

const slots = 16384

// A replica would else wait five seconds for others to copy at the same time.
const quickReplication = flags({ "repl-diskless-sync-delay": "0" })

const clusterArgs = [
  ...flags({ "cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-node-timeout": "2000" }),
  ...quickReplication
]

const replicationIsUp = (port: number) => ask({ host, port }, command("INFO", "replication"), /master_link_status:up/)

/** Repeats a command until it has taken effect; an answer that it was done before counts. */
const tell = (port: number, expected: RegExp, ...words: ReadonlyArray<string>) =>
  Server.untilAnswered("redis-cluster", ask({ host, port }, command("CLUSTER", ...words), expected))

const makeCluster = Effect.fnUntraced(function*(masters: number, replicasOfEach: number, kind: Kind) {
  const ports = yield* reserveMany(masters * (1 + replicasOfEach))
  const nodes = yield* Effect.forEach(
    ports,
    (port, i) => makeNode({ kind, name: `redis-cluster-${i + 1}`, port, inGroup: true, args: clusterArgs }),
    { concurrency: "unbounded" }
  )
  const [seed = 0, ...others] = ports
  for (const [i, port] of ports.entries()) {
    yield* tell(port, /\+OK|already/, "SET-CONFIG-EPOCH", `${i + 1}`)
    if (i >= masters) continue
    const [from, to] = [i, i + 1].map((n) => Math.floor(n * slots / masters))
    yield* tell(port, /\+OK|already busy/, "ADDSLOTSRANGE", `${from}`, `${(to ?? slots) - 1}`)
  }
  for (const port of others) yield* tell(seed, /\+OK/, "MEET", host, `${port}`)
  for (const port of ports) yield* tell(port, new RegExp(`cluster_known_nodes:${ports.length}\r`), "INFO")
  for (const [i, port] of ports.entries()) {
    if (i < masters) continue
    const master = yield* tell(ports[i % masters] ?? seed, /\r\n[0-9a-f]{40}\r\n/, "MYID")
    yield* tell(port, /\+OK/, "REPLICATE", master.split("\r\n")[1] ?? "")
    yield* Server.untilAnswered("redis-cluster", replicationIsUp(port))
  }
  for (const port of ports) yield* tell(port, /cluster_state:ok[^]*cluster_slots_ok:16384\r/, "INFO")
  return { nodes, addrs: nodes.map(({ addr }) => addr) }
})

/**
 * A Redis Cluster of three masters, each with as many replicas (default: none). Its state is "ok" on every node.
 */
export const redisCluster = (
  options: { readonly replicas?: number | undefined, readonly kind?: Kind | undefined } = {}
): Effect.Effect<
  { readonly nodes: ReadonlyArray<Server.Server>, readonly addrs: ReadonlyArray<string> },
  HarnessError,
  Scope.Scope
> => Server.onFreePorts(makeCluster(3, options.replicas ?? 0, options.kind ?? "redis"))

const masterName = "mymaster"

const makeSentinel = Effect.fnUntraced(function*(name: string, port: number, master: number) {
  return yield* Server.make({
    name,
    program: yield* Program.find("redis"),
    ports: [port],
    inGroup: true,
    // A sentinel keeps what it learns in its configuration file.
    prepare: (folder) =>
      Effect.sync(() =>
        Fs.writeFileSync(
          `${folder}/data/sentinel.conf`,
          [
            `port ${port}`,
            `bind ${host}`,
            `dir ${folder}/data`,
            `sentinel monitor ${masterName} ${host} ${master} 2`,
            `sentinel down-after-milliseconds ${masterName} 1000`,
            `sentinel failover-timeout ${masterName} 5000`,
            ""
          ].join("\n")
        )
      ),
    command: (folder) => ["redis-server", `${folder}/data/sentinel.conf`, "--sentinel"],
    probe: ping(port)
  })
})

const makeSentinels = Effect.gen(function*() {
  const [master = 0, ...replicas] = yield* reserveMany(3)
  const servers = yield* Effect.forEach(
    [master, ...replicas],
    (port, i) =>
      makeNode({
        name: `redis-${i + 1}`,
        port,
        inGroup: true,
        args: port === master ? quickReplication : [...quickReplication, "--replicaof", host, `${master}`]
      }),
    { concurrency: "unbounded" }
  )
  for (const port of replicas) yield* Server.untilAnswered("redis", replicationIsUp(port))
  const sentinels = yield* Effect.forEach(
    yield* reserveMany(3),
    (port, i) => makeSentinel(`redis-sentinel-${i + 1}`, port, master),
    { concurrency: "unbounded" }
  )
  for (const { port } of sentinels) {
    const knows = (expected: RegExp, ...words: ReadonlyArray<string>) =>
      Server.untilAnswered("redis-sentinel", ask({ host, port }, command("SENTINEL", ...words, masterName), expected))
    yield* knows(/^\+OK 3 usable/, "CKQUORUM")
    yield* knows(/num-slaves\r\n\$1\r\n2\r\n/, "MASTER")
  }
  return { masterName, servers, sentinels, addrs: sentinels.map(({ addr }) => addr) }
})

/**
 * A master with two replicas (`servers`, the master first) and three sentinels that know each other and them. The
 * master counts as down after one second.
 */
export const redisSentinel = (): Effect.Effect<
  {
    readonly masterName: string
    readonly servers: ReadonlyArray<Server.Server>
    readonly sentinels: ReadonlyArray<Server.Server>
    /** Of the sentinels. */
    readonly addrs: ReadonlyArray<string>
  },
  HarnessError,
  Scope.Scope
> => Server.onFreePorts(makeSentinels)
