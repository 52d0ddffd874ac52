/**
 * Certificates that the test makes, by OpenSSL: an authority, and what it signs.
 */
import { Effect, FileSystem, Path } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"

/** Paths of PEM files. */
export interface Signed {
  readonly cert: string
  readonly key: string
}

/** Does not block: other tests of the process go on meanwhile, with their time limits. */
export const openssl = (...args: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.asVoid(Effect.promise(() => promisify(execFile)("openssl", args)))

/** An authority in a folder of its own, which the scope removes. */
export const authority = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "dlock-tls-" })
  const file = (name: string) => path.join(folder, name)
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
  yield* openssl(
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.pem"),
    "-days",
    "2",
    "-subj",
    "/CN=dlock test authority"
  )
  /** Signs a certificate for this name; a server's is for its alternative names too. */
  const sign = Effect.fnUntraced(function*(name: string, server: boolean, alternative = `DNS:${name},IP:127.0.0.1`) {
    const signed: Signed = { cert: file(`${name}.pem`), key: file(`${name}.key`) }
    const request = file(`${name}.csr`)
    const extensions = file(`${name}.ext`)
    yield* openssl("req", "-new", ...newKey, "-keyout", signed.key, "-out", request, "-subj", `/CN=${name}`)
    yield* fs.writeFileString(
      extensions,
      server
        ? `subjectAltName=${alternative}\nextendedKeyUsage=serverAuth`
        : "extendedKeyUsage=clientAuth"
    )
    yield* openssl(
      "x509",
      "-req",
      "-in",
      request,
      "-CA",
      file("ca.pem"),
      "-CAkey",
      file("ca.key"),
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      extensions,
      "-out",
      signed.cert
    )
    return signed
  })
  /** The same key behind a passphrase. */
  const encrypt = Effect.fnUntraced(function*({ key }: Signed, passphrase: string) {
    const encrypted = `${key}.encrypted`
    yield* openssl("pkcs8", "-topk8", "-in", key, "-out", encrypted, "-passout", `pass:${passphrase}`)
    return encrypted
  })
  return { folder, ca: file("ca.pem"), sign, encrypt }
})
