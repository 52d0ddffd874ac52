/**
 * An edge to the toy server, made of the kit as a backend's is; and what can be wrong with one, fault by fault.
 */
import { LockConfig } from "@dlock/core"
import type { LockBackend, LockBackendError } from "@dlock/core"
import { Calls, Errors, Options, type Secret, Timers, type Tls } from "@dlock/core/backend"
import { Deferred, Effect, Exit, Option, Redacted, Result } from "effect"
import type { Duration, Scope } from "effect"
import * as Net from "node:net"
import * as NodeTls from "node:tls"

export interface ToyOptions {
  readonly addrs?: string | ReadonlyArray<string> | undefined
  readonly password?: Secret.Input | undefined
  readonly tls?: Tls.Input | undefined
  readonly commandTimeout?: Duration.Input | undefined
}

/** What may be wrong with the edge. */
export type Fault =
  | "takes any options"
  | "overlooks near misses"
  | "names no address"
  | "waits without a limit"
  | "loops without a pause"
  | "throws on a strange greeting"
  | "tells the password"
  | "remembers the password"
  | "dies of a bad secret"
  | "needs a right too many"
  | "ignores the authority"
  | "says nothing of certificates"
  | "asks under another name again"
  | "releases once"
  | "forgets to leave the line"
  | "never connects again"
  | "trusts the wall clock"
  | "leaves its connection open"
  | "quits without a time limit"
  | "leaves a connection that is not waited for"
  | "closes what it was given"

export const declaration = Options.declare("toy", {
  addrs: Options.addresses({ port: 1, description: "The server.", default: ["localhost:1"] }),
  password: Options.secret({ description: "Its password." }),
  tls: Options.tls({ description: "Encrypted connections." }),
  commandTimeout: Options.duration({ description: "The longest wait for one answer.", default: "5 seconds" })
})

type Settings = Effect.Success<ReturnType<typeof declaration.parse>>

/** A connection that is ready. Answers are settled by their numbers. */
interface Wire {
  readonly socket: Net.Socket
  readonly waiting: Map<string, (answer: Result.Result<string, string>) => void>
  isOpen: boolean
}

interface Edge {
  readonly settings: Settings
  readonly errors: Errors.Errors
  readonly timers: Timers.Timers
  readonly faults: ReadonlySet<Fault>
  readonly remembered: { password?: Redacted.Redacted }
}

const listenTo = (socket: Net.Socket, onGreeting: (text: string) => void): Wire => {
  const wire: Wire = { socket, waiting: new Map(), isOpen: true }
  let rest = ""
  let greeted = false
  socket.on("data", (data) => {
    const lines = (rest + String(data)).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) {
      if (!greeted) {
        greeted = true
        onGreeting(line)
        continue
      }
      const [id = "", ...words] = line.split(" ")
      const settle = wire.waiting.get(id)
      wire.waiting.delete(id)
      const text = words.join(" ")
      settle?.(/^NO(AUTH|PERM)/.test(text) ? Result.fail(text) : Result.succeed(text))
    }
  })
  socket.on("close", () => {
    wire.isOpen = false
    for (const settle of wire.waiting.values()) settle(Result.fail("the connection ended"))
    wire.waiting.clear()
  })
  return wire
}

const failureOf = ({ errors, settings: { addrs: [at] } }: Edge, cause: unknown) => {
  const tls = Errors.tlsProblem(cause)
  return tls === undefined
    ? errors.unreachable("connect", { at, cause })
    : errors.of(tls.reason, "connect", { at, detail: tls.detail, cause })
}

