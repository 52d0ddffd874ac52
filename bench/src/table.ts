/**
 * Figures as text.
 */

/** Three significant digits, or a dash. */
export const figure = (value: number | undefined): string => {
  // What is no number becomes `null` in a file.
  if (typeof value !== "number" || Number.isNaN(value)) return "-"
  if (value === 0 || Math.abs(value) >= 1000) return `${Math.round(value)}`
  return `${Number(value.toPrecision(3))}`
}

export type Cell = string | number | undefined

/** A table in Markdown whose columns are as wide as what is in them. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<Cell>>): string => {
  const lines = [head, ...rows.map((row) => row.map((cell) => typeof cell === "string" ? cell : figure(cell)))]
  const widths = head.map((_, column) => Math.max(3, ...lines.map((line) => line[column]?.length ?? 0)))
  const pad = (line: ReadonlyArray<string>) =>
    line.map((cell, column) => column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))
  const rule = widths.map((width, column) => column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)
  return [pad(lines[0] ?? []), rule, ...lines.slice(1).map(pad)].map((line) => `| ${line.join(" | ")} |`).join("\n")
}
