/**
 * Where the nodes of a key are, and what their names mean.
 */

const encoder = new TextEncoder()

const escape = (text: string): string =>
  Array.from(encoder.encode(text), (byte) => `~${byte.toString(16).padStart(2, "0")}`).join("")

/** What marks a contender for Curator. */
const contenderMark = "lock-"
const escapedMark = `${escape(contenderMark.slice(0, 1))}${contenderMark.slice(1)}`

/** What the server refuses in a path, and the escape character itself. */
const unsafe = /[~\p{Cc}\ud800-\uf8ff\ufff0-\uffff\u{10000}-\u{10ffff}]+/gu

/**
 * One level of a key as the name of a node. The lock nodes of `orders` and the node of `orders/42` are siblings, and
 * Curator takes every sibling with `lock-` in its name for a contender, and waits for every sibling that sorts before
 * its own ten digits.
 */
const nodeName = (segment: string): string => {
  const safe = segment.replace(unsafe, escape).replaceAll(contenderMark, escapedMark)
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

/** The beginning of the name of a request's node, as Curator's protected mode has it; the server adds ten digits. */
export const protectedName = (guid: string): string => `_c_${guid}-lock-`

/** Whether a node is one of this request. */
export const isProtected = (name: string, guid: string): boolean => name.startsWith(protectedName(guid))

const sequenceOf = (name: string): number | undefined => {
  const at = name.lastIndexOf(contenderMark)
  const digits = at === -1 ? "" : name.slice(at + contenderMark.length)
  return /^-?\d+$/.test(digits) ? Number(digits) : undefined
}

/** The nodes of the holder and of the waiters. */
export const contenders = (names: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.filter((name) => sequenceOf(name) !== undefined)

/**
 * Whether the numbers no longer tell the order. The server counts in 32 bits with a sign: it hands out 2147483647 more
 * than once then, and negative numbers in between.
 */
export const hasOverflowed = (names: ReadonlyArray<string>): boolean =>
  names.some((name) => {
    const sequence = sequenceOf(name) ?? 0
    return sequence < 0 || sequence >= 2 ** 31 - 1
  })

/** The nodes before `own` in the line, the nearest first, two at most. */
export const ahead = (names: ReadonlyArray<string>, own: string): ReadonlyArray<string> => {
  const ours = sequenceOf(own) ?? 0
  let nearest: { readonly name: string, readonly sequence: number } | undefined
  let next: typeof nearest
  for (const name of names) {
    const sequence = sequenceOf(name) ?? ours
    if (sequence >= ours) continue
    if (nearest === undefined || sequence > nearest.sequence) [nearest, next] = [{ name, sequence }, nearest]
    else if (next === undefined || sequence > next.sequence) next = { name, sequence }
  }
  return [nearest, next].flatMap((node) => node === undefined ? [] : [node.name])
}

const uuid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Whose node it is: the owner in its data, or the name of the node where it is not one of ours. */
export const ownerOf = (name: string, text: string): string => uuid.test(text) ? text : name

export const nodeIn = (directory: string, name: string): string => `${directory}/${name}`

export const nameOf = (node: string): string => node.slice(node.lastIndexOf("/") + 1)
