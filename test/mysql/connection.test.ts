/**
 * The edge to the server, by the suite of every backend.
 */
import { ConnectionTest } from "@dlock/core/testing"
import { MysqlLock } from "@dlock/mysql"
import { Effect } from "effect"
import * as Mysql from "mysql2"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import { mariadb, mysql } from "../harness/MysqlServer.ts"
import { available } from "../harness/Program.ts"
import { proxy } from "../harness/Proxy.ts"
import { connect, rows, value } from "./support.ts"

const login = { username: "app", password: "secret" }

const commandTimeout = "2 seconds"

const options = ({ host, port }: ConnectionTest.Place): MysqlLock.Options => ({ host, port, ...login, commandTimeout })

/** A pool of the caller's, with settings of its own. */
const poolWith = (odd: Mysql.PoolOptions) => ({ host, port }: ConnectionTest.Place) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => Mysql.createPool({ host, port, user: login.username, password: login.password, ...odd })),
      (pool) => Effect.promise(() => pool.promise().end().catch(() => {}))
    ),
    (pool) => ({
      make: MysqlLock.makeClient(pool, { commandTimeout }),
      isOpen: Effect.promise(() => pool.promise().query("SELECT 1").then(() => true, () => false))
    })
  )

/** MySQL makes certificates of its own. */
const encrypted = Effect.gen(function*() {
  const server = yield* mysql()
  const bare = yield* connect(server)
  const folder = yield* value(bare, "SELECT @@datadir")
  yield* rows(bare, "SET GLOBAL require_secure_transport = ON")
  const { subject } = new Crypto.X509Certificate(Fs.readFileSync(`${folder}server-cert.pem`))
  const ca = `${folder}ca.pem`
  return {
    server,
    plain: options(server),
    trusting: { ...options(server), tls: { ca, serverName: subject.replace("CN=", "") } },
    trustingNode: { ...options(server), tls: true },
    expectingAnotherName: { ...options(server), tls: { ca, serverName: "another.example" } }
  }
})

ConnectionTest.suite<MysqlLock.Options>("MariaDB: connection", {
  declaration: MysqlLock.declaration,
  make: MysqlLock.make,
  layerConfig: () => MysqlLock.layerConfig(),
  options,
  environment: ({ host, port }) => ({
    DLOCK_MYSQL_HOST: host,
    DLOCK_MYSQL_PORT: `${port}`,
    DLOCK_MYSQL_USERNAME: login.username,
    DLOCK_MYSQL_PASSWORD: login.password,
    DLOCK_MYSQL_COMMAND_TIMEOUT: commandTimeout
  }),
  commandTimeout,
  server: mariadb(),
  road: proxy,
  locked: Effect.map(mariadb(), (server) => ({
    server,
    password: login.password,
    options: (place, password) => ({ ...options(place), password })
  })),
  ...(available("mysql") && { encrypted }),
  leastRights: Effect.gen(function*() {
    const server = yield* mariadb()
    yield* rows(yield* connect(server), "CREATE USER 'least'@'%' IDENTIFIED BY 'least'")
    return { ...options(server), username: "least", password: "least" }
  }),
  given: {
    "a pool": poolWith({}),
    "an odd pool": poolWith({
      charset: "BINARY",
      typeCast: false,
      bigNumberStrings: true,
      supportBigNumbers: true,
      namedPlaceholders: true,
      nestTables: true,
      multipleStatements: true
    })
  }
})
