/**
 * The part of the README that lists the configuration, made from the declarations of the backends.
 * `node scripts/configDocs.ts` puts it there.
 */
import { readFileSync, writeFileSync } from "node:fs"
import type { Entry, Section } from "../packages/core/src/internal/config/declaration.ts"
import { enabledVariable, fileVariable, sectionsOf } from "../packages/core/src/internal/config/table.ts"
import { backends } from "../test/config/backends.ts"

const start = "<!-- config:start -->"
const end = "<!-- config:end -->"
const readme = new URL("../packages/core/README.md", import.meta.url)

const sections = sectionsOf(backends)

const titles: { readonly [name: string]: string } = {
  "": "Every lock",
  memory: "Memory",
  redis: "Redis",
  redlock: "Redlock",
  etcd: "etcd",
  mysql: "MySQL and MariaDB",
  postgres: "PostgreSQL",
  zookeeper: "ZooKeeper"
}

const path = (section: Section, { key }: Entry) => section.name === "" ? key : `${section.name}.${key}`

/** A table as the formatter would have it. */
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)]
}

const code = (text: string) => `\`${text}\``

const listing = (section: Section): ReadonlyArray<string> => [
  `#### ${titles[section.name]}`,
  "",
  ...table(
    ["environment", "file", "type", "default", "what it is"],
    section.entries.map((entry) => {
      const value = entry.default
      return [
        code(entry.variable),
        code(path(section, entry)),
        entry.kind.title,
        value === undefined ? "" : code(value),
        entry.description
      ]
    })
  ),
  ""
]

const yamlValue = (entry: Entry, value: string) => entry.kind.title === "list" ? `["${value}"]` : value

const sampleOf = (section: Section): ReadonlyArray<string> => {
  const margin = section.name === "" ? "" : "  "
  return [
    ...section.name === "" ? [] : [`${section.name}:`],
    ...section.entries.map((entry) => {
      const value = entry.default
      return value === undefined
        ? `${margin}# ${entry.key}: ${entry.kind.title}`
        : `${margin}${entry.key}: ${yamlValue(entry, value)}`
    })
  ]
}

/** A file with everything in it, at its default. */
export const sample: string = sections.flatMap(sampleOf).join("\n")

/** What stands between the marks. */
export const generated: string = [
  start,
  "",
  `${code(fileVariable)} names the file.`,
  "",
  ...sections.flatMap(listing),
  `A backend of your own called ${code("name")} is enabled by ${code(enabledVariable("name"))}.`,
  "",
  "A file with everything in it, at its default:",
  "",
  "```yaml",
  sample,
  "```",
  "",
  end
].join("\n")

/** What stands between the marks in the README now. */
export const written = (): string => {
  const text = readFileSync(readme, "utf8")
  return text.slice(text.indexOf(start), text.indexOf(end) + end.length)
}

if (process.argv[1] === import.meta.filename) {
  writeFileSync(readme, readFileSync(readme, "utf8").replace(written(), () => generated))
}
