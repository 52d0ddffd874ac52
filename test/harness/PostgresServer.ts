/**
 * PostgreSQL: a single server, standbys, and PgBouncer before it.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { HarnessError } from "./HarnessError.ts"
import * as Initial from "./Initial.ts"
import { host, reserve } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Program from "./Program.ts"
import * as Server from "./Server.ts"

/** Who may log in, and the database that is there. */
export interface Credentials {
  readonly username: string
  readonly password: string
  readonly database: string
}

const credentials: Credentials = { username: "app", password: "secret", database: "postgres" }

/** A running server. */
export interface Postgres extends Server.Server, Credentials {
  readonly url: string
}

/** Of a server. */
export interface Options {
  /** More settings, `name=value`; they win over the harness's. */
  readonly settings?: ReadonlyArray<string> | undefined
  /** The server to follow, if it is a standby. */
  readonly primary?: Postgres | undefined
  /** Refuses connections without TLS, and those without a certificate that this authority signed. Paths of PEM files. */
  readonly tls?: { readonly ca: string, readonly cert: string, readonly key: string } | undefined
  /** What it calls itself to its primary. */
  readonly name?: string | undefined
}

const int32 = (value: number): string =>
  String.fromCharCode(value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255)

const startup = (() => {
  const words = ["user", credentials.username, "database", credentials.database, "", ""].join("\0")
  const body = int32(196_608) + words.slice(0, -1) + "\0"
  return int32(body.length + 4) + body
})()

/** The server asks for the password: it is at work. */
const probe = (port: number) => ask({ host, port }, startup, /^R/)

/** The package's user, because none of its programs runs as root; otherwise everything belongs to the user that runs the tests. */
const packageUser = (): { readonly uid: number, readonly gid: number } | undefined => {
  if (process.getuid?.() !== 0) return undefined
  const [uid, gid] = ["-u", "-g"].map((flag) =>
    Number(ChildProcess.spawnSync("id", [flag, "postgres"], { encoding: "utf8", timeout: 5000 }).stdout)
  )
  return uid === undefined || gid === undefined || !(uid > 0) ? undefined : { uid, gid }
}

const asPackageUser = (command: ReadonlyArray<string>): ReadonlyArray<string> =>
  packageUser() === undefined
    ? command
    : ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", ...command]

/** Gives a folder to the package's user, which has to get there. */
const give = (folder: string): void => {
  const user = packageUser()
  if (user === undefined) return
  Fs.chmodSync(Path.dirname(folder), 0o711)
  for (const path of [folder, ...Fs.readdirSync(folder).map((name) => Path.join(folder, name))]) {
    Fs.chownSync(path, user.uid, user.gid)
  }
}

const conninfo = (port: number): string =>
  `postgres://${credentials.username}:${credentials.password}@${host}:${port}/${credentials.database}`

/** Every process of a server leads a group of its own, so the faults of the harness reach the first of them only. */
const processes = (folder: string): ReadonlyArray<number> => {
  const file = `${folder}/data/postmaster.pid`
  if (!Fs.existsSync(file)) return []
  const first = Number(Fs.readFileSync(file, "utf8").split("\n", 1)[0])
  const isOurs = (pid: string): boolean => {
    try {
      const stat = Fs.readFileSync(`/proc/${pid}/stat`, "latin1")
      return Number(pid) === first || Number(/\) \S (\d+) /.exec(stat)?.[1]) === first
    } catch {
      return false
    }
  }
  return Fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isOurs(name)).map(Number)
}

const signal = (pids: ReadonlyArray<number>, name: NodeJS.Signals): void => {
  for (const pid of pids) {
    try {
      process.kill(pid, name)
    } catch {
      // It is gone.
    }
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return !/\) [ZX] /.test(Fs.readFileSync(`/proc/${pid}/stat`, "latin1"))
  } catch {
    return false
  }
}

const untilGone = (pids: ReadonlyArray<number>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const look = () => pids.some(isAlive) ? void setImmediate(look) : resume(Effect.void)
    look()
  })

/** The files of a server that speaks TLS and nothing else, and the settings that name them. */
const secure = (folder: string, tls: NonNullable<Options["tls"]>): void => {
  for (const [name, path] of Object.entries(tls)) {
    Fs.copyFileSync(path, `${folder}/${name}.pem`)
    Fs.chmodSync(`${folder}/${name}.pem`, 0o600)
  }
  Fs.writeFileSync(`${folder}/hba`, "hostssl all all all scram-sha-256 clientcert=verify-ca\n")
}

const tlsSettings = (folder: string): ReadonlyArray<string> => [
  "ssl=on",
  `ssl_ca_file=${folder}/ca.pem`,
  `ssl_cert_file=${folder}/cert.pem`,
  `ssl_key_file=${folder}/key.pem`,
  `hba_file=${folder}/hba`
]

