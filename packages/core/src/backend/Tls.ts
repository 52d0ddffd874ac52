/**
 * TLS as users ask for it: the same shape for every backend, with certificates that are read anew at each connect, so
 * that rotated ones are picked up.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { hint } from "../internal/config/names.ts"
import { show } from "../internal/config/show.ts"
import * as pem from "../internal/pem.ts"

/**
 * Certificates of one's own. Each text is PEM, or the path of a file with PEM in it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Certificates {
  /** The authorities to trust, instead of those that Node trusts. */
  readonly ca?: string | undefined
  /** The client's certificate, and those between it and the authority. Needs `key`. */
  readonly cert?: string | undefined
  /** The private key of `cert`. */
  readonly key?: string | Redacted.Redacted | undefined
  /** The passphrase of `key`. */
  readonly passphrase?: string | Redacted.Redacted | undefined
  /** The name that the server's certificate has to be for. Default: the host of the address. */
  readonly serverName?: string | undefined
}

/**
 * TLS as an option takes it. `true`: trust the authorities that Node trusts.
 *
 * @category models
 * @since 0.1.0
 */
export type Input = boolean | Certificates

/**
 * What `node:tls` takes, each as a PEM text; the key has no passphrase any more.
 *
 * @category models
 * @since 0.1.0
 */
export interface Material {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly servername?: string
}

/**
 * TLS as a backend uses it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tls {
  /** The material of now, to be run at each connect. Fails with a sentence that names the option and the file. */
  readonly get: Effect.Effect<Redacted.Redacted<Material>, string>
}

const pemOrPath = "PEM, or the path of a file"
const wanted = {
  ca: pemOrPath,
  cert: pemOrPath,
  key: `${pemOrPath}, as text or Redacted`,
  passphrase: "a text or a Redacted one",
  serverName: "a text"
}
type Field = keyof typeof wanted
const fields = Object.keys(wanted)
type Texts = { readonly [field in Field]?: string }

const isField = (name: string): name is Field => Object.hasOwn(wanted, name)

const textOf = (value: unknown): unknown => Redacted.isRedacted(value) ? Redacted.value(value) : value

const isPem = (text: string): boolean => text.includes("-----BEGIN ")

const named = (field: Field) => <A>(self: Effect.Effect<A, string>): Effect.Effect<A, string> =>
  Effect.mapError(self, (problem) => `${field}: ${problem}`)

const load = (texts: Texts, field: "ca" | "cert" | "key"): Effect.Effect<string | undefined, string> => {
  const text = texts[field]
  return named(field)(text === undefined || isPem(text) ? Effect.succeed(text) : pem.readText(text))
}

const materialOf = Effect.fnUntraced(function*(texts: Texts): Effect.fn.Return<Material, string> {
  const ca = yield* load(texts, "ca")
  const cert = yield* load(texts, "cert")
  const written = yield* load(texts, "key")
  if (ca !== undefined) yield* named("ca")(pem.certificates(ca))
  const key = written === undefined ? undefined : yield* named("key")(pem.plainKey(written, texts.passphrase))
  if (cert !== undefined && key !== undefined) {
    const [own] = yield* named("cert")(pem.certificates(cert))
    if (own !== undefined && !(yield* pem.belongs(own, key))) {
      return yield* Effect.fail("key: it is not the key of cert")
    }
  }
  const { serverName: servername } = texts
  return {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(servername !== undefined && { servername })
  }
})

// A certificate and its key are not replaced in one step.
const pause = "100 millis"

const make = (texts: Texts): Tls => ({
  get: Effect.suspend(() => materialOf(texts)).pipe(
    Effect.catch(() => Effect.flatMap(Effect.sleep(pause), () => materialOf(texts))),
    Effect.map((material) => Redacted.make(material))
  )
})

/**
 * Reads TLS as an option holds it; `undefined`: no TLS.
 *
 * @category constructors
 * @since 0.1.0
 */
export const read = (input: unknown): Result.Result<Tls | undefined, string> => {
  if (typeof input === "boolean") return Result.succeed(input ? make({}) : undefined)
  if (!Predicate.isObject(input) || Array.isArray(input) || Redacted.isRedacted(input)) {
    return Result.fail(`expected true, false, or an object of ${fields.join(", ")}`)
  }
  const texts: { [field in Field]?: string } = {}
  for (const [name, value] of Object.entries(input)) {
    if (value === undefined) continue
    if (!isField(name)) {
      return Result.fail(`unknown name ${show(name)}${hint(name, fields)}`)
    }
    const text = textOf(value)
    if (typeof text !== "string" || text === "") return Result.fail(`${name}: expected ${wanted[name]}`)
    texts[name] = text
  }
  if ((texts.cert === undefined) !== (texts.key === undefined)) return Result.fail("cert and key need each other")
  if (texts.passphrase !== undefined && texts.key === undefined) {
    return Result.fail("passphrase is for key, and there is none")
  }
  return Result.succeed(make(texts))
}
