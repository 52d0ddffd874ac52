/**
 * The options, as the configuration and the README have them.
 */
import { Options, type Secret } from "@dlock/core/backend"
import * as Result from "effect/Result"
import { prefixProblem } from "./names.ts"

/** `/app` behind the last server, or behind each: every path is below it. */
const chroot = /\/[^,]*$/

const isTexts = (input: unknown): input is ReadonlyArray<string> =>
  Array.isArray(input) && input.every((item) => typeof item === "string")

/** The servers without the chroot that stands behind one of them, and the chroot. */
const splitChroot = (input: unknown) => {
  const texts = typeof input === "string" ? input.split(",") : isTexts(input) ? input : undefined
  if (texts === undefined) return Result.succeed({ servers: input, chroot: "" })
  const found = new Set(texts.map((text) => chroot.exec(text.trim())?.[0].replace(/\/+$/, "")).filter((path) => path))
  const [path = "", ...others] = found
  if (others.length > 0) return Result.fail("the servers have different chroots")
  const problem = path === "" ? undefined : prefixProblem(path)
  if (problem !== undefined) return Result.fail(problem)
  return Result.succeed({ servers: texts.map((text) => text.trim().replace(chroot, "")), chroot: path })
}

const addresses = Options.addresses({
  port: 2181,
  description: "The servers of one ensemble: `host`, `host:port` or `[ipv6]:port`, the last with a chroot or without.",
  default: ["localhost:2181"]
})

/** The field, with more that is read or checked of what was given. */
const reading = <In, Out, A>(
  field: Options.Field<In, unknown, A>,
  read: (input: unknown) => Result.Result<Out, string>
): Options.Field<In, Out, A> => ({ ...field, read })

/** The servers, and the path below which everything is. */
export interface Servers {
  readonly addresses: ReadonlyArray<Options.Address>
  readonly chroot: string
}

const servers = reading(addresses, (input) =>
  Result.flatMap(
    splitChroot(input),
    ({ chroot, servers }) => Result.map(addresses.read(servers), (addresses): Servers => ({ addresses, chroot }))
  ))

const text = Options.text({ description: "The node below which the locks are.", default: "/locks" })

const shared = {
  prefix: reading(text, (input) =>
    Result.filterOrFail(
      text.read(input),
      (prefix) => prefixProblem(prefix) === undefined,
      (prefix) => prefixProblem(prefix) ?? ""
    )),
  acl: Options.oneOf(["open", "private", "readable"], {
    description:
      "The rights of others to the nodes: all, none, or to read them; the last two need credentials. Default: `private` with credentials, else `open`."
  }),
  commandTimeout: Options.duration({
    description:
      "The longest wait for an answer, with connecting and repetitions; never longer than the session's timeout.",
    default: "5 seconds"
  })
}

/** What `layerClient` takes. */
export const clientOptions = Options.declare("zookeeper", shared)

/** The protocol counts milliseconds in 32 bits with a sign. */
const longestTimeout = "24 days"

/** Everything that can be configured. */
export const declaration = Options.declare("zookeeper", {
  servers,
  sessionTimeout: Options.duration({
    description: "The time limit of the session, which is the ttl of every lease.",
    maximum: longestTimeout,
    default: "30 seconds"
  }),
  username: Options.text({ description: "The user, by the digest scheme." }),
  password: Options.secret({ description: "The password of the user." }),
  tls: Options.flag({ description: "The driver has no TLS: `true` is refused.", default: false }),
  ...shared
})

/** What is wrong with the options together. */
export const problemOf = (
  { acl, password, username }: {
    readonly acl?: string | undefined
    readonly password?: Secret.Secret | undefined
    readonly username?: string | undefined
  }
): string | undefined => {
  if ((username === undefined) !== (password === undefined)) return "username and password: one needs the other"
  if (username === "" || username?.includes(":")) return "username: it must not be empty, nor have a colon in it"
  if (username === undefined && acl !== undefined && acl !== "open") {
    return `acl: ${acl} needs a username and a password`
  }
  return undefined
}
