/**
 * What the harness can start, and where this machine has it.
 */
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"

/** Turns `[program, ...arguments]` into the command line that runs it here. */
export type Wrap = (command: ReadonlyArray<string>) => ReadonlyArray<string>

/** A server, or a tool that tests need. */
export interface Entry {
  readonly title: string
  /** The environment variable that names a running one. */
  readonly variable?: string | undefined
  /** How this machine runs it, if it is here. */
  readonly local: () => Wrap | undefined
  /** The image that has it, and how the image runs it. */
  readonly docker?: { readonly image: string, readonly wrap: Wrap } | undefined
  /** The distribution's packages, installed by root. */
  readonly install?: ReadonlyArray<string> | undefined
  /** A newer package of Debian, or `package/suite`, unpacked into the cache; the machine stays as it is. */
  readonly unpack?: string | undefined
  /** Without it the tests fail; without the others their tests are skipped, and the run says so. */
  readonly required: boolean
}

/** The address in an environment variable; an empty one counts as none. */
export const addressIn = (variable: string): string | undefined => process.env[variable] || undefined

/** Unpacked packages, one folder each; git ignores it. */
export const cache = fileURLToPath(new URL("../../.cache/servers", import.meta.url))

const directories = [...(process.env.PATH ?? "").split(Path.delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"]

const executable = (name: string): string | undefined =>
  directories.map((directory) => Path.join(directory, name)).find((file) => Fs.existsSync(file))

const asIs: Wrap = (command) => command

/** These programs, found on the PATH. */
const programs = (...names: ReadonlyArray<string>) => (): Wrap | undefined => {
  const paths = new Map(names.map((name) => [name, executable(name)]))
  if ([...paths.values()].includes(undefined)) return undefined
  return ([program = "", ...rest]) => [paths.get(program) ?? program, ...rest]
}

/** PostgreSQL's programs, from the folder of the newest version where Debian keeps them off the PATH. */
const postgresPrograms = (): Wrap | undefined => {
  const all = "/usr/lib/postgresql"
  const [newest] = Fs.existsSync(all) ? Fs.readdirSync(all).toSorted((a, b) => Number(b) - Number(a)) : []
  const found = newest === undefined ? [] : [`${all}/${newest}/bin`]
  const paths = new Map(
    ["initdb", "pg_basebackup", "postgres"].map((name) => [
      name,
      found.map((directory) => Path.join(directory, name)).find((file) => Fs.existsSync(file)) ?? executable(name)
    ])
  )
  if ([...paths.values()].includes(undefined)) return undefined
  return (command) => command.map((word) => paths.get(word) ?? word)
}

/** A program of the PATH whose `--version` is the right one. */
const programOfVersion = (name: string, version: RegExp) => (): Wrap | undefined => {
  const path = executable(name)
  if (path === undefined) return undefined
  const said = ChildProcess.spawnSync(path, ["--version"], { encoding: "utf8", timeout: 5000 })
  return version.test(said.stdout) ? programs(name)() : undefined
}

const either = (...places: ReadonlyArray<() => Wrap | undefined>) => (): Wrap | undefined => {
  for (const place of places) {
    const wrap = place()
    if (wrap !== undefined) return wrap
  }
  return undefined
}

const javaJars = "/usr/share/java"

/** Java with these jars, and with the one that shows the log. */
const java = (...jars: ReadonlyArray<string>) => (): Wrap | undefined => {
  const path = executable("java")
  const all = [...jars, `${javaJars}/slf4j-simple.jar`]
  if (path === undefined || !all.every((jar) => Fs.existsSync(jar))) return undefined
  return ([_java, ...rest]) => [path, "-cp", all.join(":"), ...rest]
}

/** The distribution's ZooKeeper, if it is this version; the manifest of its jar names all the others that it needs. */
const javaWithZooKeeper = (version: RegExp) => (): Wrap | undefined => {
  if (!Fs.existsSync(javaJars)) return undefined
  const jar = Fs.readdirSync(javaJars).find((name) => version.test(name))
  return jar === undefined ? undefined : java(`${javaJars}/${jar}`)()
}

const zooKeeperInImage: Wrap = ([_java, ...rest]) => [
  "sh",
  "-c",
  `exec java -cp "$(echo /apache-zookeeper-*/lib)/*" "$@"`,
  "java",
  ...rest
]

const architecture = {
  arm64: { libraries: "usr/lib/aarch64-linux-gnu", loader: "usr/lib/ld-linux-aarch64.so.1" },
  x64: { libraries: "usr/lib/x86_64-linux-gnu", loader: "usr/lib64/ld-linux-x86-64.so.2" }
}

/** A program of an unpacked package. It needs a newer C library than the machine's, and so runs through its loader. */
const unpacked = (
  kind: string,
  program: string,
  more: (root: string) => {
    readonly libraries?: ReadonlyArray<string>
    readonly args?: ReadonlyArray<string>
  } = () => ({})
) =>
(): Wrap | undefined => {
  const root = `${cache}/${kind}`
  if ((process.arch !== "x64" && process.arch !== "arm64") || !Fs.existsSync(`${root}/${program}`)) return undefined
  const { libraries, loader } = architecture[process.arch]
  const { args = [], libraries: others = [] } = more(root)
  const path = [`${root}/${libraries}`, ...others].join(":")
  return ([_program, ...rest]) => [`${root}/${loader}`, "--library-path", path, `${root}/${program}`, ...rest, ...args]
}

/** Docker's own registry has no official image of etcd: the environment names one, or there is none. */
const etcdImage = (variable: string): Entry["docker"] => {
  const image = addressIn(variable)
  return image === undefined ? undefined : { image, wrap: asIs }
}

/** Every server and tool by its kind. */
export const catalog = {
  redis: {
    title: "Redis",
    variable: "DLOCK_TEST_REDIS",
    local: programs("redis-server"),
    docker: { image: "redis:7", wrap: asIs },
    install: ["redis-server"],
    required: true
  },
  "redis-8": {
    title: "Redis 8",
    local: either(
      programOfVersion("redis-server", /v=8\./),
      unpacked("redis-8", "usr/bin/redis-server")
    ),
    docker: { image: "redis:8", wrap: asIs },
    unpack: "redis-server/experimental",
    required: false
  },
  "valkey-9": {
    title: "Valkey 9",
    local: either(
      programOfVersion("valkey-server", /v=9\./),
      unpacked("valkey-9", "usr/bin/valkey-server")
    ),
    docker: { image: "valkey/valkey:9", wrap: ([_redis, ...rest]) => ["valkey-server", ...rest] },
    unpack: "valkey-server",
    required: false
  },
  etcd: {
    title: "etcd",
    variable: "DLOCK_TEST_ETCD",
    local: programs("etcd"),
    docker: etcdImage("DLOCK_TEST_ETCD_IMAGE"),
    install: ["etcd-server"],
    required: true
  },
  "etcd-3.4": {
    title: "etcd 3.4",
    local: programOfVersion("etcd", /^etcd Version: 3\.4\./),
    docker: etcdImage("DLOCK_TEST_ETCD_34_IMAGE"),
    required: false
  },
  "etcd-3.5": {
    title: "etcd 3.5",
    local: either(
      programOfVersion("etcd", /^etcd Version: 3\.5\./),
      unpacked("etcd-3.5", "usr/bin/etcd")
    ),
    docker: etcdImage("DLOCK_TEST_ETCD_35_IMAGE"),
    unpack: "etcd-server",
    required: false
  },
  etcdctl: {
    title: "etcdctl",
    local: programs("etcdctl"),
    install: ["etcd-client"],
    required: false
  },
  mariadb: {
    title: "MariaDB",
    variable: "DLOCK_TEST_MARIADB",
    local: programs("mariadbd", "mariadb-install-db"),
    docker: { image: "mariadb:10.11", wrap: asIs },
    install: ["mariadb-server-core", "mariadb-client-core"],
    required: true
  },
  mysql: {
    title: "real MySQL",
    variable: "DLOCK_TEST_MYSQL",
    local: either(
      // Debian's MariaDB has a link of this name. One that says nothing in time is not taken for the other.
      programOfVersion("mysqld", /^(?!.*MariaDB).* Ver \d/),
      // It would else look for its files where the distribution has put MariaDB's.
      unpacked("mysql", "usr/sbin/mysqld", (root) => ({
        libraries: [`${root}/usr/lib/mysql/private`],
        args: [
          `--basedir=${root}/usr`,
          `--lc-messages-dir=${root}/usr/share/mysql`,
          `--character-sets-dir=${root}/usr/share/mysql/charsets`,
          `--plugin-dir=${root}/usr/lib/mysql/plugin`
        ]
      }))
    ),
    docker: { image: "mysql:9", wrap: asIs },
    unpack: "mysql-server-core",
    required: false
  },
  postgres: {
    title: "PostgreSQL",
    variable: "DLOCK_TEST_POSTGRES",
    local: postgresPrograms,
    docker: { image: "postgres:15", wrap: asIs },
    install: ["postgresql"],
    required: true
  },
  pgbouncer: {
    title: "PgBouncer",
    local: programs("pgbouncer"),
    install: ["pgbouncer"],
    required: false
  },
  zookeeper: {
    title: "ZooKeeper",
    variable: "DLOCK_TEST_ZOOKEEPER",
    local: java(`${javaJars}/zookeeper.jar`),
    docker: { image: "zookeeper:3.8", wrap: zooKeeperInImage },
    install: ["libzookeeper-java", ...(executable("java") === undefined ? ["default-jre-headless"] : [])],
    required: true
  },
  "zookeeper-3.8": {
    title: "ZooKeeper 3.8",
    local: javaWithZooKeeper(/^zookeeper-3\.8[.\d]*\.jar$/),
    docker: { image: "zookeeper:3.8", wrap: zooKeeperInImage },
    required: false
  },
  "zookeeper-3.9": {
    title: "ZooKeeper 3.9",
    // 3.9 runs with the other libraries of 3.8. Its jute comes first: the manifest would else bring in the older one.
    local: either(
      javaWithZooKeeper(/^zookeeper-3\.9[.\d]*\.jar$/),
      java(...["zookeeper-jute.jar", "zookeeper.jar"].map((jar) => `${cache}/zookeeper-3.9${javaJars}/${jar}`))
    ),
    docker: { image: "zookeeper:3.9", wrap: zooKeeperInImage },
    unpack: "libzookeeper-java",
    required: false
  },
  curator: {
    title: "Curator",
    // It is driven by a program of our own, which Java compiles.
    local: () => executable("javac") === undefined ? undefined : java(`${javaJars}/curator-recipes.jar`)(),
    install: ["libcurator-recipes-java", ...(executable("javac") === undefined ? ["default-jdk-headless"] : [])],
    required: false
  }
} satisfies Record<string, Entry>

/** The name of an entry of the catalog. */
export type Kind = keyof typeof catalog

/** Every kind. */
export const kinds = Object.keys(catalog) as ReadonlyArray<Kind>
