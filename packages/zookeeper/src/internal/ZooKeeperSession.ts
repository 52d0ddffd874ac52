/**
 * The session that all locks of a backend live on: one at a time, over as many connections as it takes.
 *
 * It is the leader that ends a session, and a server tells the leader only every half tick which of its sessions it has
 * heard of. So when that server and we are cut off from the leader together, the leader may not know of our latest
 * request, and the server goes on answering reads for a while. Therefore the heartbeat is a write, to which the leader
 * has to agree, and what its answer proves is that the leader knows of the heartbeat before it: leases are good for the
 * session's timeout from the sending of that one. Heartbeats are a quarter of the timeout apart, which is no less than
 * half a tick, because the shortest session is two ticks.
 */
import type { Validity } from "@dlock/core/LockBackend"
import type { LockBackendError, LossReason } from "@dlock/core/LockError"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Events, ZooKeeperClient } from "./ZooKeeperClient.ts"
import { failed, refused } from "./ZooKeeperError.ts"
import { codes, remove } from "./ZooKeeperRequest.ts"

/** What is told when the session is lost. */
export interface Lessee {
  readonly onLost: (reason: LossReason) => void
}

/** What a session is made of. */
export interface Settings {
  /** Makes a client. A given one can not be made anew when its session ends. */
  readonly open: (events: Events) => ZooKeeperClient
  readonly isGiven: boolean
  /** A path that never exists. */
  readonly nowhere: string
  readonly commandTimeout: Duration.Duration
  /** As asked for. */
  readonly sessionTimeout: Duration.Duration
}

type Problem = (operation: string) => LockBackendError

export interface Session {
  /** The client of now: another one after the session ended. */
  readonly client: () => ZooKeeperClient
  /** How many sessions there were. What was created in an earlier one is gone. */
  readonly epoch: () => number
  /** Why there is no client, if so. */
  readonly problem: () => Problem | undefined
  /** Until when leases on this session are good, or `undefined` when the latest heartbeat is too long ago to say. */
  readonly validity: () => Validity | undefined
  /** Called once, at the next connection or problem. */
  readonly onConnection: Set<() => void>
  /** Called once, at the next heartbeat that is answered. */
  readonly onHeartbeat: Set<() => void>
  /** Who holds a lease on this session. */
  readonly lessees: Set<Lessee>
  /** Keeps the session, for ever. */
  readonly keep: Effect.Effect<never>
  /** Ends the session, unless its client was given. */
  readonly close: Effect.Effect<void>
}

const earliest = (first: bigint, ...others: ReadonlyArray<bigint>): bigint =>
  others.reduce((a, b) => a < b ? a : b, first)

const callAll = (listeners: Set<() => void>): void => {
  const all = [...listeners]
  listeners.clear()
  for (const listener of all) listener()
}

/** Begins a session. */
export const make = (settings: Settings, clock: Clock.Clock): Session => {
  const now = () => clock.monotonicTimeNanosUnsafe()
  const commandTimeout = Duration.toNanosUnsafe(settings.commandTimeout)
  const lessees = new Set<Lessee>()
  const onConnection = new Set<() => void>()
  const onHeartbeat = new Set<() => void>()
  let epoch = 0
  let sessionId = 0n
  let problem: Problem | undefined
  /** Of the session's timeout, in nanoseconds. */
  let quarter = Duration.toNanosUnsafe(settings.sessionTimeout) / 4n
  let latestHeartbeat = 0n
  let nextHeartbeat = 0n

  const ttl = () => 4n * quarter
  let validFrom = now() - ttl()
  /** How long a connection may keep silent: a lease has time left then to survive on another one. */
  const longestSilence = () => earliest(commandTimeout, quarter)
  /** How long a connection may be in the making; doubled with each that does not come to be. */
  let patience = longestSilence()

  const lose = (reason: LossReason): void => {
    for (const lessee of lessees) lessee.onLost(reason)
    lessees.clear()
  }

  const vouch = (time: bigint): void => {
    if (time <= validFrom) return
    validFrom = time
    callAll(onHeartbeat)
  }

  const heartbeat = (): void => {
    const sentAt = now()
    const known = earliest(latestHeartbeat, sentAt - quarter)
    latestHeartbeat = sentAt
    nextHeartbeat = sentAt + quarter
    client.send([remove(settings.nowhere)], (replies) => {
      if (replies?.[0]?.code === codes.noNode) vouch(known)
    })
  }

  const onConnected = (): void => {
    if (client.sessionId() !== sessionId) {
      sessionId = client.sessionId()
      epoch += 1
      lose("session")
    }
    quarter = BigInt(client.sessionTimeout()) * 1_000_000n / 4n
    patience = longestSilence()
    const begun = client.connectingSince()
    if (begun !== undefined) {
      // The leader is asked about a session that comes with a new connection, and counts from there.
      latestHeartbeat = begun
      vouch(begun)
    } else {
      // The driver of a client that was given to us pings a server that it has not heard of for a third of the timeout.
      latestHeartbeat = now() - 7n * quarter / 3n
    }
    nextHeartbeat = latestHeartbeat + quarter
    if (now() >= nextHeartbeat) heartbeat()
    callAll(onConnection)
  }

  const onEnded: Events["onEnded"] = (reason) => {
    sessionId = 0n
    epoch += 1
    validFrom = now() - ttl()
    lose("session")
    if (reason === "unauthorized") problem = (operation) => refused(operation, codes.authFailed)
    else if (settings.isGiven) problem = (operation) => failed(operation, "Unreachable", "the given client has expired")
    else client = settings.open(events)
    callAll(onConnection)
    callAll(onHeartbeat)
  }

  /** Does what is due and tells when to look again: when the next is due, or soon, for what begins in between. */
  const keepOnce = (): bigint => {
    if (problem !== undefined && !settings.isGiven) {
      problem = undefined
      client = settings.open(events)
    }
    const time = now()
    const soon = time + longestSilence() / 4n
    const due: Array<bigint> = []
    const check = (since: bigint | undefined, limit: bigint, act: () => void): void => {
      if (since === undefined) return
      if (time < since + limit) due.push(since + limit)
      else act()
    }
    check(client.silentSince(), longestSilence(), client.cut)
    check(client.waitingSince(), commandTimeout, () => client.giveUp(time - commandTimeout))
    check(client.isConnected() ? undefined : client.connectingSince(), patience, () => {
      patience = earliest(2n * patience, commandTimeout)
      client.cut()
    })
    check(client.isConnected() ? nextHeartbeat : undefined, 0n, () => {
      heartbeat()
      due.push(nextHeartbeat)
    })
    check(lessees.size > 0 ? validFrom : undefined, ttl(), () => lose("expired"))
    return earliest(soon, ...due)
  }

  const events: Events = { onConnected, onEnded }
  let client = settings.open(events)
  if (client.isConnected()) onConnected()

  return {
    client: () => client,
    epoch: () => epoch,
    problem: () => problem,
    validity: () => 2n * (now() - validFrom) < 5n * quarter ? { validFrom, ttl: Duration.nanos(ttl()) } : undefined,
    onConnection,
    onHeartbeat,
    lessees,
    keep: Effect.forever(Effect.suspend(() => Effect.sleep(Duration.nanos(keepOnce() - now())))),
    close: Effect.suspend(() => client.close)
  }
}
