/**
 * What publint and "are the types wrong" say of a tarball.
 */
import { join } from "node:path"
import { root, run } from "../run.ts"
import type { Tarball } from "./tarballs.ts"

const bin = (name: string) => join(root, "node_modules", ".bin", name)

export const lint = ({ file, manifest, specifiers }: Tarball): void => {
  run(bin("publint"), ["run", file, "--strict"], { quiet: true })
  if (specifiers.length === 0) return
  const entries = specifiers.map((specifier) => specifier.replace(manifest.name, "."))
  // The packages are ES modules only, so what require() and the resolution of Node 10 would find does not matter.
  run(bin("attw"), [file, "--profile", "esm-only", "--format", "ascii", "--no-summary", "--entrypoints", ...entries], {
    quiet: true
  })
}
