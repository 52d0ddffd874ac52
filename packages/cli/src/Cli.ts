/**
 * The program `dlock`: run a command under a distributed lock, see the holder of a key and its waiters, take a hold away.
 *
 * @since 0.1.0
 */
import type { Inspection, Lock } from "@dlock/core"
import { Options } from "@dlock/core/backend"
import { Argument, Command, Flag } from "effect/cli"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as backends from "./internal/backends.ts"
import { CliExit, codes, ofLockError } from "./internal/exit.ts"
import { run } from "./internal/run.ts"

const ExitCode = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 255 })))

const shared = {
  backend: Flag.Literals("backend", backends.names).pipe(
    Flag.withDescription("The backend. Default: the one that is enabled by DLOCK_<NAME>_ENABLED or by the file"),
    Flag.optional
  ),
  config: Flag.String("config").pipe(
    Flag.withDescription("The YAML file. Default: DLOCK_CONFIG, config.yaml, config/config.yaml"),
    Flag.optional
  )
}

const duration = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional)

const key = Argument.String("key").pipe(Argument.withDescription("What is locked"))

const written = Options.duration({ description: "A duration of the command line", zero: true, infinite: true })

/** Milliseconds, written as in the configuration. What they may be is said by what takes them. */
const parseDuration = (name: string, text: Option.Option<string>): Effect.Effect<number | undefined, CliExit> =>
  Option.match(text, {
    onNone: () => Effect.undefined,
    onSome: (text) =>
      Effect.mapError(
        Effect.fromResult(written.read(text)),
        (problem) => new CliExit({ code: codes.usage, detail: `--${name}: ${problem}` })
      )
  })

/** Runs a verb over the chosen backend. */
const withBackend = <A>(
  options: { readonly backend: Option.Option<string>, readonly config: Option.Option<string> },
  verb: (lock: Lock["Service"]) => Effect.Effect<A, CliExit>
): Effect.Effect<A, CliExit> =>
  Effect.scoped(
    Effect.flatMap(backends.open(Option.getOrUndefined(options.backend), Option.getOrUndefined(options.config)), verb)
  )

const chosen = { busy: codes.busy, lost: codes.lost }

const runCommand = Command.make("run", {
  ...shared,
  ttl: duration("ttl", "How long the backend keeps the lock without a renewal. Default: DLOCK_TTL, else 30s"),
  timeout: duration("timeout", "The longest wait. Default: DLOCK_TIMEOUT, else no limit; with --limit no limit"),
  ifAvailable: Flag.Boolean("if-available").pipe(
    Flag.withDescription("Do not wait: end at once when another owner holds the key"),
    Flag.withDefault(false)
  ),
  maxHold: duration("max-hold", "End the command when it has held the key for so long"),
  minHold: duration("min-hold", "Keep the key taken for at least this time"),
  limit: Flag.Int("limit").pipe(
    Flag.withDescription(
      "Run while fewer than so many others run under the key, 1 to 64. Default: one, under the lock"
    ),
    Flag.optional
  ),
  killAfter: duration(
    "kill-after",
    "SIGTERM comes this long before SIGKILL. Default: a sixth of the ttl; at most half of it"
  ),
  exitBusy: Flag.Int("exit-busy").pipe(Flag.withSchema(ExitCode), Flag.withDefault(codes.busy)),
  exitLost: Flag.Int("exit-lost").pipe(Flag.withSchema(ExitCode), Flag.withDefault(codes.lost)),
  key,
  command: Argument.String("command").pipe(
    Argument.withDescription("The command and its arguments, behind --"),
    Argument.variadic({ min: 1 })
  )
}, (options) =>
  Effect.gen(function*() {
    const [command = "", ...args] = options.command
    const killAfter = yield* parseDuration("kill-after", options.killAfter)
    const lock = {
      ttl: yield* parseDuration("ttl", options.ttl),
      timeout: yield* parseDuration("timeout", options.timeout),
      maxHold: yield* parseDuration("max-hold", options.maxHold),
      minHold: yield* parseDuration("min-hold", options.minHold)
    }
    const code = yield* withBackend(options, (service) =>
      run(service, {
        key: options.key,
        command,
        args,
        ifAvailable: options.ifAvailable,
        killAfter,
        limit: Option.getOrUndefined(options.limit),
        lock,
        exit: { busy: options.exitBusy, lost: options.exitLost }
      }))
    // The command has said itself what there is to say.
    if (code !== 0) yield* new CliExit({ code, detail: "" })
  })).pipe(
    Command.withDescription("Run a command while the key is held; it is ended when the lock is lost"),
    Command.withExamples([{
      command: "dlock run --backend redis nightly -- ./report.sh --all",
      description: "One at a time"
    }])
  )

const table = (inspection: Inspection): string => {
  const holder = Option.match(inspection.holder, {
    onNone: () => ["the key is free"],
    onSome: ({ owner, remaining, token }) => [
      `held by    ${owner ?? "an owner that the backend does not tell"}`,
      ...token === undefined ? [] : [`token      ${token}`],
      ...remaining === undefined
        ? []
        : [`ends in    ${Duration.format(Duration.millis(Math.round(remaining)))}, unless it is renewed`]
    ]
  })
  const waiting = typeof inspection.waiting === "number"
    ? [`waiting    ${inspection.waiting}`]
    : inspection.waiting.map((owner, i) => `waiting ${i + 1}  ${owner}`)
  return [...holder, ...waiting].join("\n")
}

const json = (inspection: Inspection): string =>
  JSON.stringify({
    holder: Option.match(inspection.holder, {
      onNone: () => null,
      onSome: ({ owner, remaining, token }) => ({ owner, token: token?.toString(), remaining })
    }),
    waiting: inspection.waiting
  })

const inspect = Command.make("inspect", {
  ...shared,
  json: Flag.Boolean("json").pipe(Flag.withDescription("One line of JSON"), Flag.withDefault(false)),
  key
}, (options) =>
  withBackend(options, (lock) =>
    lock.inspect(options.key).pipe(
      Effect.mapError((error) => ofLockError(error, chosen)),
      Effect.flatMap((inspection) => Console.log(options.json ? json(inspection) : table(inspection)))
    ))).pipe(Command.withDescription("Show the holder of the key and its waiters"))

const revoke = Command.make("revoke", {
  ...shared,
  key,
  owner: Argument.String("owner").pipe(Argument.withDescription("The owner as inspect shows it"))
}, (options) =>
  withBackend(options, (lock) =>
    lock.revoke(options.key, options.owner).pipe(
      Effect.mapError((error) => ofLockError(error, chosen)),
      Effect.flatMap((revoked) =>
        revoked ? Effect.void : Effect.fail(
          new CliExit({ code: codes.busy, detail: `Lock "${options.key}" is not held by ${options.owner}` })
        )
      )
    ))).pipe(Command.withDescription("Take the key away from exactly this owner"))

const ping = Command.make(
  "ping",
  shared,
  (options) => withBackend(options, (lock) => Effect.mapError(lock.ping, (error) => ofLockError(error, chosen)))
).pipe(
  Command.withDescription("Exit with 0 when locks can be taken")
)

/**
 * The command `dlock` with its subcommands. It fails with what it ends with: an exit code, and a line for standard error.
 *
 * @category commands
 * @since 0.1.0
 */
export const dlock = Command.make("dlock").pipe(
  Command.withDescription("Distributed locks on the command line"),
  Command.withSubcommands([runCommand, inspect, revoke, ping])
)
