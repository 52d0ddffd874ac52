/**
 * The workers of a run, each a process in a place of its own; one that dies is replaced. And the register that they write,
 * which takes no token smaller than one that it has seen.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { bundled } from "../harness/Bundle.ts"
import { assemble, type Attempt, parse, type Worker, type Write } from "./History.ts"
import { now } from "./Monotonic.ts"
import { type Ask, type Order, type Spec, variable } from "./Spec.ts"

/** A process that was started, and what is known of its end. */
interface Member {
  readonly name: string
  readonly slot: number
  readonly log: string
  readonly child: ChildProcess.ChildProcess
  /** When it was killed by us, or was seen to be gone. */
  killed: number | undefined
  gone: boolean
  /** Whether it is known to take locks. */
  ready: boolean
}

/** The workers. */
export interface Crew {
  readonly slots: number
  /** Tells the worker in this place. */
  readonly order: (slot: number, order: Order) => Effect.Effect<void>
  readonly signal: (slot: number, signal: "SIGSTOP" | "SIGCONT" | "SIGKILL") => Effect.Effect<void>
  /** Whether its process stands still. */
  readonly isStopped: (slot: number) => boolean
  /** Stops replacing workers, and asks all of them to finish. Answers whether they did in time. */
  readonly quit: (limitMillis: number) => Effect.Effect<boolean>
  /** Whether every place has a worker that takes locks. */
  readonly areReady: () => boolean
  /** What they wrote down. */
  readonly record: () => { readonly workers: ReadonlyArray<Worker>, readonly attempts: ReadonlyArray<Attempt> }
  readonly register: ReadonlyArray<Write>
  /** The workers that ended by themselves, and what workers wrote to their standard error. */
  readonly crashes: () => ReadonlyArray<string>
}

const respawnMillis = 100

/** Hires a crew; the workers are killed when the scope closes. `spec` is asked anew for each worker. */
export const make = Effect.fnUntraced(function*(
  slots: number,
  folder: string,
  spec: (slot: number, generation: number) => Omit<Spec, "log" | "counters">
): Effect.fn.Return<Crew, never, Scope.Scope> {
  const counters = Path.join(folder, "counters")
  Fs.mkdirSync(counters)
  const errors = Fs.openSync(Path.join(folder, "errors"), "a")
  const members: Array<Member> = []
  const seats: Array<Member | undefined> = []
  const register: Array<Write> = []
  const greatest = new Map<string, bigint>()
  const timers = new Set<NodeJS.Timeout>()
  const crashed: Array<string> = []
  let closing = false

  const take = ({ key, token }: Ask): boolean => {
    const value = BigInt(token)
    if (value < (greatest.get(key) ?? 0n)) return false
    greatest.set(key, value)
    register.push({ at: now(), key, token: value })
    return true
  }

  const hire = (slot: number): void => {
    const generation = members.filter((member) => member.slot === slot).length
    const name = `${slot}.${generation}`
    const log = Path.join(folder, `${name}.log`)
    const full: Spec = { ...spec(slot, generation), log, counters }
    const child = ChildProcess.spawn(process.execPath, ["--no-warnings", bundled("worker")], {
      env: { ...process.env, NODE_OPTIONS: "", [variable]: JSON.stringify(full) },
      stdio: ["ignore", "ignore", errors, "ipc"]
    })
    const member: Member = { name, slot, log, child, killed: undefined, gone: false, ready: false }
    members.push(member)
    seats[slot] = member
    child.on("message", (ask: Ask) => tell(member, { do: "answer", a: ask.a, taken: take(ask) }))
    // What went wrong is told by `exit`.
    child.on("error", () => {})
    child.on("exit", (code, signal) => {
      member.killed ??= now()
      if (code !== 0 && signal !== "SIGKILL") crashed.push(`${name} ended with ${code ?? signal}`)
      member.gone = true
      if (closing) return
      const timer = setTimeout(() => {
        timers.delete(timer)
        hire(slot)
      }, respawnMillis)
      timers.add(timer)
    })
  }

  const tell = ({ child }: Member, order: Order): void => {
    if (child.connected) child.send(order, () => {})
  }

  const close = (): void => {
    closing = true
    for (const timer of timers) clearTimeout(timer)
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      close()
      for (const { child } of members) child.kill("SIGKILL")
      Fs.closeSync(errors)
    })
  )
  for (let slot = 0; slot < slots; slot++) hire(slot)

  const readLog = ({ log }: Member): string => Fs.existsSync(log) ? Fs.readFileSync(log, "utf8") : ""

  /** As the system tells it; empty when the process is gone. */
  const stateOf = ({ child }: Member): string => {
    try {
      return Fs.readFileSync(`/proc/${child.pid}/stat`, "utf8")
    } catch {
      return ""
    }
  }

  /** It is asked often, and the log grows. */
  const isReady = (member: Member): boolean => member.ready ||= readLog(member).includes(`"e":"ready"`)

  const kill = (member: Member): void => {
    if (!member.gone) member.killed ??= now()
    member.child.kill("SIGKILL")
  }

  return {
    slots,
    order: (slot, order) =>
      Effect.sync(() => {
        const member = seats[slot]
        if (member !== undefined) tell(member, order)
      }),
    signal: (slot, signal) =>
      Effect.sync(() => {
        const member = seats[slot]
        if (member === undefined || member.gone) return
        if (signal === "SIGKILL") kill(member)
        else member.child.kill(signal)
      }),
    isStopped: (slot) => {
      const member = seats[slot]
      return member !== undefined && /\) [Tt] /.test(stateOf(member))
    },
    quit: (limitMillis) =>
      Effect.gen(function*() {
        close()
        // One that is still being started, which takes long on a busy machine, has nothing that it could release.
        for (const member of members) if (!isReady(member)) kill(member)
        const until = now() + limitMillis
        while (members.some(({ gone }) => !gone) && now() < until) {
          // Again, because a worker may just have been started.
          for (const member of members) if (!member.gone) tell(member, { do: "quit" })
          yield* Effect.sleep(50)
        }
        // Whether it is stopped, waits or spins.
        for (const member of members) if (!member.gone) crashed.push(`${member.name} did not end: ${stateOf(member)}`)
        return members.every(({ gone }) => gone)
      }),
    areReady: () => seats.every((member) => member !== undefined && isReady(member)),
    record: () => {
      const parts = members.map((member) =>
        assemble(
          { name: member.name, slot: member.slot, killed: member.gone ? member.killed : undefined },
          parse(readLog(member))
        )
      )
      return {
        workers: parts.map(({ worker }) => worker),
        attempts: parts.flatMap(({ attempts }) => attempts)
      }
    },
    register,
    crashes: () => crashed.map((text) => `${text}\n${Fs.readFileSync(Path.join(folder, "errors"), "utf8")}`)
  }
})
