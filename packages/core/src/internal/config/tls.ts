/**
 * How TLS is written: whether it is on, and each certificate by itself.
 */
import * as Result from "effect/Result"
import type { Input } from "../../backend/Tls.ts"
import { decodePart, type Written, type Wrong } from "./declaration.ts"
import * as value from "./value.ts"

/** What may be written of certificates. */
export const certificateParts = {
  ca: { kind: value.text, description: "The authorities to trust: PEM, or the path of a file." },
  cert: { kind: value.text, description: "The client's certificate: PEM, or the path of a file." },
  key: { kind: value.secret, description: "The private key of the client's certificate: PEM, or the path of a file." },
  passphrase: { kind: value.secret, description: "The passphrase of the private key." },
  serverName: { kind: value.text, description: "The name that the server's certificate has to be for." }
}

/** TLS as code would give it. */
export const decodeTls = (written: Written): Result.Result<Input, ReadonlyArray<Wrong>> => {
  const wrong: Array<Wrong> = []
  const part = <T>(kind: value.Kind<T>, suffix: string): { readonly [name: string]: T } =>
    suffix in written
      ? Result.match(decodePart(kind, suffix, written[suffix]), {
        onFailure: (problem) => {
          wrong.push(problem)
          return {}
        },
        onSuccess: (value) => ({ [suffix]: value })
      })
      : {}
  const { ca, cert, key, passphrase, serverName } = certificateParts
  const { "": on } = part(value.flag, "")
  const certificates = {
    ...part(ca.kind, "ca"),
    ...part(cert.kind, "cert"),
    ...part(key.kind, "key"),
    ...part(passphrase.kind, "passphrase"),
    ...part(serverName.kind, "serverName")
  }
  if (wrong.length > 0) return Result.fail(wrong)
  // `false` stands over certificates that are written somewhere else.
  return Result.succeed(on === false || Object.keys(certificates).length === 0 ? on === true : certificates)
}
