/**
 * What a process of the bench can be asked, and what it answers.
 */
import type { Site } from "./Contender.ts"
import type { Backend } from "./contenders/index.ts"

/** Whose turn it is. */
export interface Subject {
  readonly backend: Backend
  readonly name: string
  readonly site: Site
}

/** From the entry of a critical section to the end of its work, in milliseconds of the machine's clock. */
export type Span = readonly [start: number, end: number]

export interface Tasks {
  /** Becomes a live-mutex server. */
  readonly broker: { readonly input: { readonly port: number }, readonly output: null }
  /** Waiters ask for one key each once, or once and again until the time is over. */
  readonly drain: {
    readonly input: Subject & {
      readonly keys: ReadonlyArray<string>
      readonly waiters: number
      readonly workMillis: number
      readonly againMillis: number
    }
    readonly output: { readonly spans: ReadonlyArray<ReadonlyArray<Span>>, readonly errors: ReadonlyArray<string> }
  }
  /** Takes more locks and keeps them. */
  readonly take: {
    readonly input: Subject & { readonly count: number, readonly ttlMillis: number }
    readonly output: { readonly perSecond: number, readonly heapPerLock: number, readonly residentPerLock: number }
  }
  /** What keeping them costs. */
  readonly watch: {
    readonly input: { readonly millis: number }
    readonly output: {
      readonly cpuPercent: number
      readonly writesPerSecond: number
      readonly bytesPerSecond: number
      readonly lagP99: number
      readonly lagMax: number
      readonly lost: number
    }
  }
  /** Gives them back. */
  readonly give: { readonly input: object, readonly output: { readonly millis: number } }
  /** Takes and releases keys beside those that it keeps; the milliseconds of each. */
  readonly pairs: {
    readonly input: Subject & { readonly keys: ReadonlyArray<string> }
    readonly output: ReadonlyArray<number>
  }
  /** Stands between clients and servers as a network with latency; answers the addresses to connect to instead. */
  readonly proxy: {
    readonly input: { readonly targets: ReadonlyArray<string>, readonly delayMillis: number }
    readonly output: ReadonlyArray<string>
  }
  /** How many round trips went through the proxy since the last time. */
  readonly trips: { readonly input: object, readonly output: number }
  /** Fibers take the key again and again; how often they had it. */
  readonly loop: {
    readonly input: Subject & {
      readonly key: string
      readonly fibers: number
      readonly millis: number
      readonly workMillis: number
    }
    readonly output: number
  }
}

export type TaskName = keyof Tasks

export type Handlers = { readonly [K in TaskName]: (input: Tasks[K]["input"]) => Promise<Tasks[K]["output"]> }

export interface Call {
  readonly id: number
  readonly task: TaskName
  readonly input: object
}

export type Reply =
  | { readonly id: number, readonly output: unknown }
  | { readonly id: number, readonly error: string }
