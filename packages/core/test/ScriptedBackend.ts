/**
 * A backend whose network and server a test writes the script of. The server is the memory store. A request travels to
 * it, is served by a fiber of the server's own, and its answer travels back: so a request that its caller has given up
 * still reaches the server, and a request that was interrupted in line stays there until it is released.
 */
import {
  type BackendReason,
  type Grant,
  LockBackend,
  LockBackendError,
  type LockRequest,
  type Released,
  type Validity
} from "@dlock/core"
import { Clock, type Duration, Effect, Fiber, Layer, Option } from "effect"
import * as memoryStore from "../src/internal/memory/store.ts"

export type Verb = "tryAcquire" | "acquire" | "renew" | "release"

/** What becomes of one request. Nothing in it: it is served and answered at once. */
export interface Step {
  /** How long it travels to the server. */
  readonly before?: Duration.Input
  /** `false`: it never reaches the server, and is not answered unless it `fails`. */
  readonly arrives?: boolean
  /** How long the answer travels; `never`: it is lost. */
  readonly after?: Duration.Input | "never"
  /** What the caller gets instead of the answer, without waiting for the server. */
  readonly fails?: BackendReason
  /** The caller gets a defect instead of the answer. */
  readonly dies?: unknown
  /** The verb throws where it is called, before there is an effect. */
  readonly throws?: unknown
  /** It is sent twice, as drivers do after a reconnect, and the second answer counts. */
  readonly twice?: boolean
  /** Called when the server has served it. */
  readonly onServed?: () => void
}

export interface Asked {
  readonly verb: Verb
  readonly key: string
  readonly owner: string
  /** Milliseconds. */
  readonly at: number
}

export interface Options {
  readonly name?: string
  readonly freedBy?: "ttl" | "session"
  /** After this a request that is not answered fails with `Timeout`. Default: never, which no real backend may do. */
  readonly commandTimeout?: Duration.Input
  readonly check?: LockBackend["Service"]["check"]
}

export interface ScriptedBackend extends Service {
  /** What was asked, in the order in which it left. */
  readonly log: Array<Asked>
  /** The attempts, in the order in which they were first asked for. */
  readonly requests: Array<LockRequest>
  /** What becomes of the next requests of a verb, one by one; afterwards the standing step counts again. */
  readonly script: (verb: Verb, ...steps: ReadonlyArray<Step>) => void
  /** What becomes of every request of a verb that no script is left for. */
  readonly always: (verb: Verb, step: Step) => void
  /** From now on requests stand still on their way to the server. */
  readonly freeze: () => void
  /** What stood still reaches the server, in the order in which it was sent, and all further requests too. */
  readonly thaw: Effect.Effect<void>
  /** Whether the key is held on the server. */
  readonly isHeld: (key: string) => boolean
  /** The server takes the key away from its holder, which is told. */
  readonly rob: (key: string) => boolean
  /** The key is deleted by hand: its holder is not told. */
  readonly forget: (key: string) => void
  /** Whether anybody holds or waits for anything on the server, or a request is under way to it. */
  readonly isIdle: () => boolean
  /** How often a verb was asked. */
  readonly count: (verb: Verb) => number
}

type Service = LockBackend["Service"]

const pass: Step = {}

