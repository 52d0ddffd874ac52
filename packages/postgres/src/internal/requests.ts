/**
 * The functions of the schema as typed calls, and what is known of a request.
 *
 * A request that is no longer waited for may reach the server late. So it says until when it is valid, by the server's
 * clock, and a request that is withdrawn before then leaves a void mark that lives as long. An ordinary release, before
 * which every request was answered, leaves nothing behind.
 */
import type { Grant, LockBackendError, LockRequest, Released, Tokens, Validity } from "@dlock/core"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type { Call } from "./batch.ts"
import { Batch } from "./batch.ts"
import type { Client, Rows, Session } from "./client.ts"
import type { Listener } from "./listener.ts"
import { Code, identifier } from "./schema.ts"

/** What is known of a request, by identity. */
export interface State {
  readonly request: LockRequest
  /** The key with what stands before it, and the owner, as texts that the server can store. */
  readonly key: string
  readonly owner: string
  /** Whether the server was ever asked for the key. */
  wasSent: boolean
  isOver: boolean
  /** How many requests for the key were not answered, the session of the first of them, and until when one is valid. */
  unanswered: number
  session: Session | undefined
  validUntil: number
}

/** What came of asking for a key. `ticket`: the place in line; `remaining`: when to look again, in milliseconds. */
export type Taken =
  | { readonly _tag: "Granted", readonly grant: Grant }
  | { readonly _tag: "Waiting", readonly ticket: bigint, readonly rank: number, readonly remaining: number }

/** By how much longer a request is valid than it is waited for: the server's clock may be slewed meanwhile. */
const slackMicros = 1_000_000

/** How often a request may meet a server, or a clock of one, that is not what we took it for. */
const maxSurprises = 3

/** A request that does not stand in line. */
const noPlace = -1n

/** A request that takes a new place in line. */
export const newPlace = 0n

/** A renewal that reserves none. */
const noTokens = -1

/** In whole milliseconds, as it is asked for: core may lengthen it. */
const ttlOf = ({ request }: State): number => Math.max(1, Math.ceil(request.ttl))

const tokensOf = (first: unknown, last: unknown): Tokens | undefined =>
  typeof first === "bigint" && typeof last === "bigint" && last >= first
    ? { first, spare: Number(last - first) }
    : undefined

const withoutTokens = ({ ttl, validFrom }: Grant): Validity => ({ validFrom, ttl })

/** `isWanted`: others stand in line. */
const tellWanted = (state: State, isWanted: unknown): void => {
  if (isWanted === true && !state.isOver) state.request.onWanted()
}

const shown = (row: ReadonlyArray<unknown> | undefined): string =>
  row === undefined ? "no row" : row.map(String).join(", ")

export class Requests {
  private readonly client: Client
  private readonly listener: Listener
  private readonly keyPrefix: string
  private readonly states = new WeakMap<LockRequest, State>()
  private readonly acquires: Batch
  private readonly renewals: Batch
  private readonly releases: Batch
  /** The server's clock minus our monotonic one, in microseconds. */
  private ahead: number
  /** The run of the server that has our grants; verified again when another one answers. */
  private era: bigint
  private verifying: Fiber.Fiber<void, LockBackendError> | undefined
  /** What this process holds. */
  private readonly held = new Set<State>()

  constructor(
    client: Client,
    listener: Listener,
    options: {
      readonly schema: string
      readonly keyPrefix: string
      readonly ahead: number
      readonly era: bigint
    }
  ) {
    const schema = identifier(options.schema)
    this.client = client
    this.listener = listener
    this.keyPrefix = options.keyPrefix
    this.ahead = options.ahead
    this.era = options.era
    this.acquires = new Batch(
      client,
      `select n, code, era, at, first, last, wanted, ticket, rank, remaining from ${schema}.acquire_2($1, $2, $3, $4, $5, $6, $7, $8)`,
      () => [this.era, listener.channel]
    )
    this.renewals = new Batch(client, `select n, era, first, last, wanted from ${schema}.renew_1($1, $2, $3, $4)`)
    this.releases = new Batch(client, `select n, was_ours from ${schema}.release_1($1, $2, $3)`)
  }

