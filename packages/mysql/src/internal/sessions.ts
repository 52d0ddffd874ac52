/**
 * Which session takes what: one shared session per `wait_timeout` for locks that are free, one session for each request
 * that waits, and the vacant ones, which are used again.
 */
import { Calls, Timers } from "@dlock/core/backend"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Attempt, Client } from "./client.ts"
import { type Ask, type Background, Connection } from "./connection.ts"
import { closed, crowded, full, isLate, isPassing, type MysqlError, notConnected, poolFull, stalled } from "./errors.ts"
import type { Settings } from "./options.ts"
import * as Requests from "./requests.ts"
import * as Server from "./server.ts"
import * as Session from "./session.ts"

/** What one layer has open. */
export interface Sessions extends Background {
  readonly client: Client
  readonly settings: Settings
  /** How many connections are made at a time: more would make each other's handshakes late. */
  readonly handshakes: Semaphore.Semaphore
  /** Everything open, from its first statement on. */
  readonly connections: Set<Connection>
  readonly all: Set<Session.Session>
  /** By `wait_timeout`. */
  readonly shared: Map<number, Session.Session>
  readonly openingShared: Map<number, Deferred.Deferred<void, MysqlError>>
  /** Vacant. The last ones are used first, so that the others can be closed. */
  readonly parked: Set<Session.Session>
  readonly truth: Server.Truth
  /** How many connections are being made. */
  opening: number
  /** How many connections were made. */
  made: number
  ended: boolean
}

/** A vacant session is closed after this time; the server closes it sooner if its `wait_timeout` is shorter. */
const idleFor = 30_000

/** A vacant session that answered within this time is used as it is. */
const justNow = 1000

const patienceFor = ({ settings }: Sessions, seconds: number): number =>
  seconds === 0 ? settings.patience : Math.min(settings.patience, seconds * 1000)

/** The session takes no more requests. */
const retire = (self: Sessions, session: Session.Session): void => {
  self.parked.delete(session)
  if (self.shared.get(session.seconds) === session) {
    self.shared.delete(session.seconds)
  }
}

const onClose = (self: Sessions, session: Session.Session): void => {
  self.all.delete(session)
  retire(self, session)
  session.place?.leave()
  Session.loseAll(session, "session")
}

/** What a session holds stays until the server must have ended it: the overdue answer may come, and others renew. */
const onStall = (self: Sessions, session: Session.Session): void => {
  const { connection, names, seconds } = session
  const answeredFrom = connection.answeredFrom()
  const end = () => {
    if (connection.isStalled() && connection.answeredFrom() === answeredFrom) {
      connection.close(stalled())
    }
  }
  retire(self, session)
  if ([...names.values()].some((claim) => claim.stage === "held")) {
    self.timers.set(Timers.timer(end), answeredFrom + seconds * 1000)
  } else {
    end()
  }
}

/** Ends what is held on another server, or on an earlier run of this one. */
const leaveOthers = (self: Sessions, { server, uptime }: Server.Seen): void => {
  for (const session of self.all) {
    const age = self.timers.now() - session.since
    if (session.server.identity !== server.identity || Server.wasRestarted(uptime, age)) {
      session.connection.close(closed("the server was restarted, or is another one"))
    }
  }
}

const layerClosed = closed("the layer was closed")

const notNeeded = closed("it was not needed any more")

/** Interruptible: a connection that is not ready yet is closed. */
const handshake = (self: Sessions, patience: number, attempt: Attempt): Effect.Effect<Session.Session, MysqlError> =>
  Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const wire = yield* restore(self.client.connect(attempt))
    let session: Session.Session | undefined
    const connection: Connection = new Connection(wire, patience, self, {
      onStall: () => session && onStall(self, session),
      onClose: () => {
        self.connections.delete(connection)
        if (session !== undefined) onClose(self, session)
      }
    })
    self.connections.add(connection)
    if (self.ended) {
      connection.close(layerClosed)
    }
    const seen = yield* restore(Server.inspect(connection, self.settings)).pipe(
      Effect.tap(({ server }) => Server.admit(self.truth, server, self.timers.now())),
      Effect.onError(() => Effect.sync(() => connection.close(notNeeded)))
    )
    leaveOthers(self, seen)
    session = Session.make(connection, seen, (session) => vacate(self, session))
    if (connection.isOpen()) {
      self.all.add(session)
      self.made++
    }
    return session
  }))

const isFull = ({ all, opening, settings }: Sessions, beyond = 0): boolean =>
  all.size + opening >= settings.connectionLimit + beyond