export const make = Effect.fnUntraced(function*(options: Options = {}): Effect.fn.Return<ScriptedBackend> {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const name = options.name ?? "scripted"
  const store = memoryStore.make()
  const now = () => memoryStore.nowOf(clock)
  const log: Array<Asked> = []
  const requests: Array<LockRequest> = []
  const scripts: Record<Verb, Array<Step>> = { tryAcquire: [], acquire: [], renew: [], release: [] }
  const standing: Record<Verb, Step> = { tryAcquire: pass, acquire: pass, renew: pass, release: pass }
  const serving = new Set<Fiber.Fiber<unknown, unknown>>()
  let frozen: Array<() => void> | undefined

  const failure = (verb: Verb, reason: BackendReason) =>
    new LockBackendError({ backend: name, operation: verb, reason, detail: "as scripted" })

  /** The server's own fiber: nothing that happens to the client ends it. */
  const serve = <A>(step: Step, verb: Effect.Effect<A, LockBackendError>): Fiber.Fiber<A, LockBackendError> => {
    const served = step.twice === true ? Effect.andThen(verb, verb) : verb
    const told = Effect.onExit(served, () => Effect.sync(() => step.onServed?.()))
    const travelled = step.before === undefined ? told : Effect.andThen(Effect.sleep(step.before), told)
    const thawed = Effect.callback<void>((resume) => {
      if (frozen === undefined) resume(Effect.void)
      else frozen.push(() => resume(Effect.void))
    })
    const fiber = Effect.runForkWith(context)(frozen === undefined ? travelled : Effect.andThen(thawed, travelled))
    if (fiber.pollUnsafe() === undefined) {
      serving.add(fiber)
      fiber.addObserver(() => serving.delete(fiber))
    }
    return fiber
  }

  const answerOf = <A>(
    verb: Verb,
    step: Step,
    served: Fiber.Fiber<A, LockBackendError> | undefined
  ): Effect.Effect<A, LockBackendError> => {
    if (step.after === "never") return Effect.never
    const reply: Effect.Effect<A, LockBackendError> = step.dies !== undefined
      ? Effect.die(step.dies)
      : step.fails !== undefined
      ? Effect.fail(failure(verb, step.fails))
      : served === undefined
      ? Effect.never
      : served.pollUnsafe() ?? Fiber.join(served)
    if (step.after === undefined) return reply
    const { after } = step
    return Effect.flatMap(Effect.exit(reply), (exit) => Effect.andThen(Effect.sleep(after), exit))
  }

  const ask = <A>(
    verb: Verb,
    request: LockRequest,
    effect: Effect.Effect<A, LockBackendError>
  ): Effect.Effect<A, LockBackendError> => {
    const step = scripts[verb].shift() ?? standing[verb]
    if (step.throws !== undefined) throw step.throws
    return Effect.suspend(() => {
      log.push({
        verb,
        key: request.key,
        owner: request.owner,
        at: now()
      })
      if (!requests.includes(request)) requests.push(request)
      const answer = answerOf(verb, step, step.arrives === false ? undefined : serve(step, effect))
      return options.commandTimeout === undefined ? answer : Effect.timeoutOrElse(answer, {
        duration: options.commandTimeout,
        orElse: () => Effect.fail(failure(verb, "Timeout"))
      })
    })
  }

  return {
    name,
    freedBy: options.freedBy ?? "ttl",
    tellsWanted: true,
    check: options.check ?? (() => undefined),
    tryAcquire: (request) =>
      ask<Option.Option<Grant>>(
        "tryAcquire",
        request,
        Effect.sync(() => Option.fromUndefinedOr(memoryStore.tryAcquire(store, request, now())))
      ),
    acquire: (request) => ask<Grant>("acquire", request, memoryStore.acquire(store, request)),
    renew: (request, { spare }) =>
      ask<Option.Option<Validity>>(
        "renew",
        request,
        Effect.sync(() => Option.fromUndefinedOr(memoryStore.renew(store, request, spare, now())))
      ),
    release: (request) => {
      // A driver that may have sent it twice cannot tell what the second answer means.
      const twice = (scripts.release[0] ?? standing.release).twice === true
      const released = Effect.sync(() => memoryStore.release(store, request, now()))
      return ask<Released>("release", request, twice ? Effect.as(released, "unknown") : released)
    },
    inspect: (key) => Effect.sync(() => memoryStore.inspect(store, key, now())),
    revoke: (key, owner) => Effect.sync(() => memoryStore.revoke(store, key, owner, now())),
    ping: Effect.void,
    log,
    requests,
    script: (verb, ...steps) => {
      scripts[verb].push(...steps)
    },
    always: (verb, step) => {
      standing[verb] = step
    },
    freeze: () => {
      frozen ??= []
    },
    thaw: Effect.sync(() => {
      const waiting = frozen ?? []
      frozen = undefined
      for (const go of waiting) go()
    }),
    isHeld: (key) => store.entries.has(key),
    rob: (key) => {
      const holder = store.entries.get(key)?.holder.owner
      return holder !== undefined && memoryStore.revoke(store, key, holder, now())
    },
    forget: (key) => {
      for (const request of requests) {
        if (request.key === key) memoryStore.release(store, request, now())
      }
    },
    isIdle: () => {
      // The store forgets a lease whose time is over when it is next asked about the key.
      const nobody = { owner: "nobody", ttl: 1000, spare: 0, onLost: () => {}, onWanted: () => {} }
      for (const key of new Set(requests.map((request) => request.key))) {
        memoryStore.release(store, { ...nobody, key }, now())
      }
      return store.entries.size === 0 && serving.size === 0
    },
    count: (verb) => log.filter((asked) => asked.verb === verb).length
  }
})

export const layer = (backend: ScriptedBackend): Layer.Layer<LockBackend> => Layer.succeed(LockBackend, backend)
