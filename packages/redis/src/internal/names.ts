/**
 * The names under which one lock is stored. The lock itself is the plain key, to the letter, so that every client that
 * follows the Redis manual's recipe meets it. What else belongs to it lies beside it in the same hash slot, so that one
 * script may touch all of it in a cluster. Only the last token is one for all locks, whatever prefix they have: two clients
 * that mean the same key must find the same one.
 */

/** The keys of one lock. */
export interface LockNames {
  /** The owner, as a plain string with an expiry. */
  readonly lock: string
  /** A sorted set: the waiters' owners, by ticket. */
  readonly line: string
  /** A hash: until when each waiter counts as alive, and how to reach it. */
  readonly waiters: string
  /** A sorted set: withdrawn requests, by the time until which a copy of theirs may arrive. */
  readonly void: string
  /** The channel of the holder's process, as a string with an expiry, once the lock is held for longer than a moment. */
  readonly holder: string
}

/** What the names of our own keys have in common; a lock's key must not contain it. */
export const reserved = ":dlock-"

const slots = 16384

const crcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021
  return crc
})

const crc16 = (text: string): number => {
  let crc = 0
  for (const byte of Buffer.from(text)) crc = ((crc << 8) ^ (crcTable[((crc >> 8) ^ byte) & 0xff] ?? 0)) & 0xffff
  return crc
}

/** What Redis hashes of a key: what is between the first `{` and the first `}` after it, unless that is nothing. */
const hashTag = (key: string): string | undefined => {
  const open = key.indexOf("{")
  const close = open === -1 ? -1 : key.indexOf("}", open + 1)
  return close > open + 1 ? key.slice(open + 1, close) : undefined
}

/** The hash slot of a key, as Redis Cluster computes it. */
export const slotOf = (key: string): number => crc16(hashTag(key) ?? key) % slots

const numberBySlot = new Map<number, number>()
let nextNumber = 0

/** The smallest number whose text lies in a slot. */
const numberIn = (slot: number): number => {
  while (true) {
    const known = numberBySlot.get(slot)
    if (known !== undefined) return known
    const found = crc16(`${nextNumber}`) % slots
    if (!numberBySlot.has(found)) numberBySlot.set(found, nextNumber)
    nextNumber++
  }
}

/**
 * What the names of all that belongs to a lock begin with: in the slot of the key, and different for every key. There are
 * three forms. A key without braces becomes the hash tag of its companions. A key with a hash tag keeps it; `{k}` would
 * then have the companions of `k`, so theirs have another ending. A `}` elsewhere would end the tag early, so such a key
 * follows a number in the same slot. No key contains what is reserved, so the first of that in a name ends the key.
 */
export const baseOf = (key: string): string => {
  if (hashTag(key) !== undefined) return `${key}${reserved}tagged-`
  return key.includes("}") ? `{${numberIn(slotOf(key))}}:${key}${reserved}` : `{${key}}${reserved}`
}

export const namesOf = (key: string): LockNames => {
  const base = baseOf(key)
  return { lock: key, line: `${base}line`, waiters: `${base}waiters`, void: `${base}void`, holder: `${base}holder` }
}

/** The last fencing token that a server gave out, of whatever lock. */
export const fence = `${reserved}fence`

/** The same in a cluster, where each slot has its own. */
export const fenceInSlot = (key: string): string => `{${numberIn(slotOf(key))}}${reserved}fence`

/** A name that nothing is ever stored under, after the prefix. */
export const ping = "dlock-ping"

/** The longest ttl, in milliseconds: Redis adds the time of day to it and must not overflow. */
const maxTtl = 365_000 * 86_400_000

/** What is wrong with a key, with all that stands before it, or with a ttl. */
export const check = (key: string, ttl: number): string | undefined => {
  if (key.includes(reserved)) return `"${reserved}" marks the names of the lock's own keys`
  return ttl > maxTtl ? "Redis cannot count so long a ttl" : undefined
}
