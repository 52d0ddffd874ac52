/**
 * The links of the READMEs that npm shows are absolute, and those into this repository lead somewhere.
 */
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { repository } from "../workspace.ts"
import type { Violation } from "./source.ts"

const inside = new RegExp(`^${repository}(?:/(?:tree|blob)/main/([^#]+))?(?:#(.+))?$`)

/** The anchors that GitHub gives the headings of a text. */
const anchors = (text: string): ReadonlySet<string> =>
  new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
      heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
    )
  )

/** The text that a path of the repository shows: a folder shows its README. */
const shown = (root: string, path: string): string | undefined => {
  const file = join(root, path)
  if (!existsSync(file)) return undefined
  if (!statSync(file).isDirectory()) return readFileSync(file, "utf8")
  const readme = join(file, "README.md")
  return existsSync(readme) ? readFileSync(readme, "utf8") : ""
}

/** What is wrong with one target of a link in `text`, if anything. */
const problem = (root: string, text: string, target: string): string | undefined => {
  if (target.startsWith("#")) return anchors(text).has(target.slice(1)) ? undefined : `no heading for ${target}`
  if (!/^https?:/.test(target)) return `${target} is not absolute`
  const [match, path = ".", anchor] = inside.exec(target) ?? []
  if (match === undefined) return undefined
  const other = shown(root, path)
  if (other === undefined) return `${target} leads nowhere`
  if (anchor === undefined || anchor === "readme" || anchors(other).has(anchor)) return undefined
  return `${target}: ${path} has no such heading`
}

export const links = (root: string, files: ReadonlyArray<string>): ReadonlyArray<Violation> =>
  files.flatMap((path) => {
    const text = readFileSync(join(root, path), "utf8")
    return [...text.matchAll(/\]\(([^)\s]+)\)/g)].flatMap((match) => {
      const message = problem(root, text, match[1] ?? "")
      return message === undefined ? [] : [{ path, line: text.slice(0, match.index).split("\n").length, message }]
    })
  })
