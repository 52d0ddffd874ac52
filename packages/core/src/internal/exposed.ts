/**
 * A lease as users see it.
 */
import type { Lease } from "../Lease.ts"

export interface Printed extends Pick<Lease, "key" | "owner" | "backend" | "fencingToken"> {
  /** Of a permit. */
  readonly permit?: number | undefined
}

/** What a lease prints as: nothing of the application is reachable from it. */
export class ExposedLease implements Printed {
  readonly key: string
  readonly owner: string
  readonly backend: string
  readonly fencingToken: bigint
  declare readonly permit?: number | undefined

  constructor({ backend, fencingToken, key, owner, permit }: Printed) {
    this.key = key
    this.owner = owner
    this.backend = backend
    this.fencingToken = fencingToken
    if (permit !== undefined) this.permit = permit
  }

  toJSON(): unknown {
    const { backend, fencingToken, key, owner, permit } = this
    const printed = { _tag: "Lease", key, owner, backend, fencingToken: String(fencingToken) }
    return permit === undefined ? printed : { ...printed, permit }
  }

  toString(): string {
    return JSON.stringify(this)
  }

  [Symbol.for("nodejs.util.inspect.custom")](): unknown {
    return this.toJSON()
  }
}
