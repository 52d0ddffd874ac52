/**
 * What has to be known of a server before locks are put on it, at each connection.
 */
import * as Effect from "effect/Effect"
import type { Failure } from "./errors.ts"
import { isAnswer, passes, reasonOf } from "./errors.ts"

/** Sends one command, and waits for its answer; `sentAt` is the monotonic time in milliseconds. */
export type Send = (
  command: string,
  ...args: ReadonlyArray<string>
) => Effect.Effect<{ readonly reply: unknown, readonly sentAt: number }, Failure>

/** What is known of a server. */
export interface Server {
  /** Its clock minus our monotonic one, in µs. */
  readonly clockAhead: number
  /** Which process it is, if it tells. */
  readonly runId: string | undefined
  /** What its operator should know. */
  readonly warning: string | undefined
}

const unfit = (detail: string): Effect.Effect<never, Failure> =>
  Effect.fail({ _tag: "Unfit", detail, isReplica: false })

const field = (info: string, name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1]

/** A server that does not tell about itself, because the command is renamed or forbidden, is taken as it is. */
const ifTold = (failure: Failure): boolean => failure._tag === "Failed" && isAnswer(failure.cause) && !passes(failure)

const loading: Failure = {
  _tag: "Failed",
  cause: Object.assign(new Error("LOADING the server is loading its data"), { name: "ReplyError" })
}

const replica = (host: unknown, port: unknown): Effect.Effect<never, Failure> =>
  Effect.fail({
    _tag: "Unfit",
    detail: `it is a replica of ${host}:${port}, and only a master can hold locks; name the master`,
    isReplica: true
  })

/** Fails if a server is in another mode than is expected, is a replica, or too old. */
const checkInfo = Effect.fnUntraced(function*(info: string, expected: "cluster" | "standalone") {
  if (field(info, "loading") === "1") return yield* Effect.fail(loading)
  const version = field(info, "redis_version")
  if (version !== undefined && Number.parseInt(version, 10) < 5) {
    return yield* unfit(`Redis 5 or newer is needed, this is ${version}`)
  }
  // Valkey calls it by another name.
  const mode = field(info, "redis_mode") ?? field(info, "server_mode") ?? expected
  if (mode !== expected) {
    const right = mode === "standalone" ? "single" : mode
    return yield* unfit(`the server runs in ${mode} mode; set the option "mode" to "${right}"`)
  }
  if (mode === "standalone" && field(info, "role") === "slave") {
    return yield* replica(field(info, "master_host"), field(info, "master_port"))
  }
})

const checkRole = Effect.fnUntraced(function*(send: Send) {
  const { reply } = yield* Effect.catchIf(send("role"), ifTold, () => Effect.succeed({ reply: undefined }))
  const [role, host, port]: Array<unknown> = Array.isArray(reply) ? reply : []
  if (role === "slave") return yield* replica(host, port)
})

const warningOf = (info: string): string | undefined => {
  const policy = field(info, "maxmemory_policy") ?? "noeviction"
  return policy === "noeviction" || field(info, "maxmemory") === "0"
    ? undefined
    : `with maxmemory-policy ${policy} a full server deletes locks that are held; set noeviction`
}

/** What TIME answered as the server's clock minus our monotonic one, in µs. */
export const clockAhead = (time: unknown, sentAt: number): number | undefined => {
  const [seconds, micros]: Array<unknown> = Array.isArray(time) ? time : []
  const ahead = Number(seconds) * 1_000_000 + Number(micros) - sentAt * 1000
  return Number.isFinite(ahead) ? ahead : undefined
}

/** Asks for the time by a script, which shows that the server runs scripts. */
const scriptedTime = (send: Send) =>
  Effect.catchIf(
    send("eval", "return redis.call('TIME')", "0"),
    (failure) => failure._tag === "Failed" && reasonOf(failure.cause) === "Unsupported",
    () => unfit("it does not run Lua scripts (EVAL is renamed, forbidden, or missing)")
  )

/** Looks at a server: fails if it cannot carry locks. */
export const check = Effect.fnUntraced(function*(
  send: Send,
  expected: "cluster" | "standalone"
): Effect.fn.Return<Server, Failure> {
  const { reply } = yield* Effect.catchIf(send("info"), ifTold, () => Effect.succeed({ reply: "" }))
  const info = String(reply)
  yield* checkInfo(info, expected)
  if (field(info, "role") === undefined && expected === "standalone") yield* checkRole(send)
  const time = yield* scriptedTime(send)
  const ahead = clockAhead(time.reply, time.sentAt)
  if (ahead === undefined) return yield* unfit("it does not tell its time")
  return { clockAhead: ahead, runId: field(info, "run_id"), warning: warningOf(info) }
})
