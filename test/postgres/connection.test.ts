/**
 * What every edge to a server must do.
 */
import { ConnectionTest } from "@dlock/core/testing"
import { PostgresLock } from "@dlock/postgres"
import { NodeServices } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Effect } from "effect"
import { authority } from "../harness/Certificates.ts"
import { postgres } from "../harness/PostgresServer.ts"
import { proxy } from "../harness/Proxy.ts"
import { connect } from "./support.ts"

// A connection costs the server a process and the login several round trips.
const commandTimeout = "3 seconds"

const login = { username: "app", password: "secret", database: "postgres" }

const options = ({ host, port }: ConnectionTest.Place): PostgresLock.Options => ({
  host,
  port,
  ...login,
  commandTimeout
})

const server = postgres({})

const encrypted = Effect.gen(function*() {
  const { ca, sign } = yield* authority
  const [own, client] = [yield* sign("postgres.test", true), yield* sign("client", false)]
  const server = yield* postgres({ tls: { ca, ...own } })
  const plain = options(server)
  return {
    server,
    plain,
    trusting: { ...plain, tls: { ca, ...client } },
    trustingNode: { ...plain, tls: true },
    expectingAnotherName: { ...plain, tls: { ca, ...client, serverName: "other.test" } }
  }
}).pipe(Effect.provide(NodeServices.layer))

ConnectionTest.suite("postgres", {
  declaration: PostgresLock.declaration,
  make: PostgresLock.make,
  layerConfig: PostgresLock.layerConfig,
  options,
  environment: ({ host, port }) => ({
    DLOCK_POSTGRES_HOST: host,
    DLOCK_POSTGRES_PORT: `${port}`,
    DLOCK_POSTGRES_USERNAME: login.username,
    DLOCK_POSTGRES_PASSWORD: login.password,
    DLOCK_POSTGRES_DATABASE: login.database,
    DLOCK_POSTGRES_COMMAND_TIMEOUT: commandTimeout
  }),
  commandTimeout,
  server,
  road: proxy,
  locked: Effect.map(server, (server) => ({
    server,
    password: login.password,
    options: (place, password) => ({ ...options(place), password })
  })),
  encrypted,
  leastRights: Effect.gen(function*() {
    const { port, url } = yield* server
    yield* PostgresLock.make({ url })
    const sql = yield* connect(url)
    yield* sql.unsafe("create role least login password 'least'")
    yield* sql.unsafe("grant usage on schema dlock to least")
    yield* sql.unsafe("grant select, insert, update, delete on all tables in schema dlock to least")
    return { ...options({ host: "127.0.0.1", port }), username: "least", password: "least" }
  }),
  given: {
    pool: ({ host, port }) =>
      Effect.map(connect(`postgres://app:secret@${host}:${port}/postgres`), (client) => ({
        make: Effect.provideService(PostgresLock.makeClient({ commandTimeout }), PgClient.PgClient, client),
        isOpen: Effect.map(client`select 1`, (rows) => rows.length === 1)
      }))
  }
})