/** Answers that it does not speak without TLS, or that it does with it. */
const probeTls = (port: number) => ask({ host, port }, int32(8) + int32(80_877_103), /^S/)

const make = Effect.fnUntraced(function*({ name = "standby", primary, settings = [], tls }: Options) {
  const port = yield* reserve
  const program = yield* Program.find("postgres")
  let home = ""
  const initialise = (folder: string) =>
    Effect.suspend(() => {
      home = folder
      Fs.writeFileSync(`${folder}/password`, credentials.password)
      Fs.chmodSync(`${folder}/data`, 0o700)
      if (tls !== undefined) secure(folder, tls)
      give(folder)
      const common = ["--pgdata", `${folder}/data`]
      if (primary === undefined) {
        const command = [
          "initdb",
          ...common,
          "--username=app",
          `--pwfile=${folder}/password`,
          "--auth=scram-sha-256",
          "--encoding=UTF8",
          "--locale=C",
          "--no-sync"
        ]
        return Initial.fill(program, "postgres", folder, asPackageUser(command))
      }
      const command = [
        "pg_basebackup",
        ...common,
        `--dbname=${conninfo(primary.port)}?application_name=${name}`,
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync"
      ]
      return Program.run(program, "postgres", folder, asPackageUser(command))
    })
  const server = yield* Server.make({
    name: "postgres",
    program,
    ports: [port],
    inGroup: primary !== undefined,
    prepare: initialise,
    command: (folder, bind) =>
      asPackageUser([
        "postgres",
        "-D",
        `${folder}/data`,
        ...[
          `port=${port}`,
          `listen_addresses=${bind}`,
          "unix_socket_directories=",
          "max_connections=200",
          "shared_buffers=32MB",
          // A kill of the process loses nothing all the same.
          "fsync=off",
          // Else a killed server leaves its segment in /dev/shm.
          "dynamic_shared_memory_type=mmap",
          ...(tls === undefined ? [] : tlsSettings(folder)),
          ...settings
        ].flatMap((setting) => ["-c", setting])
      ]),
    probe: tls === undefined ? probe(port) : probeTls(port)
  })
  const postgres: Postgres = {
    ...server,
    ...credentials,
    url: conninfo(port),
    kill: Effect.suspend(() => {
      const pids = processes(home)
      return Effect.andThen(server.kill, Effect.andThen(Effect.sync(() => signal(pids, "SIGKILL")), untilGone(pids)))
    }),
    pause: Effect.andThen(server.pause, Effect.sync(() => signal(processes(home), "SIGSTOP"))),
    resume: Effect.andThen(Effect.sync(() => signal(processes(home), "SIGCONT")), server.resume)
  }
  yield* Effect.addFinalizer(() => Effect.sync(() => signal(processes(home), "SIGKILL")))
  return postgres
})

/**
 * A PostgreSQL server. Without options it is that of `DLOCK_TEST_POSTGRES`, if that is set; it must know the credentials.
 */
export const postgres = (options?: Options): Effect.Effect<Postgres, HarnessError, Scope.Scope> =>
  Effect.suspend(() => {
    const given = options === undefined ? Server.given("DLOCK_TEST_POSTGRES") : undefined
    return given === undefined
      ? Server.onFreePorts(make(options ?? {}))
      : Effect.succeed({ ...given, ...credentials, url: conninfo(given.port).replace(host, given.host) })
  })

/** PgBouncer before a server, in transaction mode. */
export const pgbouncer = (server: Postgres): Effect.Effect<Postgres, HarnessError, Scope.Scope> =>
  Server.onFreePorts(Effect.gen(function*() {
    const port = yield* reserve
    const bouncer = yield* Server.make({
      name: "pgbouncer",
      program: yield* Program.find("pgbouncer"),
      ports: [port],
      inGroup: true,
      prepare: (folder) =>
        Effect.sync(() => {
          Fs.writeFileSync(`${folder}/users`, `"${server.username}" "${server.password}"\n`)
          Fs.writeFileSync(
            `${folder}/ini`,
            [
              "[databases]",
              `${server.database} = host=${server.host} port=${server.port}`,
              "[pgbouncer]",
              `listen_addr = ${host}`,
              `listen_port = ${port}`,
              "unix_socket_dir =",
              "pool_mode = transaction",
              "default_pool_size = 10",
              "max_client_conn = 200",
              // Soon after its server is back, and not 15 s later.
              "server_login_retry = 1",
              "auth_type = scram-sha-256",
              `auth_file = ${folder}/users`,
              ""
            ].join("\n")
          )
          give(folder)
        }),
      command: (folder) => asPackageUser(["pgbouncer", `${folder}/ini`]),
      probe: probe(port)
    })
    return { ...bouncer, ...credentials, url: conninfo(port) }
  }))
