/**
 * Charts as SVG: bars from zero, one below the other.
 */

export interface Bar {
  readonly label: string
  readonly value: number
  readonly isOurs: boolean
}

export interface Panel {
  readonly title: string
  readonly bars: ReadonlyArray<Bar>
}

const width = 720
const labelWidth = 250
const valueWidth = 70
const rowHeight = 22
const headHeight = 40
const margin = 16

const style = [
  "text{font:13px system-ui,sans-serif;fill:#24292f}",
  ".title{font-weight:600}",
  ".value{font-variant-numeric:tabular-nums}",
  ".bar{fill:#b6bec9}.ours{fill:#2f6feb}",
  "@media(prefers-color-scheme:dark){text{fill:#d0d7de}.bar{fill:#59636e}.ours{fill:#4c8dff}}"
].join("")

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")

const figure = (value: number): string => value >= 100 ? `${Math.round(value)}` : `${Number(value.toPrecision(3))}`

const panel = ({ bars, title }: Panel, top: number): string => {
  const most = Math.max(...bars.map(({ value }) => value))
  const space = width - 2 * margin - labelWidth - valueWidth
  const rows = bars.map(({ isOurs, label, value }, i) => {
    const y = top + headHeight + i * rowHeight
    const length = Math.max(1, space * value / most)
    const x = margin + labelWidth
    return [
      `<text x="${x - 8}" y="${y + 12}" text-anchor="end"${isOurs ? " class=\"title\"" : ""}>${escape(label)}</text>`,
      `<rect class="bar${isOurs ? " ours" : ""}" x="${x}" y="${y}" width="${length.toFixed(1)}" height="16" rx="2"/>`,
      `<text class="value" x="${(x + length + 6).toFixed(1)}" y="${y + 12}">${figure(value)}</text>`
    ].join("")
  })
  return [`<text class="title" x="${margin}" y="${top + 22}">${escape(title)}</text>`, ...rows].join("\n")
}

const heightOf = ({ bars }: Panel): number => headHeight + bars.length * rowHeight + margin

/** Panels one below the other. */
export const svg = (panels: ReadonlyArray<Panel>): string => {
  let top = 0
  const drawn = panels.map((one) => {
    const text = panel(one, top)
    top += heightOf(one)
    return text
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top}" width="${width}" height="${top}" role="img">`,
    `<style>${style}</style>`,
    ...drawn,
    "</svg>",
    ""
  ].join("\n")
}
