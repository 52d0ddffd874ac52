// What the bench uses of drivers and peers that declare no types, or none that Node's resolution finds.

declare module "redlock" {
  interface Settings {
    readonly retryCount?: number
    readonly retryDelay?: number
    readonly retryJitter?: number
  }
  interface Lock {
    release(): Promise<unknown>
  }
  class Redlock {
    constructor(clients: Iterable<object>, settings?: Settings)
    acquire(resources: Array<string>, duration: number): Promise<Lock>
    using(resources: Array<string>, duration: number, routine: () => Promise<void>): Promise<void>
    on(event: "error", listener: (error: unknown) => void): this
  }
  export default Redlock
}
