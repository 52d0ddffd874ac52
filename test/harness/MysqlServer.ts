/**
 * MariaDB and real MySQL.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Fs from "node:fs"
import type { HarnessError } from "./HarnessError.ts"
import * as Initial from "./Initial.ts"
import { host, reserve } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Program from "./Program.ts"
import * as Server from "./Server.ts"

/** The user that may log in, and the database that is there. */
export interface Credentials {
  readonly username: string
  readonly password: string
  readonly database: string
}

const credentials: Credentials = { username: "app", password: "secret", database: "locks" }

const accounts = [
  `CREATE USER IF NOT EXISTS '${credentials.username}'@'%' IDENTIFIED BY '${credentials.password}';`,
  `GRANT ALL ON *.* TO '${credentials.username}'@'%' WITH GRANT OPTION;`,
  `CREATE DATABASE IF NOT EXISTS ${credentials.database};`,
  ""
].join("\n")

// Both refuse to run as root unless told to.
const asRoot = process.getuid?.() === 0 ? ["--user=root"] : []

const settings = (folder: string, bind: string, port: number): ReadonlyArray<string> => [
  `--datadir=${folder}/data`,
  `--tmpdir=${folder}`,
  `--bind-address=${bind}`,
  `--port=${port}`,
  `--socket=${folder}/socket`,
  `--pid-file=${folder}/pid`,
  `--init-file=${folder}/accounts.sql`,
  "--max-connections=2000",
  "--skip-name-resolve",
  "--innodb-buffer-pool-size=32M",
  // A kill of the process loses nothing all the same.
  "--innodb-flush-log-at-trx-commit=2",
  ...asRoot
]

/** The greeting of protocol version 10: it is sent when the accounts are there. */
const greeting = /^[^]{4}\n/

const make = Effect.fnUntraced(function*(
  kind: "mariadb" | "mysql",
  initialisation: (folder: string) => ReadonlyArray<string>,
  command: (folder: string, bind: string, port: number) => ReadonlyArray<string>
) {
  const port = yield* reserve
  const program = yield* Program.find(kind)
  return yield* Server.make({
    name: kind,
    program,
    ports: [port],
    prepare: (folder) =>
      Effect.andThen(
        Initial.fill(program, kind, folder, initialisation(folder)),
        Effect.sync(() => {
          // Every server has an identity of its own.
          Fs.rmSync(`${folder}/data/auto.cnf`, { force: true })
          Fs.writeFileSync(`${folder}/accounts.sql`, accounts)
        })
      ),
    command: (folder, bind) => command(folder, bind, port),
    probe: ask({ host, port }, "", greeting)
  })
})

const withCredentials = (
  variable: string,
  make: Effect.Effect<Server.Server, HarnessError, Scope.Scope>,
  args: ReadonlyArray<string>
): Effect.Effect<Server.Server & Credentials, HarnessError, Scope.Scope> =>
  Effect.suspend(() => {
    const given = args.length === 0 ? Server.given(variable) : undefined
    return Effect.map(
      given === undefined ? Server.onFreePorts(make) : Effect.succeed(given),
      (server) => ({ ...server, ...credentials })
    )
  })

/**
 * A MariaDB server, with more arguments. `DLOCK_TEST_MARIADB` is used if it is set and there are none; it must know the
 * credentials.
 */
export const mariadb = (
  args: ReadonlyArray<string> = []
): Effect.Effect<Server.Server & Credentials, HarnessError, Scope.Scope> =>
  withCredentials(
    "DLOCK_TEST_MARIADB",
    make(
      "mariadb",
      (folder) => [
        "mariadb-install-db",
        "--no-defaults",
        `--datadir=${folder}/data`,
        // A server that starts removes the temporary tables that it finds, those of another one too.
        `--tmpdir=${folder}`,
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        ...asRoot
      ],
      (folder, bind, port) => ["mariadbd", "--no-defaults", ...settings(folder, bind, port), ...args]
    ),
    args
  )

const redoLog = "--innodb-redo-log-capacity=16M"

/**
 * A real MySQL server, with more arguments. `DLOCK_TEST_MYSQL` is used if it is set and there are none; it must know the
 * credentials. Tests of it ask `Program.available("mysql")` first.
 */
export const mysql = (
  args: ReadonlyArray<string> = []
): Effect.Effect<Server.Server & Credentials, HarnessError, Scope.Scope> =>
  withCredentials(
    "DLOCK_TEST_MYSQL",
    make(
      "mysql",
      (folder) => [
        "mysqld",
        "--no-defaults",
        `--datadir=${folder}/data`,
        "--initialize-insecure",
        redoLog,
        ...asRoot
      ],
      (folder, bind, port) => [
        "mysqld",
        "--no-defaults",
        ...settings(folder, bind, port),
        // It would else take the port 33060, and look for a folder of the package.
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",
        "--skip-log-bin",
        redoLog,
        ...args
      ]
    ),
    args
  )
