/**
 * From keys to names of `GET_LOCK`.
 *
 * A name has at most 64 characters on MySQL, which also folds case; MariaDB counts bytes and does not fold. So a key
 * of at most 64 characters out of `a-z 0-9 : _ . / -` is its own name, and any other is hashed: `#` and 52 characters
 * for its SHA-256. No key that is its own name contains `#`, so the two kinds cannot meet.
 */
import * as Crypto from "node:crypto"

const plain = /^[a-z0-9:_./-]{1,64}$/

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

/** RFC 4648 without padding, in lower case. */
const base32 = (bytes: Uint8Array): string => {
  let out = ""
  let buffer = 0
  let bits = 0
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte
    bits += 8
    while (bits >= 5) {
      bits -= 5
      out += alphabet.charAt((buffer >>> bits) & 31)
    }
    buffer &= 31
  }
  return bits === 0 ? out : out + alphabet.charAt((buffer << (5 - bits)) & 31)
}

/** The name of `prefix + key`. It needs no escaping between single quotes. */
export const of = (prefix: string, key: string): string => {
  const whole = prefix + key
  return plain.test(whole) ? whole : `#${base32(Crypto.createHash("sha256").update(whole).digest())}`
}
