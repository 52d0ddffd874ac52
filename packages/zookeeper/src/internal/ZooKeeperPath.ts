/**
 * Where the nodes of a key are, and what their names mean.
 */

const encoder = new TextEncoder()

const escape = (text: string): string =>
  Array.from(encoder.encode(text), (byte) => `~${byte.toString(16).padStart(2, "0")}`).join("")

/** What the server refuses in a path, and the escape character itself. */
const unsafe = /[~\p{Cc}\ud800-\uf8ff\ufff0-\uffff\u{10000}-\u{10ffff}]+/gu

/**
 * One level of a key as the name of a node. The lock nodes of `orders` and the node of `orders/42` are siblings, and
 * Curator takes every sibling with `lock-` in its name for a contender, and waits for every sibling that sorts before
 * its own ten digits.
 */
const nodeName = (segment: string): string => {
  const safe = segment.replace(unsafe, escape).replaceAll("lock-", `${escape("l")}ock-`)
  return safe < "1" ? escape(safe.slice(0, 1)) + safe.slice(1) : safe
}

const relative = (segment: string): boolean => segment === "." || segment === ".."

/** What is wrong with a key, as a sentence. */
export const keyProblem = (key: string): string | undefined => {
  const segments = key.split("/")
  if (segments.includes("")) return "a key is a path here: it has an empty segment, or begins or ends with a slash"
  if (segments.some(relative)) return "a key is a path here: the segments . and .. have no place in it"
  return undefined
}

/** What is wrong with a prefix, as a sentence. */
export const prefixProblem = (prefix: string): string | undefined => {
  const [root, ...segments] = prefix.split("/")
  const wellFormed = root === "" && segments.length > 0 && segments.every((segment) => segment !== "") &&
    !segments.some(relative) && prefix.search(unsafe) === -1
  return wellFormed ? undefined : `the prefix must be an absolute path such as /locks, not ${JSON.stringify(prefix)}`
}

/** The parent of the lock nodes of a key. */
export const directoryOf = (prefix: string, key: string): string =>
  `${prefix}/${key.split("/").map(nodeName).join("/")}`

/** The levels of a path, the topmost first, the path itself last. */
export const levels = (path: string): ReadonlyArray<string> => {
  const result: Array<string> = []
  for (let at = path.indexOf("/", 1); at !== -1; at = path.indexOf("/", at + 1)) result.push(path.slice(0, at))
  return [...result, path]
}

/** A node that never exists: `~` in a name is always followed by two digits. Deleting it is a write without effect. */
export const nowhere = (prefix: string): string => `${prefix}/~`

/** The beginning of the name of an attempt's node, as Curator's protected mode has it; the server adds ten digits. */
export const protectedName = (guid: string): string => `_c_${guid}-lock-`

/** Whether a node is one of this attempt. */
export const isProtected = (name: string, guid: string): boolean => name.startsWith(protectedName(guid))

const sequenceOf = (name: string): number | undefined => {
  const at = name.lastIndexOf("lock-")
  const digits = at === -1 ? "" : name.slice(at + "lock-".length)
  return /^-?\d+$/.test(digits) ? Number(digits) : undefined
}

/**
 * Who stands directly before `own` in the line. The server counts in 32 bits with a sign, so that after 2147483647
 * comes -2147483648: what counts is the distance, not the number.
 */
export const predecessor = (names: ReadonlyArray<string>, own: string): string | undefined => {
  const ours = sequenceOf(own) ?? 0
  let nearest: string | undefined
  let shortest = Number.POSITIVE_INFINITY
  for (const name of names) {
    const sequence = sequenceOf(name)
    if (sequence === undefined) continue
    const distance = (ours - sequence) | 0
    if (distance > 0 && distance < shortest) {
      nearest = name
      shortest = distance
    }
  }
  return nearest
}

/** Whether anybody holds the key or stands in line for it. */
export const isOccupied = (names: ReadonlyArray<string>): boolean =>
  names.some((name) => sequenceOf(name) !== undefined)
