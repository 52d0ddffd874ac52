/**
 * An ensemble whose members see each other through proxies, so that one can be cut off from the others.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Fs from "node:fs"
import type { HarnessError } from "../harness/HarnessError.ts"
import { host, reserve } from "../harness/Port.ts"
import { ask } from "../harness/Probe.ts"
import * as Program from "../harness/Program.ts"
import type { Proxy } from "../harness/Proxy.ts"
import { proxy } from "../harness/Proxy.ts"
import * as Server from "../harness/Server.ts"
import { fourLetterWord } from "./support.ts"

export interface DividedEnsemble {
  readonly nodes: ReadonlyArray<Server.Server>
  readonly servers: ReadonlyArray<string>
  /** Cuts a member off from the others; clients still reach it. */
  readonly isolate: (node: Server.Server) => Effect.Effect<void>
  readonly heal: Effect.Effect<void>
}

const ids = [1, 2, 3] as const

const line = (id: number, quorum: number, election: number): string => `server.${id}=${host}:${quorum}:${election}`

export const modeOf = (node: Server.Server): Effect.Effect<string | undefined> =>
  Effect.map(fourLetterWord(node.port, "srvr"), (text) => /^Mode: (.*)$/m.exec(text)?.[1])

/** Three members, with a tick of half a second. */
export const dividedEnsemble: Effect.Effect<DividedEnsemble, HarnessError, Scope.Scope> = Effect.gen(function*() {
  const program = yield* Program.find("zookeeper")
  const members = yield* Effect.forEach(
    ids,
    (id) => Effect.all({ id: Effect.succeed(id), client: reserve, quorum: reserve, election: reserve })
  )
  const roads: Array<{ readonly ends: ReadonlyArray<number>, readonly road: Proxy }> = []
  const roadTo = Effect.fnUntraced(function*(from: number, to: number, port: number) {
    const road = yield* proxy({ host, port })
    roads.push({ ends: [from, to], road })
    return road.port
  })
  const nodes = yield* Effect.forEach(
    members,
    Effect.fnUntraced(function*(me) {
      const view = yield* Effect.forEach(
        members,
        Effect.fnUntraced(function*({ election, id, quorum }) {
          if (id === me.id) return line(id, quorum, election)
          return line(id, yield* roadTo(me.id, id, quorum), yield* roadTo(me.id, id, election))
        })
      )
      return yield* Server.make({
        name: `zookeeper-${me.id}`,
        program,
        ports: [me.client, me.quorum, me.election],
        inGroup: true,
        prepare: (folder) => Effect.sync(() => Fs.writeFileSync(`${folder}/data/myid`, `${me.id}\n`)),
        command: (folder, bind) => {
          const configuration = [
            "tickTime=500",
            "initLimit=10",
            "syncLimit=5",
            `dataDir=${folder}/data`,
            `clientPortAddress=${bind}`,
            `clientPort=${me.client}`,
            "maxClientCnxns=0",
            "minSessionTimeout=1000",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            ...view
          ]
          Fs.writeFileSync(`${folder}/zoo.cfg`, `${configuration.join("\n")}\n`)
          const main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
          return [
            "java",
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            "-Dzookeeper.jmx.log4j.disable=true",
            main,
            `${folder}/zoo.cfg`
          ]
        },
        probe: ask({ host, port: me.client }, "srvr", /^Mode: /m)
      })
    }),
    { concurrency: ids.length }
  )
  return {
    nodes,
    servers: nodes.map(({ addr }) => addr),
    isolate: (node) => {
      const id = nodes.indexOf(node) + 1
      return Effect.forEach(roads, ({ ends, road }) => ends.includes(id) ? road.blackhole() : Effect.void, {
        discard: true
      })
    },
    heal: Effect.forEach(roads, ({ road }) => road.pass, { discard: true })
  }
})
