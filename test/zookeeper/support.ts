/**
 * ZooKeeper servers for tests, a bare client to look behind the backend's back, and what the conformance suite needs to
 * know of the backend.
 */
import { LockBackend } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert } from "@effect/vitest"
import { Context, Effect, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import { createHash } from "node:crypto"
import { createRequire } from "node:module"
import * as Net from "node:net"
import type { HarnessError } from "../harness/HarnessError.ts"
import { host } from "../harness/Port.ts"
import { type Proxy, proxy } from "../harness/Proxy.ts"
import type { Server } from "../harness/Server.ts"
import * as Harness from "../harness/ZooKeeperServer.ts"

/** Fails when the property does not come true. */
export const limit = (property: string) =>
  Effect.timeoutOrElse({
    duration: "30 seconds",
    orElse: () => Effect.sync(() => assert.fail(`${property}, within 30 seconds`))
  })

/** What the tests use of the driver, which has no types. */
interface Driver extends ZooKeeperLock.Client {
  readonly connect: () => void
  readonly close: () => void
  readonly addAuthInfo: (scheme: string, auth: Buffer) => void
  readonly getSessionPassword: () => Buffer
  readonly once: (event: string, listener: () => void) => void
  readonly getChildren: (path: string, callback: (error: DriverError | null, names: Array<string>) => void) => void
  readonly exists: (path: string, callback: (error: DriverError | null, stat: Stat | null) => void) => void
  readonly getACL: (path: string, callback: (error: DriverError | null, acl: Array<Acl>) => void) => void
  readonly getData: (path: string, callback: (error: DriverError | null, data: Buffer | undefined) => void) => void
  readonly create: (
    path: string,
    data: Buffer,
    mode: number,
    callback: (error: DriverError | null, path: string) => void
  ) => void
  readonly setACL: (path: string, acl: ReadonlyArray<object>, callback: (error: DriverError | null) => void) => void
  readonly remove: (path: string, callback: (error: DriverError | null) => void) => void
  readonly mkdirp: (path: string, callback: (error: DriverError | null) => void) => void
}

interface DriverError {
  readonly name: string
}

interface Stat {
  readonly czxid: Buffer
  readonly ephemeralOwner: Buffer
}

interface Acl {
  readonly permission: number
  readonly id: { readonly scheme: string, readonly id: string }
}

const { ACL, Id, createClient }: {
  readonly createClient: (servers: string, options: object) => Driver
  readonly ACL: new(permission: number, id: object) => object
  readonly Id: new(scheme: string, id: string) => object
} = createRequire(import.meta.url)("node-zookeeper-client")

/** A connected client of the bare driver, whose session ends with the scope. */
export const connect = (
  servers: ReadonlyArray<string>,
  options: { readonly sessionTimeout?: number, readonly digest?: string, readonly session?: Driver } = {}
): Effect.Effect<Driver, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Driver>((resume) => {
      const driver = createClient(servers.join(","), {
        sessionTimeout: options.sessionTimeout ?? 10_000,
        ...(options.session !== undefined && {
          sessionId: options.session.getSessionId(),
          sessionPassword: options.session.getSessionPassword()
        })
      })
      if (options.digest !== undefined) driver.addAuthInfo("digest", Buffer.from(options.digest))
      driver.once("connected", () => resume(Effect.succeed(driver)))
      driver.connect()
    }),
    (driver) =>
      Effect.callback<void>((resume) => {
        driver.once("disconnected", () => resume(Effect.void))
        driver.close()
      }).pipe(Effect.timeoutOption("1 second"))
  )

const ask = <A>(
  send: (callback: (error: DriverError | null, answer: A) => void) => void
): Effect.Effect<A, DriverError> =>
  Effect.callback((resume) =>
    send((error, answer) => resume(error === null || error === undefined ? Effect.succeed(answer) : Effect.fail(error)))
  )

