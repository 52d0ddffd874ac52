/**
 * Which verb of the lock a client asks for, read from what it sends.
 */
import * as RedlockScripts from "../../packages/redis/src/internal/redlock/scripts.ts"
import * as RedisScripts from "../../packages/redis/src/internal/scripts.ts"

/** A verb of the backend contract. */
export type Verb = "acquire" | "renew" | "release"

/** The verbs in a chunk of bytes, in their order. */
export type Reader = (bytes: Buffer) => ReadonlyArray<Verb>

/** Whether a chunk asks for this verb once, and for no other. */
export const asksOnlyFor = (read: Reader, verb: Verb) => (bytes: Buffer): boolean => {
  const verbs = read(bytes)
  return verbs.length === 1 && verbs[0] === verb
}

const verbOfScript: ReadonlyMap<string, Verb> = new Map([
  ...[true, false].map(RedisScripts.make).flatMap(({ acquire, confirm, release, renew }) =>
    [
      [acquire.sha1, "acquire"],
      [renew.sha1, "renew"],
      [confirm.sha1, "renew"],
      [release.sha1, "release"]
    ] as const
  ),
  [RedlockScripts.take.sha1, "acquire"],
  [RedlockScripts.hold.sha1, "renew"],
  [RedlockScripts.release.sha1, "release"]
])

/** Scripts are called by their names. */
export const redis: Reader = (bytes) =>
  bytes.toString("latin1").match(/\b[0-9a-f]{40}\b/g)?.flatMap((sha1) => verbOfScript.get(sha1) ?? []) ?? []

const mysqlCommands = { query: 3 } as const

/**
 * A statement as text; one that only looks which session has some locks is a renewal of them all. What a connection asks for again
 * is a prepared statement, which says nothing of what it does.
 */
export const mysql: Reader = (bytes) => {
  if (bytes[4] !== mysqlCommands.query) return []
  const text = bytes.toString("latin1")
  const asked = text.match(/GET_LOCK\(|RELEASE_LOCK\(/g) ?? []
  if (asked.length === 0) return text.includes("<=> CONNECTION_ID()") ? ["renew"] : []
  return asked.map((name): Verb => name.startsWith("G") ? "acquire" : "release")
}

/** By how many parameters its function takes; a prepared statement has no other name here. */
const postgresVerbs: ReadonlyMap<number, Verb> = new Map([[8, "acquire"], [4, "renew"], [3, "release"]])

/** Messages, each behind its type and its length; `Bind` has the names of a portal and of a statement, formats, and values. */
export const postgres: Reader = (bytes) => {
  const verbs: Array<Verb> = []
  for (let at = 0; at + 5 <= bytes.length; at += 1 + bytes.readUInt32BE(at + 1)) {
    if (bytes[at] === 0) break
    if (bytes.toString("latin1", at, at + 1) !== "B") continue
    const statement = bytes.indexOf(0, at + 5) + 1
    const formats = bytes.indexOf(0, statement) + 1
    if (formats + 2 > bytes.length) break
    const values = formats + 2 + 2 * bytes.readUInt16BE(formats)
    const verb = values + 2 > bytes.length ? undefined : postgresVerbs.get(bytes.readUInt16BE(values))
    if (verb !== undefined) verbs.push(verb)
  }
  return verbs
}

const zooKeeperTypes = { create: 1, delete: 2 } as const

/** Packets, each behind its length: transaction, type, path. A heartbeat removes a node that is not there. */
export const zooKeeper: Reader = (bytes) => {
  const verbs: Array<Verb> = []
  for (let at = 0; at + 16 <= bytes.length; at += 4 + bytes.readInt32BE(at)) {
    if (bytes.readInt32BE(at) <= 0) break
    const type = bytes.readInt32BE(at + 8)
    const path = bytes.toString("latin1", at + 16, at + 16 + Math.max(0, bytes.readInt32BE(at + 12)))
    const isPlace = /-lock-\d*$/.test(path)
    if (type === zooKeeperTypes.create && isPlace) verbs.push("acquire")
    else if (type === zooKeeperTypes.delete) verbs.push(isPlace ? "release" : "renew")
  }
  return verbs
}

interface Field {
  readonly number: number
  /** Of a number. */
  readonly size: number
  /** Of a text or message. */
  readonly bytes: Buffer | undefined
}

/** The fields of a protobuf message, as far as they are numbers and texts. */
const fields = (message: Buffer): ReadonlyArray<Field> => {
  const found: Array<Field> = []
  let at = 0
  const varint = (): number => {
    let value = 0
    for (let shift = 0; at < message.length; shift += 7) {
      const byte = message[at++] ?? 0
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) break
    }
    return value
  }
  while (at < message.length) {
    const tag = varint()
    const start = at
    const length = varint()
    if (tag % 8 === 0) found.push({ number: tag >> 3, size: at - start, bytes: undefined })
    else if (tag % 8 !== 2) break
    else {
      found.push({ number: tag >> 3, size: 0, bytes: message.subarray(at, at + length) })
      at += length
    }
  }
  return found
}

const etcdOperations = { put: 2, delete: 3 } as const
/** The id of a lease has 63 bits, nearly all of them used. */
const leaseIdSize = 8

const verbOfMessage = (message: Buffer): Verb | undefined => {
  const [head, ...rest] = fields(message)
  // Keeping a lease alive is nothing but its id.
  if (head?.number === 1 && head.size >= leaseIdSize && rest.length === 0) return "renew"
  // What a transaction does when its comparisons hold: an attempt enters the line, or leaves it.
  const operations = [head, ...rest].flatMap((field) =>
    field?.number === 2 && field.bytes !== undefined ? fields(field.bytes).map(({ number }) => number) : []
  )
  if (operations.includes(etcdOperations.delete)) return "release"
  return operations.includes(etcdOperations.put) ? "acquire" : undefined
}

const frame = { header: 9, data: 0, messageHeader: 5 } as const

/** Frames of HTTP/2, whose data are messages of gRPC, each behind its length. */
export const etcd: Reader = (bytes) => {
  const verbs: Array<Verb> = []
  for (let at = 0; at + frame.header <= bytes.length; at += frame.header + bytes.readUIntBE(at, 3)) {
    if (bytes[at + 3] !== frame.data) continue
    const start = at + frame.header + frame.messageHeader
    if (start > bytes.length) break
    const message = bytes.subarray(start, start + bytes.readUInt32BE(start - 4))
    const verb = verbOfMessage(message)
    if (verb !== undefined) verbs.push(verb)
  }
  return verbs
}
