/**
 * `dlock run`: a command that runs while its key is held, and no longer.
 */
import { type Lease, Lock, type LockError, withPermit } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as child from "./child.ts"
import { type Chosen, CliExit, codes, ofLockError } from "./exit.ts"

/** What `dlock run` is told. Times in milliseconds. */
export interface Run {
  readonly key: string
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly ifAvailable: boolean
  readonly killAfter: number | undefined
  /** How many run at a time; `undefined`: one, under the lock itself. */
  readonly limit: number | undefined
  readonly lock: Lock.Options
  readonly exit: Chosen
}

/** How often the watcher is told, in parts of the time that was left at the start. */
const parts = 12
const shortest = 20

/** The command's exit code; it is ended when the lease is lost. */
const underLease = (run: Run, lease: Lease): Effect.Effect<number, CliExit> =>
  Effect.scoped(Effect.gen(function*() {
    const ttl = Duration.toMillis(yield* lease.remaining)
    // A renewal that comes in time, at a third of the ttl, must not come too late for the watcher.
    const killAfter = Math.min(run.killAfter ?? ttl / 6, ttl / 2)
    const watcher = yield* child.watch(killAfter)
    let until = child.now() + Duration.toMillis(yield* lease.remaining)
    // What the watcher has ended stays ended, also when the lease is renewed after that.
    const isEnded = (): boolean => child.now() >= until - killAfter
    const environment = {
      DLOCK_KEY: lease.key,
      DLOCK_OWNER: lease.owner,
      DLOCK_FENCING_TOKEN: String(lease.fencingToken),
      ...isPermit(lease) && { DLOCK_PERMIT: String(lease.permit) }
    }
    const command = yield* Effect.acquireRelease(
      child.start(run.command, run.args, environment, (pid) => watcher.protect(pid, until)),
      // Whatever ends this scope: the group is not left behind, and what is not protected any more has no time left.
      (command) =>
        Effect.flatMap(lease.remaining, (left) => terminate(command, Math.min(killAfter, Duration.toMillis(left))))
    )
    const protect = Effect.suspend(() => {
      const now = child.now()
      return Effect.map(lease.remaining, (left) => {
        if (isEnded()) return
        until = now + Duration.toMillis(left)
        watcher.protect(command.pid, until)
      })
    })
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(protect, Effect.sleep(Math.max(shortest, ttl / parts)))))
    const unwatched = Effect.andThen(
      watcher.died,
      Effect.fail(
        new CliExit({ code: codes.unavailable, detail: "the process that watches over the command has died" })
      )
    )
    const code = yield* Effect.raceFirst(command.exit, Effect.raceFirst(unwatched, lost(run, lease)))
    // The watcher ends the command before the deadline, so that it has the time to stop by itself.
    if (!isEnded() && Duration.toMillis(yield* lease.remaining) > killAfter) return code
    return yield* new CliExit({
      code: run.exit.lost,
      detail: `Lock "${lease.key}" ran out: no renewal was answered in time, or --max-hold is over`
    })
  }))

const isPermit = (lease: Lease): lease is Lock.Permit => "permit" in lease

const lost = (run: Run, lease: Lease): Effect.Effect<never, CliExit> =>
  Effect.mapError(lease.lost, (error) => ofLockError(error, run.exit))

const terminate = (command: child.Command, killAfter: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    yield* command.signal("SIGTERM")
    yield* Effect.raceFirst(Effect.asVoid(command.exit), Effect.sleep(killAfter))
    yield* command.signal("SIGKILL")
  })

/** Runs the command under the key, and answers with its exit code. */
export const run = (lock: Lock["Service"], options: Run): Effect.Effect<number, CliExit> => {
  // The lease is not released by an interruption before the command has ended, so the program is a section.
  const section = (lease: Lease) => Effect.result(underLease(options, lease))
  const toExit = (error: LockError): CliExit => ofLockError(error, options.exit)
  const held = Effect.mapError(underLock(lock, options, section), toExit)
  if (process.platform === "win32") return Effect.fail(noGroups)
  return options.limit !== undefined && options.lock.minHold !== undefined
    ? Effect.fail(noMinHold)
    : Effect.flatMap(held, Effect.fromResult)
}

/** In the section of the lock, or of a permit. A single attempt tells the holder, where it fails. */
const underLock = <A>(lock: Lock["Service"], { ifAvailable, key, limit, lock: given }: Run, section: Section<A>) => {
  const options = ifAvailable ? { ...given, timeout: 0 } : given
  return limit === undefined
    ? lock.withLock(key, section, options)
    : Effect.provideService(withPermit(key, { limit }, section, options), Lock, lock)
}

type Section<A> = (lease: Lease) => Effect.Effect<A>

const noMinHold = new CliExit({ code: codes.usage, detail: "--min-hold does not go with --limit" })

const noGroups = new CliExit({
  code: codes.unavailable,
  detail: "run needs process groups, which Windows does not have: the command could not be ended when the lock is lost"
})