  of(request: LockRequest): State {
    const known = this.states.get(request)
    if (known !== undefined) return known
    const state: State = {
      request,
      key: this.keyPrefix + request.key,
      // A text of the server has no NUL, and an owner is unique by what comes after its label.
      owner: request.owner.replaceAll("\0", "\\0"),
      wasSent: false,
      isOver: false,
      unanswered: 0,
      session: undefined,
      validUntil: 0
    }
    this.states.set(request, state)
    return state
  }

  /** The server has nothing of it any more. */
  end(state: State): void {
    this.states.delete(state.request)
    this.forget(state)
  }

  private malformed(operation: string, detail: string): Effect.Effect<never, LockBackendError> {
    const { address: at, errors } = this.client.driver
    return Effect.fail(errors.protocol(operation, { at, detail }))
  }

  private forget(state: State): void {
    this.held.delete(state)
    this.listener.forget(state.owner)
  }

  /** One call, until its answer. `read` gets the row, when it was asked for, and with which ttl. */
  private call<A>(
    batch: Batch,
    operation: string,
    state: State,
    { limit = this.client.limit, settled = () => {}, write }: {
      readonly write: (ttl: number, session: Session, now: number) => ReturnType<Call["write"]>
      readonly settled?: () => void
      /** For how long it is waited for, and never longer than the ttl. */
      readonly limit?: number | undefined
    },
    read: (row: Rows[number] | undefined, sentAt: number, ttl: number) => Effect.Effect<A, LockBackendError>
  ): Effect.Effect<A, LockBackendError> {
    return Effect.callback((resume) => {
      let sentAt = 0
      let ttl = ttlOf(state)
      let isAbandoned = false
      batch.add({
        key: state.key,
        limit: Math.min(limit, ttl),
        write: (session, now) => {
          sentAt = now
          ttl = ttlOf(state)
          return isAbandoned ? undefined : write(ttl, session, now)
        },
        settled,
        // The caller's fiber reads, so that what throws there is no other call's.
        done: (row, failure) =>
          resume(
            failure === undefined
              ? Effect.suspend(() => read(row, sentAt, ttl))
              : Effect.fail(this.client.toError(operation, failure))
          )
      })
      return Effect.sync(() => {
        isAbandoned = true
      })
    })
  }

  private readonly writeAcquire = (state: State, place: bigint) => (ttl: number, session: Session, now: number) => {
    if (state.isOver) return undefined
    state.wasSent = true
    if (state.unanswered++ === 0) state.session = session
    const limit = Math.min(this.client.limit, ttl)
    const validUntil = Math.ceil((now + limit) * 1000 + this.ahead) + slackMicros
    state.validUntil = Math.max(state.validUntil, validUntil)
    const { key, owner, request } = state
    return [key, owner, BigInt(ttl), request.spare, BigInt(validUntil), place]
  }

  /** Takes the key if it is free; with a place, stands in line otherwise, or shows that it still does. */
  take(state: State, place: bigint = noPlace, surprises = 0): Effect.Effect<Taken, LockBackendError> {
    const call = {
      write: this.writeAcquire(state, place),
      settled: () => {
        if (--state.unanswered === 0) state.session = undefined
      }
    }
    return this.call(this.acquires, "acquire", state, call, (row, sentAt, ttl) => {
      if (row === undefined) return this.malformed("acquire", "this request was released before")
      const [_n, code, era, at, first, last, wanted, ticket, rank, remaining] = row
      const tokens = tokensOf(first, last)
      if (code === Code.granted && tokens !== undefined) {
        this.hold(state)
        tellWanted(state, wanted)
        return Effect.succeed<Taken>({ _tag: "Granted", grant: { validFrom: sentAt, ttl, tokens } })
      }
      if (code === Code.waiting) {
        const next = {
          ticket: typeof ticket === "bigint" ? ticket : noPlace,
          rank: Number(rank),
          remaining: Number(remaining)
        }
        return Effect.succeed<Taken>({ _tag: "Waiting", ...next })
      }
      const again = Effect.suspend(() => this.take(state, place, surprises + 1))
      if (code === Code.era && typeof era === "bigint" && surprises < maxSurprises) {
        return Effect.andThen(this.verify(era), again)
      }
      if (code === Code.stale && typeof at === "bigint" && surprises < maxSurprises) {
        this.ahead = Number(at) - sentAt * 1000
        return again
      }
      return this.malformed("acquire", `unexpected answer: ${shown(row)}`)
    })
  }

