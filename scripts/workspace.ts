/**
 * What is in the workspace, read from its folders, so that a new package is included everywhere as soon as it is there.
 */
import { existsSync, globSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { root } from "./run.ts"

/** Where the project lives, as the manifests and the READMEs name it. */
export const repository = "https://github.com/dlock/dlock"

export interface Manifest {
  readonly name: string
  readonly version: string
  readonly exports?: Readonly<Record<string, string | null>>
  readonly bin?: Readonly<Record<string, string>>
  readonly scripts?: Readonly<Record<string, string>>
  readonly engines?: { readonly node?: string }
  readonly [field: string]: unknown
}

export interface Package {
  /** The folder, relative to the root: `packages/core`. */
  readonly folder: string
  readonly manifest: Manifest
}

export const readManifest = (folder: string): Manifest => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))

/** The packages that are published, sorted by name. */
export const publishedPackages = (): ReadonlyArray<Package> =>
  globSync("packages/*/package.json", { cwd: root })
    .map((file) => ({ folder: dirname(file), manifest: readManifest(join(root, dirname(file))) }))
    .toSorted((a, b) => a.folder.localeCompare(b.folder))

/** The folders that `tsc -b` builds. */
export const projects = (): ReadonlyArray<string> =>
  publishedPackages().map(({ folder }) => folder).filter((folder) => existsSync(join(root, folder, "tsconfig.json")))
