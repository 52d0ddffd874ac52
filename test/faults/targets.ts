/**
 * Every backend, with its servers.
 */
import { Effect } from "effect"
import { etcd, etcdDivided } from "../harness/EtcdServer.ts"
import { mariadb, mysql } from "../harness/MysqlServer.ts"
import { pgbouncer, type Postgres, postgres } from "../harness/PostgresServer.ts"
import { redis, redisCluster, redisSentinel } from "../harness/RedisServer.ts"
import { onFreePorts, type Server } from "../harness/Server.ts"
import { zooKeeper } from "../harness/ZooKeeperServer.ts"
import { pair } from "../postgres/pair.ts"
import { dividedEnsemble } from "../zookeeper/support.ts"
import type { Promises } from "./checks/Promises.ts"
import * as Ledger from "./postgresLedger.ts"
import * as Residue from "./residue.ts"
import { addrsOf, roadsOf, type Start, type Target, type Way } from "./Target.ts"
import * as Verbs from "./verbs.ts"

const ttl = 2000
const commandTimeout = 1000

const base = {
  ttl,
  granularity: 0,
  deadWaiter: 0,
  commandTimeout,
  goesWithConnection: false,
  prompt: 800,
  fifo: true,
  turn: 20
} satisfies Promises

const anyOf = (servers: ReadonlyArray<Server>): Target["victim"] => (choose) => Effect.sync(() => choose(servers))

/** The leader as often as any other. */
const leaderOrAny =
  (servers: ReadonlyArray<Server>, leads: (server: Server) => Effect.Effect<boolean>): Target["victim"] => (choose) =>
    Effect.gen(function*() {
      const any = choose(servers)
      if (any !== servers[0]) return any
      const leaders = yield* Effect.filter(servers, leads, { concurrency: "unbounded" })
      return leaders[0] ?? any
    })

const nowhere = (): string => {
  throw new Error("there is no road")
}

const first = (addrs: ReadonlyArray<string>): string => addrs[0] ?? nowhere()

/** No server: what can be broken is the process. */
const memory: Start = Effect.succeed({
  promises: base,
  servers: [],
  reads: () => [],
  victim: () => Effect.succeed(undefined),
  connection: () => ({ kind: "memory" }),
  passes: true,
  forgets: {},
  settles: 0,
  wipes: false,
  layers: 3,
  workers: 1,
  watched: Effect.succeed({}),
  residue: () => Effect.succeed([])
})

const redisPromises: Promises = { ...base, deadWaiter: 2000 }

const redisSingle: Start = Effect.gen(function*() {
  const servers = [yield* redis({})]
  return {
    promises: redisPromises,
    servers,
    reads: Verbs.redis,
    victim: anyOf(servers),
    connection: (way) => ({ kind: "redis", addr: first(addrsOf(way)) }),
    passes: true,
    forgets: {},
    settles: 0,
    wipes: true,
    watched: Residue.redisWatched(servers),
    residue: Residue.redis(servers)
  } satisfies Target
})

const cluster: Start = Effect.gen(function*() {
  const { nodes } = yield* redisCluster()
  return {
    promises: redisPromises,
    servers: nodes,
    reads: Verbs.redis,
    victim: anyOf(nodes),
    connection: (way) => ({ kind: "redis-cluster", addrs: addrsOf(way), roads: roadsOf(nodes, way) }),
    passes: true,
    forgets: {},
    // The others take it for dead after two seconds, and notice that it is back.
    settles: 4000,
    wipes: false,
    watched: Residue.redisWatched(nodes),
    residue: Residue.redis(nodes)
  } satisfies Target
})

const sentinel: Start = Effect.gen(function*() {
  const { masterName, sentinels, servers } = yield* redisSentinel()
  const all = [...sentinels, ...servers]
  return {
    promises: redisPromises,
    servers: all,
    reads: Verbs.redis,
    victim: leaderOrAny(servers, Residue.isMaster),
    connection: (way) => ({
      kind: "redis-sentinel",
      addrs: addrsOf(way).slice(0, sentinels.length),
      masterName,
      roads: roadsOf(all, way)
    }),
    passes: true,
    forgets: { pause: "always", kill: "always" },
    // An old master is found, and told that it is none any more.
    settles: 12_000,
    wipes: false,
    watched: Residue.redisWatched(servers),
    residue: Residue.redis(servers)
  } satisfies Target
})

const redlock: Start = Effect.gen(function*() {
  const servers = yield* Effect.forEach([1, 2, 3], () => redis({}), { concurrency: "unbounded" })
  return {
    promises: { ...redisPromises, fifo: false },
    servers,
    reads: Verbs.redis,
    victim: anyOf(servers),
    connection: (way) => ({ kind: "redlock", nodes: addrsOf(way) }),
    passes: true,
    forgets: {},
    settles: 0,
    wipes: false,
    watched: Residue.redisWatched(servers),
    residue: Residue.redis(servers)
  } satisfies Target
})

// A lease lives on for half a second, and a new leader gives every lease its whole ttl once more.
const etcdPromises: Promises = { ...base, granularity: 1000, deadWaiter: ttl + 1000, prompt: 1500 }

