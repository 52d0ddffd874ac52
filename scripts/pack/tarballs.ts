/**
 * The tarballs of the packages, packed from a checkout without anything built.
 */
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, globSync, mkdirSync } from "node:fs"
import { dirname, join } from "node:path"
import { fail, pnpm, root, run } from "../run.ts"
import { type Manifest, publishedPackages, readManifest } from "../workspace.ts"

export interface Tarball {
  readonly file: string
  /** The folder with what is in it. */
  readonly content: string
  readonly manifest: Manifest
  /** The entries as a user imports them, each module that a `*` stands for included. */
  readonly specifiers: ReadonlyArray<string>
  /** Modules in folders of the package, as a user would try to import them and must not be able to. */
  readonly closed: ReadonlyArray<string>
}

/** Copies what git knows and what it would add, so that builds in the tree are neither used nor disturbed. */
const copyCheckout = (to: string) => {
  const { stdout } = spawnSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 2 ** 26
  })
  for (const file of stdout.split("\0")) {
    // A file that was deleted and not committed is still listed.
    if (file === "" || !existsSync(join(root, file))) continue
    mkdirSync(dirname(join(to, file)), { recursive: true })
    cpSync(join(root, file), join(to, file))
  }
}

const specifiers = (content: string, { exports = {}, name }: Manifest): ReadonlyArray<string> => {
  const excluded = Object.entries(exports).filter(([, target]) => target === null).map(([entry]) => entry)
  const found = Object.entries(exports).flatMap(([entry, target]) => {
    if (target === null || entry === "./package.json") return []
    if (target.startsWith("./src/")) fail(`${name}: "${entry}" is published as ${target}`)
    if (!entry.includes("*")) return [join(name, entry)]
    const [before = "", after = ""] = join(target).split("*")
    return globSync(target, { cwd: content })
      .map((file) => join(name, entry.replace("*", file.slice(before.length, file.length - after.length))))
      .filter((one) => !one.endsWith("/index") && !excluded.includes(one.replace(name, ".")))
  })
  return [...new Set(found)].toSorted()
}

const closed = (content: string, { name }: Manifest, open: ReadonlyArray<string>): ReadonlyArray<string> =>
  globSync("dist/*/**/*.js", { cwd: content })
    .map((file) => file.replace("dist", name).replace(/\.js$/, ""))
    .filter((specifier) => !open.includes(specifier))

/** Packs every package from a copy of the checkout, in `folder`, and unpacks the tarballs. */
export const packAll = (folder: string): ReadonlyArray<Tarball> => {
  const checkout = join(folder, "checkout")
  copyCheckout(checkout)
  pnpm(["install", "--frozen-lockfile", "--prefer-offline", "--reporter=silent"], { cwd: checkout })
  const tarballs = join(folder, "tarballs")
  mkdirSync(tarballs)
  pnpm(["-r", "--filter", "./packages/*", "--reporter=silent", "pack", "--pack-destination", tarballs], {
    cwd: checkout
  })
  return publishedPackages().map(({ manifest: { name, version } }) => {
    const base = `${name.replace("@", "").replace("/", "-")}-${version}`
    const content = join(folder, "content", base)
    mkdirSync(content, { recursive: true })
    run("tar", ["-xzf", join(tarballs, `${base}.tgz`), "-C", content, "--strip-components=1"], { quiet: true })
    const manifest = readManifest(content)
    const open = specifiers(content, manifest)
    return {
      file: join(tarballs, `${base}.tgz`),
      content,
      manifest,
      specifiers: open,
      closed: closed(content, manifest, open)
    }
  })
}
