/**
 * What a worker is told when it is started, and what is said between it and the run.
 */

/** Where a worker finds its backend, over roads of its own. Addresses are `host:port`. */
export type Connection =
  | { readonly kind: "memory" }
  | { readonly kind: "redis", readonly addr: string }
  | { readonly kind: "redis-cluster", readonly addrs: ReadonlyArray<string>, readonly roads: Roads }
  | {
    readonly kind: "redis-sentinel"
    readonly addrs: ReadonlyArray<string>
    readonly masterName: string
    readonly roads: Roads
  }
  | { readonly kind: "redlock", readonly nodes: ReadonlyArray<string> }
  | { readonly kind: "etcd", readonly endpoints: ReadonlyArray<string> }
  | {
    readonly kind: "mysql"
    readonly addr: string
    readonly username: string
    readonly password: string
    readonly database: string
  }
  /** `ledger`: where the application writes in transactions that are fenced. */
  | { readonly kind: "postgres", readonly url: string, readonly ledger?: string | undefined }
  | { readonly kind: "zookeeper", readonly servers: ReadonlyArray<string>, readonly sessionTimeout: number }

/** From the address that the servers tell of themselves to the road that leads there. */
export type Roads = Readonly<Record<string, string>>

/** Of a worker. Times in milliseconds. */
export interface Spec {
  readonly connection: Connection
  /** How many layers it builds, each a process to the others. */
  readonly layers: number
  readonly ttl: number
  readonly seed: number
  readonly keys: ReadonlyArray<string>
  /** Taken by one fiber of each layer, for about the ttl and longer. */
  readonly longKey: string
  /** Taken by one fiber of each layer, with pauses: often no fiber waits for it. */
  readonly rareKey: string
  /** What one fiber of each layer leads. */
  readonly leaderKey: string
  /** What a few fibers of each layer use permits of, and how many of these there are. */
  readonly permitsKey: string
  readonly limit: number
  /** Of each layer. */
  readonly fibers: number
  /** Where it writes what it does. */
  readonly log: string
  /** Where the counters are, a file for each key. */
  readonly counters: string
}

/** Below the environment variable of this name. */
export const variable = "DLOCK_FAULTS_WORKER"

/** The moment at which a worker does what it is told: under the lock, or while it waits for it. */
export type Moment = "holding" | "waiting"

/** What a worker is told; what is to be done at some moment is not done after `until`, of the shared clock. */
export type Order =
  | { readonly do: "block", readonly at: Moment, readonly until: number, readonly millis: number }
  /** Stays under the lock for so much longer, without blocking anything. */
  | { readonly do: "linger", readonly at: "holding", readonly until: number, readonly millis: number }
  | { readonly do: "stop", readonly at: Moment, readonly until: number }
  | { readonly do: "die", readonly at: Moment, readonly until: number }
  | { readonly do: "quit" }
  /** The register's answer. */
  | { readonly do: "answer", readonly a: number, readonly taken: boolean }

/** What a worker asks of the register. */
export interface Ask {
  readonly a: number
  readonly key: string
  readonly token: string
}
