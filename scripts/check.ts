/**
 * Types of everything: the packages, the tests, the examples, the scripts, and the snippets of the READMEs; and the doc
 * comments of what is public.
 */
import { undocumented } from "./docs.ts"
import { run } from "./run.ts"
import { writeSnippets } from "./snippets.ts"

run("tsc", ["-b", "packages/core", "packages/redis", "packages/etcd", "packages/mysql", "packages/zookeeper"])
run("tsc", ["-p", "tsconfig.tests.json"])
const { count, project } = writeSnippets()
console.log(`${count} snippets of the READMEs`)
if (count > 0) run("tsc", ["-p", project])
const missing = undocumented()
for (const line of missing) console.error(line)
if (missing.length > 0) process.exit(1)
