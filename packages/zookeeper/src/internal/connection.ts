// A program that compiles this file from its source needs the declarations, too.
// oxlint-disable-next-line typescript/triple-slash-reference
/// <reference path="./node-zookeeper-client.d.ts" />
/**
 * How a client of our own connects and reads, in place of the driver's own ways.
 */
import type { Secret } from "@dlock/core/backend"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import { type Client as Driver, createClient, type Manager } from "node-zookeeper-client"
import * as Dns from "node:dns"
import { Client, type Events, state } from "./client.ts"
import type { Reply } from "./requests.ts"

/** Where a server listens. */
interface Address {
  readonly host: string
  readonly port: number
}

/** How a client of our own is made. */
export interface Settings {
  readonly servers: ReadonlyArray<Address>
  /** Milliseconds to ask for. */
  readonly sessionTimeout: number
  /** How long reading the password may take. Milliseconds. */
  readonly commandTimeout: number
  /** Read at each connection. */
  readonly credentials: { readonly username: string, readonly password: Secret.Secret } | undefined
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
}

/** How long the server may take to end a session. Milliseconds. */
const closeLimit = 1000

/** Between two attempts to read the password. Milliseconds. */
const passwordPause = 500

/** How long the name servers may take for one name. Milliseconds. */
const lookupLimit = 2000

/** The longest pause between two rounds over all addresses; it begins with the shortest. Milliseconds. */
const longestPause = 250
const shortestPause = 5

/** A connection that stood for less than this was made in vain. Milliseconds. */
const shortestConnection = 250

const lookup = ({ host, port }: Address): Effect.Effect<ReadonlyArray<Address>> =>
  Effect.callback<ReadonlyArray<Address>>((resume) =>
    Dns.lookup(
      host,
      { all: true },
      (error, found) =>
        resume(Effect.succeed(error === null ? found.map(({ address }) => ({ host: address, port })) : []))
    )
  ).pipe(Effect.timeoutOption(lookupLimit), Effect.map(Option.getOrElse(() => [])))

const keyOf = ({ host, port }: Address): string => `${host} ${port}`

/** The addresses of all servers, because the driver knows only the first address of a name. */
interface Addresses {
  /** The next one to try, each time it is run. */
  readonly next: Effect.Effect<Address>
  /** The latest one was connected to. */
  readonly connected: () => void
}

/**
 * All addresses in turn, in a random order, those last that were tried in vain. The name servers are asked again for each
 * round, and for the first connection after one that was made.
 */
const addressesOf = (servers: ReadonlyArray<Address>, now: () => number): Addresses => {
  const triedInVain = new Set<string>()
  let round: Array<Address> = []
  let roundsInVain = 0
  let latest = ""
  let connectedAt = Number.POSITIVE_INFINITY
  const nextRound = Effect.gen(function*() {
    if (roundsInVain > 0) {
      yield* Effect.sleep((yield* Random.next) * Math.min(longestPause, shortestPause * 2 ** roundsInVain))
    }
    roundsInVain += 1
    const found = yield* Random.shuffle((yield* Effect.forEach(servers, lookup, { concurrency: "unbounded" })).flat())
    const inVain = found.filter((address) => triedInVain.has(keyOf(address)))
    round = [...found.filter((address) => !inVain.includes(address)), ...inVain]
  })
  const next: Effect.Effect<Address> = Effect.suspend(() => {
    if (now() - connectedAt > shortestConnection) roundsInVain = 0
    connectedAt = Number.POSITIVE_INFINITY
    const address = round.shift()
    if (address === undefined) return Effect.andThen(nextRound, next)
    latest = keyOf(address)
    triedInVain.add(latest)
    return Effect.succeed(address)
  })
  return {
    next,
    connected: () => {
      triedInVain.delete(latest)
      round = []
      connectedAt = now()
    }
  }
}

/** Has the driver connect to what `next` chooses; what it returns ends that. */
const chooseServers = (
  manager: Manager,
  next: Effect.Effect<Address>,
  fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
): () => void => {
  let choosing: Fiber.Fiber<void> | undefined
  manager.findNextServer = (connect) => {
    choosing = fork(Effect.map(next, connect))
  }
  return () => {
    manager.findNextServer = () => {}
    choosing?.interruptUnsafe()
  }
}

const lengthBytes = 4

/** The length of the frame that begins here. */
const sizeOf = (bytes: Buffer): number =>
  bytes.length < lengthBytes ? Number.POSITIVE_INFINITY : lengthBytes + bytes.readInt32BE()

