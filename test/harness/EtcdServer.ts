/**
 * etcd: a single server, and a cluster of three.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { HarnessError } from "./HarnessError.ts"
import { type PeerGate, peerGate } from "./PeerGate.ts"
import { host, reserve } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Program from "./Program.ts"
import * as Server from "./Server.ts"

/** Of an etcd server. */
export interface Options {
  /** Default: the distribution's. */
  readonly version?: "3.4" | "3.5" | undefined
  /** More URLs for clients. Default: none. */
  readonly listen?: ReadonlyArray<string> | undefined
  /** More arguments of `etcd`. */
  readonly args?: ReadonlyArray<string> | undefined
}

interface Member {
  readonly name: string
  readonly client: number
  readonly peer: number
  /** Where the others call it. */
  readonly gate: number
}

const makeMember = (name: string): Effect.Effect<Member, HarnessError, Scope.Scope> =>
  Effect.map(Effect.all([reserve, reserve]), ([client, peer]) => ({ name, client, peer, gate: peer }))

const healthy = ({ client }: Member) =>
  ask({ host, port: client }, `GET /health HTTP/1.0\r\nHost: ${host}\r\n\r\n`, /"health"\s*:\s*"true"/)

const makeNode = (program: Program.Program, me: Member, all: ReadonlyArray<Member>, options: Options) =>
  Server.make({
    name: me.name,
    program,
    ports: [me.client, me.peer],
    inGroup: all.length > 1,
    command: (folder, bind) => [
      "etcd",
      `--name=${me.name}`,
      `--data-dir=${folder}/data`,
      `--listen-client-urls=${[`http://${bind}:${me.client}`, ...options.listen ?? []].join(",")}`,
      `--advertise-client-urls=http://${host}:${me.client}`,
      `--listen-peer-urls=http://${bind}:${me.peer}`,
      `--initial-advertise-peer-urls=http://${host}:${me.gate}`,
      `--initial-cluster=${all.map(({ gate, name }) => `${name}=http://${host}:${gate}`).join(",")}`,
      // Strangers who come upon our port do not join.
      `--initial-cluster-token=dlock-${all.map(({ peer }) => peer).join("-")}`,
      "--log-level=warn",
      ...options.args ?? []
    ],
    probe: healthy(me)
  })

const programOf = ({ version }: Options) => Program.find(version === undefined ? "etcd" : `etcd-${version}`)

const makeSingle = Effect.fnUntraced(function*(options: Options) {
  const me = yield* makeMember("etcd")
  return yield* makeNode(yield* programOf(options), me, [me], options)
})

const makeCluster = Effect.fnUntraced(function*(options: Options) {
  const program = yield* programOf(options)
  const members = yield* Effect.forEach(["etcd-1", "etcd-2", "etcd-3"], makeMember)
  // A member answers when there is a leader: they have to start together.
  return yield* Effect.forEach(members, (me) => makeNode(program, me, members, options), { concurrency: "unbounded" })
})

/**
 * An etcd server. `DLOCK_TEST_ETCD` is used when there are no options.
 */
export const etcd = (options?: Options): Effect.Effect<Server.Server, HarnessError, Scope.Scope> =>
  Effect.suspend(() => {
    const given = options === undefined ? Server.given("DLOCK_TEST_ETCD") : undefined
    return given === undefined ? Server.onFreePorts(makeSingle(options ?? {})) : Effect.succeed(given)
  })

/**
 * Three etcd servers that form a cluster, with a leader.
 */
export const etcdCluster = (
  options: Options = {}
): Effect.Effect<
  { readonly nodes: ReadonlyArray<Server.Server>, readonly endpoints: ReadonlyArray<string> },
  HarnessError,
  Scope.Scope
> =>
  Effect.map(
    Server.onFreePorts(makeCluster(options)),
    (nodes) => ({ nodes, endpoints: nodes.map(({ addr }) => addr) })
  )

const idOf = ({ addr }: Server.Server): Effect.Effect<string> =>
  Effect.promise(async () => {
    const answer = await fetch(`http://${addr}/v3/maintenance/status`, { method: "POST", body: "{}" })
    return BigInt(/"member_id":"(\d+)"/.exec(await answer.text())?.[1] ?? 0).toString(16)
  })

const makeDivided = Effect.gen(function*() {
  const program = yield* programOf({})
  const gates: Array<PeerGate> = []
  const members = yield* Effect.forEach(
    ["etcd-1", "etcd-2", "etcd-3"],
    Effect.fnUntraced(function*(name) {
      const member = yield* makeMember(name)
      const gate = yield* peerGate(member.peer)
      gates.push(gate)
      return { ...member, gate: gate.port }
    })
  )
  const nodes = yield* Effect.forEach(members, (me) => makeNode(program, me, members, {}), { concurrency: "unbounded" })
  const ids = yield* Effect.forEach(nodes, idOf)
  const shut = (isShut: (i: number, caller: string | undefined) => boolean) =>
    Effect.forEach(gates, (gate, i) => gate.close((caller) => isShut(i, caller)), { discard: true })
  return {
    nodes,
    isolate: (node: Server.Server) => {
      const me = nodes.indexOf(node)
      return shut((i, caller) => i === me || caller === ids[me])
    },
    heal: shut(() => false)
  }
})

/**
 * Three etcd servers that form a cluster, any of which can be cut off from the others; clients still reach it.
 */
export const etcdDivided: Effect.Effect<
  {
    readonly nodes: ReadonlyArray<Server.Server>
    readonly isolate: (node: Server.Server) => Effect.Effect<void>
    readonly heal: Effect.Effect<void>
  },
  HarnessError,
  Scope.Scope
> = Server.onFreePorts(makeDivided)