/** A socket that was greeted as a toy server does. */
const dial = Effect.fnUntraced(function*(edge: Edge) {
  const { errors, faults, settings: { addrs: [at], tls } } = edge
  const found = tls === undefined
    ? undefined
    : Redacted.value(
      yield* Effect.mapError(tls.get, (problem) => errors.options("connect", { at, detail: `tls.${problem}` }))
    )
  const { ca: _, ...without } = found ?? {}
  const material = faults.has("ignores the authority") ? without : found
  return yield* Effect.callback<Wire, LockBackendError>((resume) => {
    const { host, port } = at
    const socket = material === undefined ? Net.connect({ host, port }) : NodeTls.connect({ host, port, ...material })
    const wire: Wire = listenTo(socket, (greeting) => {
      if (greeting.startsWith("toy ")) return resume(Effect.succeed(wire))
      if (faults.has("throws on a strange greeting")) return resume(Effect.die(new Error("strange")))
      socket.destroy()
      resume(Effect.fail(errors.protocol("connect", { at, detail: "this is no toy server", cause: greeting })))
    })
    socket.on("error", (cause) =>
      resume(Effect.fail(
        faults.has("says nothing of certificates")
          ? errors.rejected("connect", { at, detail: "no connection" })
          : failureOf(edge, cause)
      )))
    socket.on("close", () => resume(Effect.fail(errors.unreachable("connect", { at, detail: "it hung up" }))))
    return Effect.sync(() => {
      if (!faults.has("leaves a connection that is not waited for")) socket.destroy()
    })
  })
})

let ids = 0

/** Sends one line; the answer, or an error, comes on the same connection. */
const send = (
  { errors, faults, settings: { addrs: [at], commandTimeout }, timers }: Edge,
  wire: Wire,
  operation: string,
  text: string,
  limit: number = commandTimeout
): Effect.Effect<string, LockBackendError> => {
  const fail = (said: string): LockBackendError =>
    /^NO(AUTH|PERM)/.test(said)
      ? errors.unauthorized(operation, { at, cause: said })
      : errors.unreachable(operation, { at, detail: said })
  return Calls.once(timers, {
    limit: faults.has("waits without a limit") ? 1e9 : limit,
    onLate: () => {
      // What is silent once is not trusted again.
      wire.socket.destroy()
      return errors.timeout(operation, { at })
    },
    send: (settle) => {
      const id = `${++ids}`
      wire.waiting.set(id, (answer) =>
        settle(
          Exit.mapError(Result.isSuccess(answer) ? Exit.succeed(answer.success) : Exit.fail(answer.failure), fail)
        ))
      if (wire.isOpen) wire.socket.write(`${id} ${text}\n`)
      else settle(Exit.fail(fail("the connection ended")))
      return () => wire.waiting.delete(id)
    }
  })
}

const login = Effect.fnUntraced(function*(edge: Edge, wire: Wire) {
  const { errors, faults, remembered, settings: { addrs: [at], password } } = edge
  if (password !== undefined) {
    const get = faults.has("dies of a bad secret") ? Effect.orDie(password.get) : password.get
    const fresh = Effect.mapError(
      get,
      (problem) => errors.unreachable("connect", { at, detail: `password: ${problem}` })
    )
    const secret = faults.has("remembers the password") ? remembered.password ?? (yield* fresh) : yield* fresh
    remembered.password = secret
    yield* send(edge, wire, "connect", `AUTH ${Redacted.value(secret)}`)
  }
  if (faults.has("needs a right too many")) yield* send(edge, wire, "connect", "ADMIN")
  yield* send(edge, wire, "connect", "PING")
})

