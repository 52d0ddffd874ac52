/**
 * ZooKeeper: a single server, and an ensemble of three.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Fs from "node:fs"
import type { HarnessError } from "./HarnessError.ts"
import { host, reserve } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Program from "./Program.ts"
import * as Server from "./Server.ts"

/** Of a ZooKeeper server. */
export interface Options {
  /** Default: the distribution's. */
  readonly version?: "3.8" | "3.9" | undefined
  /** Milliseconds; sessions expire on multiples of it. Default 500. */
  readonly tickTime?: number | undefined
  /** More lines for its configuration, each `name=value`. */
  readonly settings?: ReadonlyArray<string> | undefined
  /** Properties of its Java machine, each `name=value`. */
  readonly properties?: ReadonlyArray<string> | undefined
}

/** A member of an ensemble, by its ports. */
export interface Member {
  readonly id: number
  readonly client: number
  readonly quorum: number
  readonly election: number
}

const makeMember = (id: number): Effect.Effect<Member, HarnessError, Scope.Scope> =>
  Effect.all({ id: Effect.succeed(id), client: reserve, quorum: reserve, election: reserve })

const configuration = (
  folder: string,
  me: Member,
  all: ReadonlyArray<Member>,
  bind: string,
  { settings = [], tickTime = 500 }: Options
): string =>
  [
    `tickTime=${tickTime}`,
    "initLimit=10",
    "syncLimit=5",
    `dataDir=${folder}/data`,
    `clientPortAddress=${bind}`,
    `clientPort=${me.client}`,
    // Sixty connections from one address would be the default.
    "maxClientCnxns=0",
    "minSessionTimeout=1000",
    "maxSessionTimeout=60000",
    "admin.enableServer=false",
    "4lw.commands.whitelist=*",
    ...settings,
    ...(all.length === 1 ? [] : all.map(({ election, id, quorum }) => `server.${id}=${host}:${quorum}:${election}`)),
    ""
  ].join("\n")

const makeNode = (program: Program.Program, me: Member, all: ReadonlyArray<Member>, options: Options) =>
  Server.make({
    name: all.length === 1 ? "zookeeper" : `zookeeper-${me.id}`,
    program,
    ports: [me.client, me.quorum, me.election],
    inGroup: all.length > 1,
    prepare: (folder) =>
      Effect.sync(() => {
        if (all.length > 1) Fs.writeFileSync(`${folder}/data/myid`, `${me.id}\n`)
      }),
    command: (folder, bind) => {
      Fs.writeFileSync(`${folder}/zoo.cfg`, configuration(folder, me, all, bind, options))
      return [
        "java",
        "-Xmx256m",
        // No folder of statistics is left in /tmp.
        "-XX:-UsePerfData",
        // It starts in a third of the time without the optimising compiler.
        "-XX:TieredStopAtLevel=1",
        // And with a fifth less of the processor without the collector for large heaps.
        "-XX:+UseSerialGC",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ...(options.properties ?? []).map((property) => `-D${property}`),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        `${folder}/zoo.cfg`
      ]
    },
    probe: ask({ host, port: me.client }, "srvr", /^Mode: /m)
  })

const programOf = ({ version }: Options) => Program.find(version === undefined ? "zookeeper" : `zookeeper-${version}`)

const makeSingle = Effect.fnUntraced(function*(options: Options) {
  const me = yield* makeMember(1)
  return yield* makeNode(yield* programOf(options), me, [me], options)
})

/** Where a member reaches another one. */
export type SeenBy = (me: Member, other: Member) => Effect.Effect<Member, HarnessError, Scope.Scope>

const makeEnsemble = Effect.fnUntraced(function*(options: Options, seenBy: SeenBy) {
  const program = yield* programOf(options)
  const members = yield* Effect.forEach([1, 2, 3], makeMember)
  const start = Effect.fnUntraced(function*(me: Member) {
    const all = yield* Effect.forEach(members, (other) => other === me ? Effect.succeed(me) : seenBy(me, other))
    return yield* makeNode(program, me, all, options)
  })
  // A member answers when there is a leader: they have to start together.
  return yield* Effect.forEach(members, start, { concurrency: "unbounded" })
})

/**
 * A ZooKeeper server; the shortest session is one second. `DLOCK_TEST_ZOOKEEPER` is used when there are no options.
 */
export const zooKeeper = (options?: Options): Effect.Effect<Server.Server, HarnessError, Scope.Scope> =>
  Effect.suspend(() => {
    const given = options === undefined ? Server.given("DLOCK_TEST_ZOOKEEPER") : undefined
    return given === undefined ? Server.onFreePorts(makeSingle(options ?? {})) : Effect.succeed(given)
  })

/**
 * Three ZooKeeper servers that form an ensemble, with a leader.
 */
export const zooKeeperEnsemble = (
  options: Options = {},
  seenBy: SeenBy = (_, other) => Effect.succeed(other)
): Effect.Effect<
  { readonly nodes: ReadonlyArray<Server.Server>, readonly servers: ReadonlyArray<string> },
  HarnessError,
  Scope.Scope
> =>
  Effect.map(
    Server.onFreePorts(makeEnsemble(options, seenBy)),
    (nodes) => ({ nodes, servers: nodes.map(({ addr }) => addr) })
  )
