/**
 * UUIDs of version 4 in one piece. `crypto.randomUUID` returns a rope of a dozen pieces, which takes half a kilobyte for
 * as long as the lease that it names, and twice the time.
 */
import { Buffer } from "node:buffer"

const size = 16
const random = new Uint8Array(256 * size)
let used = random.length

const digits = Buffer.from("0123456789abcdef")
const text = Buffer.from("00000000-0000-4000-8000-000000000000")
const dashes = new Set([8, 13, 18, 23])
/** Where the two digits of each byte stand in the text. */
const places = [...text.keys()].filter((at) => !dashes.has(at)).filter((_, digit) => digit % 2 === 0)

export const make = (): string => {
  if (used === random.length) {
    crypto.getRandomValues(random)
    used = 0
  }
  for (const place of places) {
    const byte = random[used++] ?? 0
    text[place] = digits[byte >> 4] ?? 0
    text[place + 1] = digits[byte & 15] ?? 0
  }
  // The version, and the variant.
  text[14] = 0x34
  text[19] = digits[8 + ((text[19] ?? 0) & 3)] ?? 0
  return text.toString("latin1")
}
