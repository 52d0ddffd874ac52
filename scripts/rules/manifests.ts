/**
 * Every published package says the same of itself, and publishes the built form of what it exports here.
 */
import { isDeepStrictEqual } from "node:util"
import { type Package, repository } from "../workspace.ts"
import type { Violation } from "./source.ts"

/** The folder of sources becomes the folder of what is built from them. */
const built = (target: string): string => target.replace("./src/", "./dist/").replace(/\.ts$/, ".js")

const builtMap = (map: Readonly<Record<string, string | null>>) =>
  Object.fromEntries(Object.entries(map).map(([entry, target]) => [entry, target === null ? null : built(target)]))

/** The fields of a manifest that follow from the rest. */
const expected = ({ folder, manifest }: Package): Readonly<Record<string, unknown>> => ({
  license: "MIT",
  homepage: `${repository}/tree/main/${folder}#readme`,
  bugs: { url: `${repository}/issues` },
  repository: { type: "git", url: `git+${repository}.git`, directory: folder },
  type: "module",
  files: ["src", "dist", "!dist/.tsbuildinfo", "CHANGELOG.md", "README.md", "LICENSE"],
  scripts: { ...manifest.scripts, prepack: "node ../../scripts/prepack.js" },
  publishConfig: {
    access: "public",
    ...manifest.exports === undefined ? {} : { exports: builtMap(manifest.exports) },
    ...manifest.bin === undefined ? {} : { bin: builtMap(manifest.bin) }
  }
})

export const manifests = (packages: ReadonlyArray<Package>): ReadonlyArray<Violation> =>
  packages.flatMap((one) => {
    const path = `${one.folder}/package.json`
    const wrong = Object.entries(expected(one))
      .filter(([field, value]) => !isDeepStrictEqual(one.manifest[field], value))
      .map(([field, value]) => ({ path, message: `"${field}" must be ${JSON.stringify(value)}` }))
    if (!/^>=\d+\.\d+\.\d+$/.test(one.manifest.engines?.node ?? "")) {
      wrong.push({ path, message: `"engines" must name the lowest Node, for example { "node": ">=20.19.0" }` })
    }
    const others = packages.filter(({ manifest }) => manifest.version !== one.manifest.version)
    if (others.length > 0 && one === packages[0]) {
      wrong.push({ path, message: `"version" differs from ${others.map(({ folder }) => folder).join(", ")}` })
    }
    return wrong
  })