const etcdTarget = (servers: ReadonlyArray<Server>, isolation?: Target["isolation"]): Target => ({
  isolation,
  promises: etcdPromises,
  servers,
  reads: Verbs.etcd,
  victim: leaderOrAny(servers, Residue.leadsEtcd),
  connection: (way) => ({ kind: "etcd", endpoints: addrsOf(way) }),
  passes: true,
  forgets: {},
  settles: servers.length === 1 ? ttl : ttl + 2000,
  wipes: false,
  watched: Residue.etcdWatched(servers),
  residue: Residue.etcd(servers)
})

const mysqlTarget = (server: Effect.Success<ReturnType<typeof mariadb>>): Target => ({
  // A server that waits for a lock on behalf of a client looks once a second whether the client is still there.
  promises: { ...base, granularity: 1000, deadWaiter: ttl + 1000, goesWithConnection: true, prompt: 2500 },
  servers: [server],
  reads: Verbs.mysql,
  victim: anyOf([server]),
  connection: (way) => ({
    kind: "mysql",
    addr: first(addrsOf(way)),
    username: server.username,
    password: server.password,
    database: server.database
  }),
  passes: true,
  // The locks die with the process; whose connection is open hears of it.
  forgets: { kill: "unheard" },
  settles: 0,
  wipes: false,
  watched: Effect.succeed({}),
  residue: Residue.mysql(server)
})

/** The same url over the first of the roads. */
const at = (url: string, way: Way): string => {
  const changed = new URL(url)
  changed.host = first(addrsOf(way))
  return changed.href
}

const postgresTarget = (server: Postgres): Target => ({
  promises: { ...base, deadWaiter: 2000 },
  servers: [server],
  reads: Verbs.postgres,
  passes: true,
  victim: anyOf([server]),
  connection: (way) => ({ kind: "postgres", url: at(server.url, way) }),
  forgets: {},
  settles: 0,
  wipes: false,
  watched: Residue.postgresWatched(server),
  residue: Residue.postgres(server)
})

/** A standby is promoted when the primary dies. An asynchronous one may not have heard of the last locks. */
const promoted = (isSynchronous: boolean): Start =>
  Effect.map(pair({ isSynchronous }), ({ front }) => ({
    ...postgresTarget(front),
    forgets: isSynchronous ? {} : { kill: "always" }
  }))

/** In transaction mode. No message gets through: a waiter looks every 0.6 s, and as long again may be spent on a dead one. */
const bounced: Start = Effect.gen(function*() {
  const server = yield* postgres({})
  const front = yield* pgbouncer(server)
  const target = postgresTarget(front)
  const servers = [front, server]
  return {
    ...target,
    promises: { ...target.promises, prompt: 1500 },
    servers,
    victim: anyOf(servers),
    watched: Effect.succeed({}),
    // The pooler keeps its own sessions, which bear the name of whom they last served.
    residue: (keys) =>
      Effect.map(Residue.postgres(server)(keys), (left) => left.filter((name) => !name.startsWith("dlock ")))
  } satisfies Target
})

/** Its workers write in fenced transactions as well. */
const fenced: Start = Effect.gen(function*() {
  const server = yield* postgres({})
  const { url } = server
  yield* Effect.orDie(Ledger.create(url))
  const target = postgresTarget(server)
  return {
    ...target,
    connection: (way) => ({ kind: "postgres", url: at(url, way), ledger: url }),
    ledger: Ledger.read(url)
  } satisfies Target
})

const zooKeeperTarget = (servers: ReadonlyArray<Server>, isolation?: Target["isolation"]): Target => ({
  isolation,
  // A tick; as long again for an election, after which every session has its whole time once more.
  promises: { ...base, granularity: 1000, deadWaiter: ttl + 1000, prompt: 1500 },
  servers,
  reads: Verbs.zooKeeper,
  victim: leaderOrAny(servers, Residue.leadsZooKeeper),
  connection: (way) => ({ kind: "zookeeper", servers: addrsOf(way), sessionTimeout: ttl }),
  passes: true,
  forgets: {},
  settles: servers.length === 1 ? ttl : ttl + 3000,
  wipes: false,
  watched: Residue.zooKeeperWatched(servers),
  residue: Residue.zooKeeper(servers)
})

/** By the names that the command takes. */
export const targets = {
  memory,
  redis: redisSingle,
  "redis-cluster": cluster,
  "redis-sentinel": sentinel,
  redlock,
  etcd: Effect.map(etcd({}), (server) => etcdTarget([server])),
  "etcd-cluster": Effect.map(etcdDivided, ({ nodes, ...isolation }) => etcdTarget(nodes, isolation)),
  mariadb: Effect.map(mariadb(), mysqlTarget),
  mysql: Effect.map(mysql(), mysqlTarget),
  postgres: Effect.map(postgres({}), postgresTarget),
  "postgres-fenced": fenced,
  "postgres-synchronous": promoted(true),
  "postgres-asynchronous": promoted(false),
  "postgres-pgbouncer": bounced,
  zookeeper: Effect.map(zooKeeper({}), (server) => zooKeeperTarget([server])),
  "zookeeper-ensemble": Effect.map(
    onFreePorts(dividedEnsemble),
    ({ nodes, ...isolation }) => zooKeeperTarget(nodes, isolation)
  )
} satisfies Record<string, Start>

/** The name of a backend with its servers. */
export type TargetName = keyof typeof targets

export const targetNames = Object.keys(targets) as ReadonlyArray<TargetName>
