/**
 * The names under which one lock is stored. The lock itself is the plain key, to the letter, so that every client that
 * follows the Redis manual's recipe meets it. What else belongs to it lies beside it in the same hash slot, so that one
 * script may touch all of it in a cluster. Only the last token is one for all locks, whatever prefix they have: two clients
 * that mean the same key must find the same one.
 */

/** The keys of one lock. */
export interface LockKeys {
  /** The owner, as a plain string with an expiry. */
  readonly lock: string
  /** A sorted set: who waits, by ticket. */
  readonly line: string
  /** A hash: until when each of them counts as alive, and how to reach it. */
  readonly waiters: string
  /** A sorted set: the attempts that were given back, by the time until which a request of theirs may arrive. */
  readonly void: string
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
 * A name in the slot of the key, which no other key leads to. A key with a hash tag keeps it, and one without can be
 * made the tag of its companions, unless it contains a `}`, which would end the tag early.
 */
const companion = (key: string): string => {
  if (hashTag(key) !== undefined) return key
  return key.includes("}") ? `{${numberIn(slotOf(key))}}:${key}` : `{${key}}`
}

/** What the names of all that belongs to a lock begin with. */
export const baseOf = (key: string): string => companion(key) + reserved

export const keysOf = (key: string): LockKeys => {
  const base = baseOf(key)
  return { lock: key, line: `${base}line`, waiters: `${base}waiters`, void: `${base}void` }
}

/** The last fencing token that a server gave out, of whatever lock. */
export const fence = `${reserved}fence`

/** The same in a cluster, where each slot has its own. */
export const fenceInSlot = (key: string): string => `{${numberIn(slotOf(key))}}${reserved}fence`
