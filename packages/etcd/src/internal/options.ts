/**
 * The options, as code gives them and as they are configured, and what they mean for the connection.
 */
import { Options } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Settings } from "./connection.ts"

const shared = {
  commandTimeout: Options.duration({
    description: "The longest wait for an answer, with connecting and repetitions; never longer than the ttl.",
    default: "5 seconds"
  }),
  prefix: Options.text({ description: "Stands before every key on the server, with a `/` after it.", default: "" })
}

/** What `layerClient` takes. */
export const clientOptions = Options.declare("etcd", shared)

/** Everything that can be configured. */
export const declaration = Options.declare("etcd", {
  endpoints: Options.addresses({
    port: 2379,
    schemes: ["http", "https"],
    description: "`host:port` or URL of the members.",
    default: ["localhost:2379"]
  }),
  username: Options.text({ description: "The user." }),
  password: Options.secret({ description: "The password of the user." }),
  dialTimeout: Options.duration({ description: "The longest wait for a connection.", default: "5 seconds" }),
  tls: Options.tls({ description: "Encrypted connections.", default: false }),
  ...shared
})

type Parsed = Effect.Success<ReturnType<typeof declaration.parse>>

/** What is wrong with the options together. */
export const problemOf = ({ endpoints, password, username }: Parsed): string | undefined => {
  if (password !== undefined && username === undefined) return "password: it needs a username"
  const schemes = new Set(endpoints.map(({ scheme }) => scheme))
  if (schemes.has("http") && schemes.has("https")) return "endpoints: expected http:// or https:// before all, not both"
  return undefined
}

const trustingNode = Effect.succeed(Redacted.make({}))
const noPassword = Effect.succeed(Redacted.make(""))

/** How to connect. `https://` before an endpoint stands for `tls: true`. */
export const connectionOf = (
  { endpoints, password, tls, username }: Parsed
): Settings => ({
  endpoints: endpoints.map(Options.formatAddress),
  tls: tls?.get ?? (endpoints.some(({ scheme }) => scheme === "https") ? trustingNode : undefined),
  login: username === undefined ? undefined : { username, password: password?.get ?? noPassword }
})