const connect = (edge: Edge): Effect.Effect<Wire, LockBackendError> => {
  const { errors, faults, settings: { addrs: [at], commandTimeout }, timers } = edge
  const once = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      restore(dial(edge)),
      (wire) =>
        Effect.as(
          Effect.onError(restore(login(edge, wire)), () =>
            Effect.sync(() => {
              if (!faults.has("leaves a connection that is not waited for")) wire.socket.destroy()
            })),
          wire
        )
    )
  )
  const limited = (left: number) =>
    faults.has("waits without a limit") ? once : Effect.timeoutOrElse(once, {
      duration: left,
      orElse: () => Effect.fail(errors.timeout("connect", { at, detail: "no greeting" }))
    })
  // One round is too many already: a busy machine comes to no second one in time.
  const pauseless: Effect.Effect<Wire, LockBackendError> = Effect.catch(
    Effect.raceAll(Array.from({ length: 256 }, () => limited(commandTimeout))),
    (error) => Errors.passes(error) ? Effect.flatMap(Effect.yieldNow, () => pauseless) : Effect.fail(error)
  )
  return faults.has("loops without a pause")
    ? Effect.timeoutOrElse(pauseless, {
      duration: commandTimeout,
      orElse: () => Effect.fail(errors.unreachable("connect", { at }))
    })
    : Calls.repeat(timers, { limit: commandTimeout, again: Errors.passes }, limited)
}

/** The connection of now, or a new one; callers wait for the same. */
const makeLink = (edge: Edge) => {
  let wire: Wire | undefined
  let opening: Deferred.Deferred<Wire, LockBackendError> | undefined
  const open = Effect.gen(function*() {
    if (wire?.isOpen === true) return wire
    if (wire !== undefined && edge.faults.has("never connects again")) {
      return yield* edge.errors.unreachable("connect", { at: edge.settings.addrs[0] })
    }
    if (opening !== undefined) return yield* Deferred.await(opening)
    const next = opening = Deferred.makeUnsafe<Wire, LockBackendError>()
    return yield* connect(edge).pipe(
      Effect.tap((opened) => Effect.sync(() => wire = opened)),
      Effect.onExit((exit) => {
        opening = undefined
        return Deferred.done(
          next,
          Exit.hasInterrupts(exit) ? Exit.fail(edge.errors.unreachable("connect", { detail: "interrupted" })) : exit
        )
      })
    )
  })
  const close = Effect.suspend(() => {
    if (edge.faults.has("leaves its connection open") || wire === undefined) return Effect.void
    const quit = edge.faults.has("quits without a time limit")
      ? Effect.ignore(send(edge, wire, "close", "PING", 1e9))
      : Effect.void
    return Effect.andThen(quit, Effect.sync(() => wire?.socket.destroy()))
  })
  return { open, close }
}

const grantOf = (answer: string, ttl: number, validFrom: number) =>
  answer.startsWith("granted ")
    ? Option.some({ validFrom, ttl, tokens: { first: BigInt(answer.slice(8)), spare: 0 } })
    : Option.none()

