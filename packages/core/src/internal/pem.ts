/**
 * Certificates and keys as the file system and OpenSSL have them: the only file of core that needs Node, which is loaded
 * when it is used, so that core itself runs anywhere.
 */
import * as Effect from "effect/Effect"
import type { X509Certificate } from "node:crypto"

const crypto = Effect.promise(() => import("node:crypto"))
const files = Effect.promise(() => import("node:fs/promises"))

const words: { readonly [code in string]?: string } = {
  ENOENT: "there is no such file",
  EACCES: "reading this file is not permitted",
  EISDIR: "this is not a file"
}

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "an unknown error"

/** The text of a file. Fails with a sentence that names it. */
export const readText = (path: string): Effect.Effect<string, string> =>
  Effect.flatMap(files, ({ readFile }) =>
    Effect.tryPromise({
      try: (signal) => readFile(path, { encoding: "utf8", signal }),
      catch: (error) => `${JSON.stringify(path)}: ${words[codeOf(error)] ?? `reading it failed: ${codeOf(error)}`}`
    }))

const blocks = /-----BEGIN [^-]+-----[^]*?-----END [^-]+-----/g

/** The certificates of a PEM text; fails when there is none, or one that cannot be read. */
export const certificates = (pem: string): Effect.Effect<ReadonlyArray<X509Certificate>, string> =>
  Effect.flatMap(crypto, ({ X509Certificate }) =>
    Effect.try({
      try: () => (pem.match(blocks) ?? []).map((block) => new X509Certificate(block)),
      catch: () => "a certificate in it cannot be read"
    })).pipe(Effect.filterOrFail((found) => found.length > 0, () => "there is no certificate in it"))

/** A private key without its passphrase, as PEM. OpenSSL's own words are left out, for they do not help. */
export const plainKey = (pem: string, passphrase: string | undefined): Effect.Effect<string, string> =>
  Effect.flatMap(crypto, ({ createPrivateKey }) =>
    Effect.try({
      try: () =>
        createPrivateKey(passphrase === undefined ? pem : { key: pem, passphrase })
          .export({ type: "pkcs8", format: "pem" })
          .toString(),
      catch: () => {
        if (passphrase !== undefined) return "it is no private key that this passphrase opens"
        return pem.includes("ENCRYPTED") ? "it needs a passphrase" : "there is no private key in it"
      }
    }))

/** Whether a key is the one that a certificate is for. */
export const belongs = (certificate: X509Certificate, key: string): Effect.Effect<boolean> =>
  Effect.map(crypto, ({ createPrivateKey }) => certificate.checkPrivateKey(createPrivateKey(key)))
