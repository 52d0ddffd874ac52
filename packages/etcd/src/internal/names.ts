/**
 * Where locks stand in etcd. The line of a lock named `k` is the prefix `k/`, as it is for `etcdctl lock k`; each holder
 * and waiter is a key in it, and the oldest create revision holds the lock.
 */

/** `/` separates a lock's name from its line, and `%` stands for what is no part of a name. */
const escape = (text: string): string => text.replace(/[%/]/g, (char) => char === "%" ? "%25" : "%2F")

const unescape = (text: string): string => text.replace(/%25|%2F/g, (code) => code === "%25" ? "%" : "/")

/** What stands before the name of every lock. */
export const root = (prefix: string): string => {
  const trimmed = prefix.replace(/\/+$/, "")
  return trimmed === "" ? "" : `${trimmed}/`
}

/** The keys of one lock. */
export interface LockKeys {
  /** Every key that begins with this is a holder or waiter. Ends with `/`. */
  readonly line: string
  /** The key of an owner on a lease, in the line. */
  readonly place: (lease: string, owner: string) => string
  /**
   * The void mark of a request. It is outside of the line, where it is not taken for a waiter, but below the lock's
   * name, so that a role that may write the one may write the other. No escaped name contains `%v`.
   */
  readonly mark: (owner: string) => string
}

export const of = (root: string, key: string): LockKeys => {
  const name = root + escape(key)
  return {
    line: `${name}/`,
    place: (lease, owner) => `${name}/${BigInt(lease).toString(16)}-${escape(owner)}`,
    mark: (owner) => `${name}%void/${escape(owner)}`
  }
}

/** The end of the range of all keys that begin with `line`: `0` is the character after `/`. */
export const endOf = (line: string): string => `${line.slice(0, -1)}0`

/** The owner at a place, and `undefined` for a key that is not of this backend, such as that of `etcdctl`. */
export const ownerOf = (line: string, place: string): string | undefined => {
  const [, owner] = /^[0-9a-f]+-([^/]+)$/.exec(place.slice(line.length)) ?? []
  return owner === undefined ? undefined : unescape(owner)
}

/** A key that is never put: a request that would put it asks whether requests of this kind pass. No escaped name contains `%p`. */
export const ping = (root: string): string => `${root}%ping`