/** A server may be behind the others, or go away: behind a write that it answered it tells what is. */
const read = <A>(
  driver: Driver,
  send: (callback: (error: DriverError | null, answer: A) => void) => void
): Effect.Effect<A, DriverError> =>
  Effect.retry(
    Effect.andThen(
      Effect.catch(remove(driver, "/nowhere"), (error) => error.name === "NO_NODE" ? Effect.void : Effect.fail(error)),
      ask(send)
    ),
    { while: (error) => error.name === "CONNECTION_LOSS", times: 20, schedule: Schedule.spaced("100 millis") }
  )

export const childrenOf = (driver: Driver, path: string): Effect.Effect<ReadonlyArray<string>> =>
  read<Array<string>>(driver, (callback) => driver.getChildren(path, callback)).pipe(
    Effect.catch((error) => error.name === "NO_NODE" ? Effect.succeed([]) : Effect.die(error))
  )

export const statOf = (driver: Driver, path: string): Effect.Effect<Stat | null, DriverError> =>
  read(driver, (callback) => driver.exists(path, callback))

export const aclOf = (driver: Driver, path: string) =>
  read<Array<Acl>>(driver, (callback) => driver.getACL(path, callback))

export const dataOf = (driver: Driver, path: string) =>
  read<Buffer | undefined>(driver, (callback) => driver.getData(path, callback))

/** 0: persistent, 1: ephemeral, 3: ephemeral and sequential. */
export const create = (driver: Driver, path: string, mode: 0 | 1 | 3 = 0, data: Buffer = Buffer.from("test")) =>
  ask<string>((callback) => driver.create(path, data, mode, callback))

export const mkdirp = (driver: Driver, path: string) => ask<void>((callback) => driver.mkdirp(path, (e) => callback(e)))

/** Replaces the rights to a node: pairs of a user, as `name:password`, and the sum of its rights. */
export const grant = (driver: Driver, path: string, ...rights: ReadonlyArray<readonly [string, number]>) => {
  const acl = rights.map(([user, permission]) => {
    const hash = createHash("sha1").update(user).digest("base64")
    return new ACL(permission, new Id("digest", `${user.split(":")[0]}:${hash}`))
  })
  return ask<void>((callback) => driver.setACL(path, acl, (e) => callback(e)))
}

export const remove = (driver: Driver, path: string) => ask<void>((callback) => driver.remove(path, (e) => callback(e)))

/** Where the backend puts a key that needs no escape. */
export const directoryOf = (key: string): string => `/locks/${key}`