/** A new connection within a time limit, with the wait for its turn; so many more than the limit allows may be open. */
const connect = (self: Sessions, limit: number, beyond?: number): Effect.Effect<Session.Session, MysqlError> =>
  Effect.suspend(() => {
    const { made } = self
    let attempt: Attempt | undefined
    const late = Effect.suspend(() => {
      const words = `no connection within ${limit} ms`
      // Before its turn it may be late because those before it wait for the pool.
      if (attempt?.isQueued ?? self.client.isFull()) {
        return Effect.fail(poolFull(`${words}: every connection of the pool is in use`))
      }
      return Effect.fail(self.made > made ? crowded(`${words}, because others were made first`) : notConnected(words))
    })
    return Effect.suspend(() => {
      if (self.ended || isFull(self, beyond)) {
        return Effect.fail(self.ended ? layerClosed : full(self.settings.connectionLimit))
      }
      self.opening++
      attempt = { isQueued: self.client.isFull() }
      return Effect.ensuring(
        handshake(self, limit, attempt),
        Effect.sync(() => {
          self.opening--
        })
      )
    }).pipe(
      self.handshakes.withPermits(1),
      Effect.timeoutOrElse({ duration: limit, orElse: () => late })
    )
  })

/** Sets its `wait_timeout`, within a time limit. */
const tune = (
  self: Sessions,
  session: Session.Session,
  seconds: number,
  limit: number
): Effect.Effect<Session.Session, MysqlError> => {
  session.connection.setPatience(patienceFor(self, seconds))
  return session.connection.run(Requests.setUp(seconds, session.server.statementLimit)).await.pipe(
    Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.fail(stalled()) }),
    Effect.onError(() => Effect.sync(() => session.connection.close(notNeeded))),
    Effect.map(() => {
      session.seconds = seconds
      return session
    })
  )
}

/** A vacant session, if there is one. Those that the server may be ending just now are closed. */
const reuse = (self: Sessions, seconds: number): Session.Session | undefined => {
  const time = self.timers.now()
  for (const session of self.parked) {
    if (Session.isStale(session, time)) {
      session.connection.close(closed("it was idle for too long"))
    }
  }
  const vacant = isFull(self) ? [...self.shared.values(), ...self.parked] : [...self.parked]
  const good = vacant.filter((session) => Session.isReusable(session, time))
  const session = good.findLast((session) => session.seconds === seconds) ?? good.at(-1)
  if (session !== undefined) {
    retire(self, session)
  }
  return session
}

/** One attempt within a time limit, which fails at once with what may pass. */
const openOnce = (self: Sessions, seconds: number, limit: number): Effect.Effect<Session.Session, MysqlError> =>
  Effect.suspend(() => {
    const time = self.timers.now()
    const left = () => Math.max(1, Math.ceil(time + limit - self.timers.now()))
    const openNew = Effect.flatMap(
      Effect.suspend(() => connect(self, left())),
      (session) => tune(self, session, seconds, left())
    )
    const session = reuse(self, seconds)
    if (session === undefined) {
      return openNew
    }
    // A vacant one may have ended unseen, or the path to it may be broken, and a wait on it has no limit: it is asked, and
    // half of the time is left for another one.
    return session.seconds === seconds && time - session.connection.answeredFrom() < justNow
      ? Effect.succeed(session)
      : Effect.catch(tune(self, session, seconds, limit / 2), () => openNew)
  })

/** Waits for a server that has just started; nothing limits that but its own second. */
const grown = <E>(opened: Effect.Effect<Session.Session, E>): Effect.Effect<Session.Session, E | MysqlError> =>
  Effect.tap(opened, (session) => session.isYoung ? Server.grown(session.connection) : Effect.void)

/** Within the command timeout, and tried again while what it fails with passes by itself. */
const outlast = (self: Sessions, seconds: number, limit: number): Effect.Effect<Session.Session, MysqlError> =>
  Effect.suspend(() => {
    const patience = patienceFor(self, limit)
    const repetition = { limit: patience, again: isPassing, late: isLate }
    return Calls.repeat(self.timers, repetition, (left) => openOnce(self, seconds, left)).pipe(grown)
  })

/** A session that is vacant, or a new one, within the command timeout. One attempt: it fails at once with what may pass. */
export const open = (self: Sessions, seconds: number): Effect.Effect<Session.Session, MysqlError> =>
  grown(openOnce(self, seconds, patienceFor(self, seconds)))

/** The session that takes free locks, if there is one. Good in this very step: Effect may yield between any two. */
export const shared = (self: Sessions, seconds: number): Session.Session | undefined => {
  const session = self.shared.get(seconds)
  if (session === undefined || session.names.size > 0) {
    return session
  }
  if (Session.isStale(session, self.timers.now())) {
    session.connection.close(closed("it was idle for too long"))
    return undefined
  }
  return session
}