  /** Keeps it among what is renewed on another run of the server, and listens for it. */
  private hold(state: State): void {
    // It may have been released while it was verified.
    if (state.isOver) return
    this.held.add(state)
    this.listener.hold(state.owner, state.request)
  }

  /** Prolongs the grant; the tokens are new ones if `spare` is given. `none`: it is not ours any more. */
  private prolong<A>(
    state: State,
    { limit, spare = noTokens }: { readonly limit?: number, readonly spare?: number | undefined },
    read: (grant: Grant) => A
  ): Effect.Effect<Option.Option<A>, LockBackendError> {
    const write = (ttl: number) => [state.key, state.owner, BigInt(ttl), spare]
    return this.call(this.renewals, "renew", state, { limit, write }, (row, sentAt, ttl) => {
      if (row === undefined) {
        this.forget(state)
        return Effect.succeedNone
      }
      const [_n, era, first, last, wanted] = row
      const tokens = tokensOf(first, last)
      if (tokens === undefined || typeof era !== "bigint") {
        return this.malformed("renew", `unexpected answer: ${shown(row)}`)
      }
      if (era !== this.era) this.client.fork(Effect.ignore(this.verify(era)))
      tellWanted(state, wanted)
      return Effect.succeedSome(read({ validFrom: sentAt, ttl, tokens }))
    })
  }

  /**
   * Prolongs the grant, with new tokens if `spare` is given; `none`: it is not ours any more. One try takes a quarter of
   * the ttl, so that there is time for another one on another connection, which there is after `silence` at the earliest.
   */
  renew(state: State, spare: number | undefined): Effect.Effect<Option.Option<Validity>, LockBackendError> {
    const read: (grant: Grant) => Validity = spare === undefined ? withoutTokens : identity
    const limit = Math.min(this.client.limit, Math.max(ttlOf(state) / 4, this.client.silence))
    return this.prolong(state, { limit, spare }, read)
  }

  /** Believes a key that was handed over. */
  confirm(state: State): Effect.Effect<Option.Option<Grant>, LockBackendError> {
    return this.prolong(state, {}, (grant) => {
      this.hold(state)
      return grant
    })
  }

  /** Releases the key, leaves the line, and voids what is still on its way. */
  release(state: State): Effect.Effect<Released, LockBackendError> {
    state.isOver = true
    this.forget(state)
    if (!state.wasSent) return Effect.succeed("gone")
    const write = (_ttl: number, session: Session) => {
      const isBehind = session.inOrder && state.session === session
      const until = state.unanswered === 0 || isBehind ? 0 : state.validUntil
      return [state.key, state.owner, BigInt(until)]
    }
    return this.call(this.releases, "release", state, { write }, (row) => {
      const wasOurs = row?.[1]
      if (typeof wasOurs !== "boolean") return this.malformed("release", `unexpected answer: ${shown(row)}`)
      this.end(state)
      return Effect.succeed(wasOurs ? "released" : "gone")
    })
  }

  /**
   * Another run of the server answered: it was restarted, a standby was promoted, or it is another server. What is held
   * is renewed there before anything is granted, and what it does not have is lost.
   */
  private verify(era: bigint): Effect.Effect<void, LockBackendError> {
    return Effect.suspend(() => {
      if (this.era === era) return Effect.void
      if (this.verifying !== undefined) return this.client.join("acquire", this.verifying)
      const verifying = this.client.fork(this.renewAll(era))
      this.verifying = verifying
      // Called at once if it has ended already.
      verifying.addObserver(() => {
        if (this.verifying === verifying) this.verifying = undefined
      })
      return this.client.join("acquire", verifying)
    })
  }

  private renewAll(era: bigint): Effect.Effect<void, LockBackendError> {
    const renewOne = (state: State) =>
      Effect.map(this.confirm(state), (renewed) => {
        if (Option.isNone(renewed) && !state.isOver) state.request.onLost("taken")
      })
    return Effect.forEach([...this.held], renewOne, { concurrency: "unbounded", discard: true }).pipe(
      Effect.andThen(Effect.sync(() => {
        this.era = era
      }))
    )
  }
}