const backendOver = (edge: Edge, open: Effect.Effect<Wire, LockBackendError>): LockBackend["Service"] => {
  const { faults, settings: { commandTimeout }, timers } = edge
  const call = (operation: string, text: () => string, limit = commandTimeout) =>
    Calls.repeat(
      timers,
      { limit: Math.max(limit, commandTimeout), again: Errors.passes },
      (left) => Effect.flatMap(open, (wire) => send(edge, wire, operation, text(), Math.min(limit, left)))
    )
  let asked = 0
  const ownerOf = (owner: string) => faults.has("asks under another name again") ? `${owner}/${++asked}` : owner
  const wall = Date.now()
  return {
    name: "toy",
    freedBy: "session",
    tellsWanted: false,
    check: () => undefined,
    tryAcquire: ({ key, owner, ttl }) =>
      Effect.suspend(() => {
        const sent = timers.now()
        return Effect.map(call("tryAcquire", () => `TRY ${key} ${ownerOf(owner)}`), (answer) =>
          grantOf(answer, ttl, sent))
      }),
    acquire: ({ key, owner, ttl }) =>
      Effect.suspend(() => {
        const sent = timers.now()
        // The wait in line has no limit, a connection has.
        const wait: Effect.Effect<string, LockBackendError> = Effect.flatMap(
          open,
          (wire) => send(edge, wire, "acquire", `ACQ ${key} ${ownerOf(owner)}`, 1e9)
        )
        return Effect.flatMap(
          Calls.repeat(timers, { limit: 2 * commandTimeout, again: Errors.passes }, () => wait),
          (answer) => Effect.orDie(Effect.fromOption(grantOf(answer, ttl, sent)))
        )
      }),
    renew: ({ key, owner, ttl }) =>
      Effect.clockWith((clock) => {
        const sent = timers.now()
        if (faults.has("trusts the wall clock") && clock.currentTimeMillisUnsafe() - wall > ttl) {
          return Effect.succeedNone
        }
        return Effect.map(
          call("renew", () => `REN ${key} ${owner}`),
          (answer) => answer === "renewed" ? Option.some({ validFrom: sent, ttl }) : Option.none()
        )
      }),
    release: ({ key, owner }) =>
      faults.has("forgets to leave the line")
        ? Effect.map(call("inspect", () => `INS ${key}`), (answer) =>
          answer === `held ${owner}` ? "released" as const : "gone" as const).pipe(
            Effect.tap((answer) =>
              answer === "released" ? call("release", () => `REL ${key} ${owner}`) : Effect.void
            )
          )
        : faults.has("releases once")
        ? Effect.flatMap(open, (wire) =>
          Effect.as(
            Effect.forkDetach(Effect.ignore(send(edge, wire, "release", `REL ${key} ${owner}`))),
            "unknown" as const
          )).pipe(
            Effect.tap(() => Effect.never)
          )
        : Effect.map(
          call("release", () => `REL ${key} ${owner}`),
          (answer) => answer === "released" ? "released" : "gone"
        ),
    inspect: (key) =>
      Effect.map(call("inspect", () => `INS ${key}`), (answer) => ({
        holder: answer === "free" ? Option.none() : Option.some({ owner: answer.slice(5) }),
        waiting: 0
      })),
    revoke: () => Effect.fail(edge.errors.unsupported("revoke")),
    ping: Effect.asVoid(call("ping", () => "PING"))
  }
}

const parse = (faults: ReadonlySet<Fault>, options: ToyOptions): Effect.Effect<Settings, LockBackendError> =>
  faults.has("takes any options")
    ? Effect.catch(declaration.parse(options), () => declaration.parse({ addrs: "127.0.0.1:1", commandTimeout: 10 }))
    : declaration.parse(options)

/** The edge with these faults. */
export const toyLock = (...given: ReadonlyArray<Fault>) => {
  const faults = new Set(given)
  const edgeOf = Effect.fnUntraced(function*(options: ToyOptions) {
    const settings = yield* parse(faults, options)
    const hide = faults.has("tells the password")
      ? undefined
      : (text: string) => settings.password?.hide(text) ?? text
    const errors = Errors.make("toy", hide)
    const nameless: Errors.Errors = { ...errors, unreachable: (operation) => errors.unreachable(operation) }
    const edge: Edge = {
      settings,
      errors: faults.has("names no address") ? nameless : errors,
      timers: yield* Timers.make,
      faults,
      remembered: {}
    }
    return edge
  })
  const make = Effect.fnUntraced(function*(
    options: ToyOptions = {}
  ): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
    const edge = yield* edgeOf(options)
    const link = makeLink(edge)
    yield* Effect.addFinalizer(() => link.close)
    yield* link.open
    return backendOver(edge, link.open)
  })
  /** Over a socket that the caller opened. */
  const makeClient = Effect.fnUntraced(function*(
    socket: Net.Socket
  ): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
    const edge = yield* edgeOf({ commandTimeout: "1 second" })
    const wire = listenTo(socket, () => {})
    if (faults.has("closes what it was given")) yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
    return backendOver(edge, Effect.succeed(wire))
  })
  const layerConfig = () =>
    LockConfig.layerLock(declaration.config, make, faults.has("overlooks near misses") ? undefined : declaration)
  return { declaration, make, makeClient, layerConfig }
}
