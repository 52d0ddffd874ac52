/**
 * An empty project of a user, into which the tarballs are installed.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { pnpm, root, run } from "../run.ts"
import { environment, nodes, satisfies } from "./outside.ts"
import type { Tarball } from "./tarballs.ts"

export interface App {
  readonly folder: string
  readonly tarballs: ReadonlyArray<Tarball>
  /** Whether it has what the entries for tests need: vitest and its Effect helpers. */
  readonly tests: boolean
}

const forTests = (specifier: string) => specifier.endsWith("/testing")

const specifiersOf = ({ tarballs, tests }: App) =>
  tarballs.flatMap(({ specifiers }) => specifiers).filter((specifier) => tests || !forTests(specifier))

/** The versions that this repository itself uses. */
const catalog = (name: string): string => {
  const found = new RegExp(`^  "?${name}"?: (\\S+)$`, "m").exec(readFileSync(join(root, "pnpm-workspace.yaml"), "utf8"))
  if (found?.[1] === undefined) throw new Error(`${name} is not in the catalog of the workspace`)
  return found[1]
}

const files = (tarballs: ReadonlyArray<Tarball>) =>
  Object.fromEntries(tarballs.map(({ file, manifest }) => [manifest.name, `file:${file}`]))

const create = (app: App, others: ReadonlyArray<string>): App => {
  mkdirSync(app.folder)
  const dependencies = {
    ...files(app.tarballs),
    ...Object.fromEntries(others.map((name) => [name, catalog(name)]))
  }
  const manifest = { name: "app", private: true, type: "module", dependencies }
  writeFileSync(join(app.folder, "package.json"), JSON.stringify(manifest))
  return app
}

/** What the READMEs say to install, by the npm of the machine. */
export const npmApp = (folder: string, tarballs: ReadonlyArray<Tarball>): App => {
  const app = create({ folder, tarballs, tests: false }, ["effect", "@types/node"])
  run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: folder, env: environment })
  return app
}

/** The same by pnpm, where a package finds nothing that it does not name, and with what the entries for tests need. */
export const pnpmApp = (folder: string, tarballs: ReadonlyArray<Tarball>): App => {
  const app = create({ folder, tarballs, tests: true }, ["effect", "@types/node", "@effect/vitest", "vitest"])
  // The overrides stand for the registry, which does not have these versions; the last line is that of etcd's README.
  const overrides = Object.entries(files(tarballs)).map(([name, file]) => `  "${name}": "${file}"`)
  writeFileSync(
    join(folder, "pnpm-workspace.yaml"),
    ["overrides:", ...overrides, "allowBuilds:", "  protobufjs: false", ""].join("\n")
  )
  pnpm(["install", "--prefer-offline", "--reporter=append-only"], { cwd: folder, env: environment })
  return app
}

/** Imports every entry, with each Node that the package allows, and starts every program. */
export const importAll = (app: App): void => {
  for (const node of nodes) {
    const allowed = app.tarballs.filter(({ manifest }) => satisfies(node.version, manifest.engines?.node))
    const left = app.tarballs.filter((tarball) => !allowed.includes(tarball)).map(({ manifest }) => manifest.name)
    if (left.length > 0) console.log(`Node ${node.version}: too old for ${left.join(", ")}`)
    const specifiers = specifiersOf({
      ...app,
      tarballs: allowed,
      tests: app.tests && node.command === process.execPath
    })
    writeFileSync(join(app.folder, "main.js"), importing(specifiers, allowed.flatMap(({ closed }) => closed)))
    run(node.command, ["main.js"], { cwd: app.folder, env: environment, quiet: true })
    console.log(`Node ${node.version}: ${specifiers.length} entries of ${allowed.length} packages`)
    for (const { manifest } of allowed) {
      for (const target of Object.values(manifest.bin ?? {})) {
        const file = join("node_modules", manifest.name, target)
        run(node.command, [file, "--help"], { cwd: app.folder, env: environment })
      }
    }
  }
}

const importing = (specifiers: ReadonlyArray<string>, closed: ReadonlyArray<string>) =>
  `const failures = []
for (const entry of ${JSON.stringify(specifiers)}) {
  try {
    await import(entry)
  } catch (error) {
    failures.push("cannot import " + entry + ": " + error.message)
  }
}
for (const inner of ${JSON.stringify(closed)}) {
  const open = await import(inner).then(() => true, (error) => error.code !== "ERR_PACKAGE_PATH_NOT_EXPORTED")
  if (open) failures.push("can import " + inner + ", which is no entry")
}
for (const failure of failures) console.error(failure)
process.exit(failures.length === 0 ? 0 : 1)
`

/** The first program of a README, as its reader copies it. */
const firstProgram = ({ content }: Tarball) => {
  const [, program] = /^```ts\n([\s\S]*?)^```$/m.exec(readFileSync(join(content, "README.md"), "utf8")) ?? []
  return program ?? "export {}\n"
}

/**
 * Reads the declarations as a user's compiler does, those of the drivers and of Effect included. Effect's name types of
 * the DOM, so the library is needed.
 */
export const typeCheck = (app: App): void => {
  const programs = app.tarballs.map((tarball) => {
    const file = `${tarball.manifest.name.replace("@dlock/", "")}.ts`
    writeFileSync(join(app.folder, file), firstProgram(tarball))
    return file
  })
  const specifiers = specifiersOf(app)
  writeFileSync(
    join(app.folder, "all.ts"),
    specifiers.map((specifier, i) => `import * as m${i} from "${specifier}"\n`).join("") +
      `export type All = [${specifiers.map((_, i) => `typeof m${i}`).join(", ")}]\n`
  )
  for (const mode of [["node16", "node16"], ["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    const [module = "", moduleResolution = ""] = mode
    const compilerOptions = {
      noEmit: true,
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      target: "es2022",
      lib: ["es2022", "dom"],
      types: ["node"],
      module,
      moduleResolution
    }
    writeFileSync(
      join(app.folder, "tsconfig.json"),
      JSON.stringify({ compilerOptions, files: ["all.ts", ...programs] })
    )
    run(join(root, "node_modules", ".bin", "tsc"), ["-p", "."], { cwd: app.folder, quiet: true })
    console.log(`types under ${moduleResolution}, skipLibCheck false`)
  }
}
