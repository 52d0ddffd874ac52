/**
 * Types of everything: the packages, the tests, the examples, the scripts, and the snippets of the texts and the
 * programs that they show; the doc comments of what is public; the manifests and the links; and the rules on the shape
 * of the sources, with their size.
 */
import { undocumented } from "./docs.ts"
import { outdated, texts } from "./excerpts.ts"
import { circles } from "./rules/circles.ts"
import { functions } from "./rules/functions.ts"
import { inheritance } from "./rules/inheritance.ts"
import { links } from "./rules/links.ts"
import { manifests } from "./rules/manifests.ts"
import { size } from "./rules/size.ts"
import { readSources, type Violation } from "./rules/source.ts"
import { root, run } from "./run.ts"
import { writeSnippets } from "./snippets.ts"
import { projects, publishedPackages } from "./workspace.ts"

const show = ({ line, message, path }: Violation) => `${path}${line === undefined ? "" : `:${line}`}: ${message}`

const packages = publishedPackages()
/** npm shows the READMEs of packages elsewhere, and the guides are read with them. */
const linked = texts.filter((path) => !/^(bench|examples|test)\//.test(path))
const errors = [...undocumented(), ...[...manifests(packages), ...links(root, linked), ...outdated()].map(show)]

for (const { folder, manifest } of packages) {
  const sources = readSources(root, folder)
  const { all, folders } = size(sources)
  const parts = [...folders].map(([name, { lines }]) => `${name} ${lines}`).join(", ")
  console.log(`${manifest.name}: ${all.lines} lines of code in ${all.files} files (${parts})`)
  errors.push(...[circles, functions, inheritance].flatMap((rule) => rule(sources)).map(show))
}

for (const line of errors) console.error(line)

run("tsc", ["-b", ...projects()])
run("tsc", ["-p", "tsconfig.tests.json"])
const { count, project } = writeSnippets()
console.log(`${count} snippets of the texts`)
if (count > 0) run("tsc", ["-p", project])

if (errors.length > 0) process.exit(1)