/** Has the driver read one frame at a time; `onError` gets what it throws. */
const readFrames = ({ connectionManager: manager }: Driver, onError: (error: unknown) => void): void => {
  const read = manager.onSocketData
  const readOne = (frame: Buffer): void => {
    try {
      read.call(manager, frame)
    } catch (error) {
      onError(error)
    }
  }
  manager.onSocketData = (chunk) => {
    let rest = manager.pendingBuffer === null ? chunk : Buffer.concat([manager.pendingBuffer, chunk])
    manager.pendingBuffer = null
    for (let size = sizeOf(rest); rest.length >= size; size = sizeOf(rest)) {
      // Nothing that comes after nonsense can be believed.
      if (size < lengthBytes) manager.socket?.destroy()
      if (manager.socket?.destroyed === true) return
      readOne(rest.subarray(0, size))
      rest = rest.subarray(size)
    }
    if (rest.length > 0) manager.pendingBuffer = rest
  }
}

/** An error that the driver has no name for. */
const unknownCode = (error: unknown): number | undefined => {
  const match = error instanceof Error ? /^Unknown code: (-?\d+)$/.exec(error.message) : null
  return match === null ? undefined : Number(match[1])
}

const refusal = (code: number): Reply => ({
  code,
  zxid: 0n,
  path: "",
  children: [],
  data: "",
  czxid: 0n,
  version: 0
})

/** A client that a session uses, and how it is closed. */
export interface Opened {
  readonly client: Client
  readonly close: Effect.Effect<void>
}

/** Works with a driver's client that others made and close. */
export const attach = (driver: Driver, events: Events, now: () => number): Opened => {
  const client = new Client(driver, events, now)
  return { client, close: Effect.sync(() => client.forget()) }
}

/** Ends the session, if the server can be told, and the connection. */
const closeOwn = (driver: Driver, client: Client, stopConnecting: () => void): Effect.Effect<void> =>
  Effect.suspend(() => {
    const wasConnected = client.isConnected
    client.forget()
    stopConnecting()
    const cut = Effect.sync(() => client.cut())
    if (!wasConnected) return cut
    const closed = Effect.callback<void>((resume) => {
      driver.connectionManager.on("state", (now) => {
        if (now === state.disconnected) resume(Effect.void)
      })
      driver.close()
    })
    return Effect.andThen(Effect.timeoutOption(closed, closeLimit), cut)
  })

/** Reads the password for the next connection; `undefined`, or why there is none. */
const authenticate = (
  manager: Manager,
  { commandTimeout, credentials }: Settings
): Effect.Effect<string | undefined> =>
  credentials === undefined ? Effect.undefined : credentials.password.get.pipe(
    Effect.timeoutOrElse({
      duration: commandTimeout,
      orElse: () => Effect.fail("getting it took more than the command timeout")
    }),
    Effect.map((password) => {
      const digest = `${credentials.username}:${Redacted.value(password)}`
      manager.credentials = [{ scheme: "digest", auth: Buffer.from(digest) }]
      return undefined
    }),
    // Whatever it was: nothing else begins another connection.
    Effect.catchCause((cause) => {
      const problem = Option.getOrElse(Cause.findErrorOption(cause), () => "getting it failed")
      return Effect.succeed(`password: ${problem}`)
    })
  )

/** Makes a client and begins its first connection. */
export const open = (settings: Settings, events: Events, now: () => number): Opened => {
  const { credentials, fork, servers, sessionTimeout } = settings
  const driver = createClient("chosen-by-us", { sessionTimeout, retries: 0 })
  const { connectionManager: manager } = driver
  const addresses = addressesOf(servers, now)
  const onConnected = (): void => {
    addresses.connected()
    events.onConnected()
  }
  const client = new Client(driver, { ...events, onConnected }, now)
  const begin: Effect.Effect<Address> = Effect.suspend(() => {
    if (credentials !== undefined) client.trouble ??= "password: it is not there yet"
    return Effect.flatMap(authenticate(manager, settings), (problem) => {
      client.trouble = problem
      if (problem !== undefined) return Effect.delay(begin, passwordPause)
      return Effect.tap(addresses.next, () => Effect.sync(() => client.onConnecting()))
    })
  })
  const stopConnecting = chooseServers(manager, begin, fork)
  readFrames(driver, (error) => {
    const code = unknownCode(error)
    if (code === undefined) client.cut()
    else client.answerOldest(refusal(code))
  })
  driver.connect()
  return { client, close: closeOwn(driver, client, stopConnecting) }
}