/** Waits until there is one; it may be gone again. */
export const openShared = (self: Sessions, seconds: number): Effect.Effect<void, MysqlError> =>
  Effect.suspend(() => {
    const pending = self.openingShared.get(seconds)
    if (pending !== undefined) {
      return Deferred.await(pending)
    }
    if (self.ended) {
      return Effect.fail(layerClosed)
    }
    // In a fiber of its own: its first caller may be interrupted, and others want it, too.
    const result = Deferred.makeUnsafe<void, MysqlError>()
    self.openingShared.set(seconds, result)
    self.fork(
      Effect.onExit(outlast(self, seconds, seconds), (exit) =>
        Effect.sync(() => {
          self.openingShared.delete(seconds)
          if (Exit.isSuccess(exit) && exit.value.connection.isOpen()) {
            self.shared.set(seconds, exit.value)
          }
          Deferred.doneUnsafe(result, Exit.hasInterrupts(exit) ? Exit.fail(layerClosed) : Exit.asVoid(exit))
        })).pipe(Effect.ignore)
    )
    return Deferred.await(result)
  })

/** A session that does not wait, for this very step; it may hold locks. With `before`: one that was open by then. */
export const findIdle = (self: Sessions, before = Infinity): Session.Session | undefined =>
  [...self.shared.values(), ...self.parked].find((session) => Session.isAlive(session) && session.since <= before)

/** Asks a session that does not wait; opened if need be. */
export const askIdle = <A>(
  self: Sessions,
  ask: (session: Session.Session) => Ask<A>
): Effect.Effect<A, MysqlError> =>
  Effect.suspend(() => {
    const session = findIdle(self)
    return session === undefined
      ? Effect.flatMap(outlast(self, 30, 0), (session) => {
        vacate(self, session)
        return ask(session).await
      })
      : ask(session).await
  })

/**
 * Whether the server answers on a new connection, too. That may be one more than the limit: at the limit, others may be
 * silent for as long as they hold something.
 */
export const reach = (self: Sessions, limit: number): Effect.Effect<void, MysqlError> =>
  Effect.flatMap(connect(self, limit, 1), (session) => session.connection.quit)

/** Nothing is on the session any more. */
export const vacate = (self: Sessions, session: Session.Session): void => {
  session.place?.leave()
  session.place = undefined
  if (session.connection.isOpen() && session.names.size === 0 && self.shared.get(session.seconds) !== session) {
    self.parked.add(session)
  }
}

// One that was lost between two steps of an interrupted attempt is found here, too.
const sweep = (self: Sessions): Effect.Effect<void> =>
  Effect.sync(() => {
    const time = self.timers.now()
    for (const session of self.all) {
      const { connection, names, place } = session
      if (
        time - connection.answeredFrom() > idleFor && names.size === 0 && place === undefined && connection.isQuiet()
      ) {
        retire(self, session)
        self.fork(connection.quit)
      }
    }
  })

/** Closes every connection, with `COM_QUIT` where no statement is under way. */
const end = (self: Sessions): Effect.Effect<void> =>
  Effect.suspend(() => {
    self.ended = true
    return Effect.forEach([...self.connections], (connection) =>
      Effect.andThen(
        connection.isQuiet() ? connection.quit : Effect.void,
        Effect.sync(() => connection.close(layerClosed))
      ), { concurrency: "unbounded", discard: true })
  })

/** Fails when the server cannot be reached, or cannot carry locks. The scope closes what is still open. */
export const make = Effect.fnUntraced(
  function*(client: Client, settings: Settings): Effect.fn.Return<Sessions, MysqlError, Scope.Scope> {
    const scope = yield* Effect.scope
    const run = Effect.runForkWith(yield* Effect.context<never>())
    const self: Sessions = {
      client,
      settings,
      timers: yield* Timers.make,
      fork: (effect) => {
        run(Effect.forkIn(effect, scope))
      },
      handshakes: yield* Semaphore.make(16),
      connections: new Set(),
      all: new Set(),
      shared: new Map(),
      openingShared: new Map(),
      parked: new Set(),
      truth: { identity: undefined, left: new Map() },
      opening: 0,
      made: 0,
      ended: false
    }
    yield* Effect.addFinalizer(() => end(self))
    const first = yield* outlast(self, 30, 0)
    yield* Server.prove(first.connection)
    vacate(self, first)
    yield* Effect.forkScoped(Effect.schedule(sweep(self), Schedule.spaced(idleFor / 3)))
    return self
  }
)
