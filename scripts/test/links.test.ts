import { assert, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { links } from "../rules/links.ts"

const here = "https://github.com/dlock/dlock"

it("finds links that are relative or lead nowhere", () => {
  const root = mkdtempSync(join(tmpdir(), "dlock-links-"))
  try {
    mkdirSync(join(root, "packages", "p"), { recursive: true })
    writeFileSync(join(root, "packages", "p", "README.md"), "# p\n\n## How `it` works, and why\n")
    writeFileSync(
      join(root, "README.md"),
      `# Title
[good](${here}) [good](${here}#title) [good](${here}/tree/main/packages/p#how-it-works-and-why) [good](#title)
[good](https://example.org/x#y) [good](${here}/blob/main/packages/p/README.md)
[relative](packages/p)
[gone](${here}/tree/main/packages/q) [gone](#nothing)
[gone](${here}/tree/main/packages/p#nothing)
`
    )
    assert.deepStrictEqual(links(root, ["README.md"]), [
      { path: "README.md", line: 4, message: "packages/p is not absolute" },
      { path: "README.md", line: 5, message: `${here}/tree/main/packages/q leads nowhere` },
      { path: "README.md", line: 5, message: "no heading for #nothing" },
      { path: "README.md", line: 6, message: `${here}/tree/main/packages/p#nothing: packages/p has no such heading` }
    ])
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})