/** The lock nodes of a key. */
export const lineOf = (driver: Driver, key: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(childrenOf(driver, directoryOf(key)), (names) => names.filter((name) => name.includes("lock-")))

/** The tests' own session outlives a server that is stopped, and a machine that is busy. */
const patient = { sessionTimeout: 60_000 }

/** A running server or ensemble, and a client of our own. */
export class ZooKeeper extends Context.Service<ZooKeeper, {
  readonly nodes: ReadonlyArray<Server>
  readonly servers: ReadonlyArray<string>
  readonly bare: Driver
}>()("test/zookeeper/ZooKeeper") {
  static readonly layer = (options?: Harness.Options): Layer.Layer<ZooKeeper, HarnessError> =>
    Layer.effect(
      ZooKeeper,
      Effect.gen(function*() {
        const node = yield* Harness.zooKeeper(options)
        return { nodes: [node], servers: [node.addr], bare: yield* connect([node.addr], patient) }
      })
    )

  static readonly layerEnsemble = (options?: Harness.Options): Layer.Layer<ZooKeeper, HarnessError> =>
    Layer.effect(
      ZooKeeper,
      Effect.gen(function*() {
        const { nodes, servers } = yield* Harness.zooKeeperEnsemble(options)
        return { nodes, servers, bare: yield* connect(servers, patient) }
      })
    )
}

/** What the server answers to a command of four letters. */
export const fourLetterWord = (port: number, word: string): Effect.Effect<string> =>
  Effect.callback((resume) => {
    let text = ""
    const socket = Net.connect(port, "127.0.0.1", () => socket.write(word))
    socket.on("data", (chunk) => text += chunk.toString())
    socket.on("close", () => resume(Effect.succeed(text)))
  })

/** How many packets the server has received, by its own count. */
export const packetsReceived = (port: number): Effect.Effect<number> =>
  Effect.map(fourLetterWord(port, "mntr"), (text) => Number(/^zk_packets_received\t(\d+)/m.exec(text)?.[1]))

/** Something that accepts connections, and no server. */
export const listen = (accept: (socket: Net.Socket) => void, host = "127.0.0.1", port = 0) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly addr: string, readonly close: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const listener = Net.createServer({ noDelay: true }, (socket) => {
        sockets.add(socket.on("error", () => {}))
        accept(socket)
      })
      listener.listen(port, host, () => {
        const address = listener.address()
        const bound = typeof address === "object" && address !== null ? address.port : 0
        const close = () => {
          for (const socket of sockets) socket.destroy()
          listener.close()
        }
        resume(Effect.succeed({ addr: `${host}:${bound}`, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

/** A proxy in front of a server. */
export const roadTo = (server: string) => {
  const [host = "", port = ""] = server.split(":")
  return proxy({ host, port: Number(port) })
}

/** A proxy that can be led to another server, or to none: then it accepts connections and closes them. */
const switchable = (server: string) =>
  Effect.sync(() => {
    let target: string | undefined = server
    const sockets = new Set<Net.Socket>()
    const accept = (near: Net.Socket): void => {
      sockets.add(near)
      if (target === undefined) {
        near.destroy()
        return
      }
      const [host = "", port = ""] = target.split(":")
      const far = Net.connect(Number(port), host)
      sockets.add(far.on("error", () => {}))
      near.on("close", () => far.destroy())
      near.pipe(far)
      far.pipe(near)
    }
    const leadTo = (server: string | undefined) =>
      Effect.sync(() => {
        target = server
        for (const socket of sockets) socket.destroy()
        sockets.clear()
      })
    return { accept, leadTo }
  }).pipe(
    Effect.flatMap(({ accept, leadTo }) => Effect.map(listen(accept), ({ addr }) => ({ addr, leadTo })))
  )

/** `leader`, `follower` or `standalone`. */
export const modeOf = (node: Server): Effect.Effect<string | undefined> =>
  Effect.map(fourLetterWord(node.port, "srvr"), (text) => /^Mode: (.*)$/m.exec(text)?.[1])

/** An ensemble whose members see each other through proxies, so that one can be cut off; clients still reach it. */
export const dividedEnsemble = Effect.gen(function*() {
  const roads: Array<{ readonly ends: ReadonlyArray<number>, readonly road: Proxy }> = []
  const { nodes } = yield* Harness.zooKeeperEnsemble({}, (me, other) => {
    const through = (port: number) =>
      Effect.map(proxy({ host, port }), (road) => {
        roads.push({ ends: [me.id, other.id], road })
        return road.port
      })
    return Effect.gen(function*() {
      return { ...other, quorum: yield* through(other.quorum), election: yield* through(other.election) }
    })
  })
  const isolate = (node: Server) =>
    Effect.forEach(roads, ({ ends, road }) => ends.includes(nodes.indexOf(node) + 1) ? road.blackhole() : Effect.void)
  return {
    nodes,
    servers: nodes.map(({ addr }) => addr),
    isolate,
    heal: Effect.forEach(roads, ({ road }) => road.pass)
  }
})

/** What the suite tests. A busy machine answers late. */
export const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(
    ZooKeeper,
    ({ servers }) => ZooKeeperLock.make({ servers, sessionTimeout: "30 seconds", commandTimeout: "30 seconds" })
  )
)

/** Of clients that lose their servers, and so wait that long. */
const settings = { sessionTimeout: "3 seconds", commandTimeout: "3 seconds" } as const

export const capabilities: LockTest.Capabilities<ZooKeeper> = {
  clock: "live",
  freedBy: "session",
  ttl: "session",
  minTtl: settings.sessionTimeout,
  // A tick, by which the server counts; as long again for an election.
  granularity: "1 second",
  commandTimeout: settings.commandTimeout,
  fifo: true,
  pushesLoss: true,
  tellsWanted: true,
  reserves: true,
  renewsTokens: true,
  inspects: { owner: true, token: false, remaining: false, waiting: "owners" },
  revokes: true,
  refuses: (key) => key.split("/").some((segment) => ["", ".", ".."].includes(segment)),
  inLine: (key) => Effect.flatMap(ZooKeeper, ({ bare }) => Effect.map(lineOf(bare, key), (names) => names.length)),
  mortal: Effect.gen(function*() {
    const { servers } = yield* ZooKeeper
    const roads = yield* Effect.forEach(servers, roadTo)
    const client = yield* ZooKeeperLock.make({ ...settings, servers: roads.map(({ addr }) => addr) })
    return { client, cut: Effect.forEach(roads, (road) => road.drop("both"), { discard: true }) }
  }),
  revocable: Effect.gen(function*() {
    const { servers } = yield* ZooKeeper
    const roads = yield* Effect.forEach(servers, roadTo)
    const driver = yield* connect(roads.map(({ addr }) => addr))
    const client = yield* ZooKeeperLock.makeClient(driver)
    const all = (fault: (road: (typeof roads)[number]) => Effect.Effect<void>) =>
      Effect.forEach(roads, fault, { discard: true })
    // Another client takes over the session and ends it, while this one cannot take it back.
    const revoke = all((road) => road.refuse).pipe(
      Effect.andThen(Effect.scoped(connect(servers, { session: driver }))),
      Effect.andThen(all((road) => road.pass))
    )
    return { client, revoke: () => revoke }
  }),
  late: Effect.gen(function*() {
    const { servers: [server = ""] } = yield* ZooKeeper
    const road = yield* roadTo(server)
    const client = yield* ZooKeeperLock.make({ servers: road.addr, sessionTimeout: "10 seconds" })
    return { client, holdBack: road.freeze, breakOff: road.strand, deliver: road.pass }
  }),
  counted: Effect.gen(function*() {
    const { nodes, servers } = yield* ZooKeeper
    const driver = yield* connect(servers)
    const client = yield* ZooKeeperLock.makeClient(driver)
    const sid = `sid=0x${driver.getSessionId().toString("hex").replace(/^0+/, "")},`
    const receivedBy = ({ port }: Server) =>
      Effect.map(fourLetterWord(port, "cons"), (text) => {
        const line = text.split("\n").find((line) => line.includes(sid)) ?? ""
        return Number(/recved=(\d+)/.exec(line)?.[1] ?? 0)
      })
    const requests = Effect.map(Effect.forEach(nodes, receivedBy), (all) => all.reduce((sum, one) => sum + one, 0))
    return { client, requests }
  }),
  swapped: Effect.gen(function*() {
    const { servers: [server = ""] } = yield* ZooKeeper
    const other = yield* Harness.zooKeeper({})
    const road = yield* switchable(server)
    const client = yield* ZooKeeperLock.make({ ...settings, servers: road.addr })
    return { client, begin: road.leadTo(other.addr), end: road.leadTo(server) }
  }),
  // Without a quorum a server accepts connections and closes them.
  busy: Effect.gen(function*() {
    const { servers: [server = ""] } = yield* ZooKeeper
    const road = yield* switchable(server)
    const client = yield* ZooKeeperLock.make({ ...settings, servers: road.addr })
    return { client, begin: road.leadTo(undefined), end: road.leadTo(server) }
  })
}
