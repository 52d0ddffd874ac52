import { assert, describe, it } from "@effect/vitest"
import { manifests } from "../rules/manifests.ts"
import type { Manifest, Package } from "../workspace.ts"

const good: Manifest = {
  name: "@dlock/p",
  version: "1.0.0",
  license: "MIT",
  homepage: "https://github.com/dlock/dlock/tree/main/packages/p#readme",
  bugs: { url: "https://github.com/dlock/dlock/issues" },
  repository: { type: "git", url: "git+https://github.com/dlock/dlock.git", directory: "packages/p" },
  type: "module",
  engines: { node: ">=20.19.0" },
  exports: { ".": "./src/index.ts", "./internal/*": null, "./*": "./src/*.ts" },
  files: ["src", "dist", "!dist/.tsbuildinfo", "CHANGELOG.md", "README.md", "LICENSE"],
  scripts: { prepack: "node ../../scripts/prepack.js", other: "true" },
  publishConfig: {
    access: "public",
    exports: { ".": "./dist/index.js", "./internal/*": null, "./*": "./dist/*.js" }
  }
}

const messages = (...all: ReadonlyArray<Manifest>) =>
  manifests(all.map((manifest): Package => ({ folder: manifest.name.replace("@dlock", "packages"), manifest })))
    .map(({ message, path }) => `${path}: ${message}`)

describe("manifests", () => {
  it("accepts one that says everything", () => {
    assert.deepStrictEqual(messages(good), [])
  })

  it("refuses entries that are published as sources, or not at all", () => {
    const published = (exports: Readonly<Record<string, string | null>>) =>
      messages({ ...good, publishConfig: { access: "public", exports } })
    const must = `packages/p/package.json: "publishConfig" must be ${JSON.stringify(good.publishConfig)}`
    assert.deepStrictEqual(published({ ".": "./src/index.ts", "./internal/*": null, "./*": "./src/*.ts" }), [must])
    assert.deepStrictEqual(published({ ".": "./dist/index.js", "./*": "./dist/*.js" }), [must])
  })

  it("refuses one that packs without building, or that names no Node", () => {
    assert.deepStrictEqual(messages({ ...good, scripts: {}, engines: {} }), [
      `packages/p/package.json: "scripts" must be {"prepack":"node ../../scripts/prepack.js"}`,
      `packages/p/package.json: "engines" must name the lowest Node, for example { "node": ">=20.19.0" }`
    ])
  })

  it("refuses different versions", () => {
    const other = {
      ...good,
      name: "@dlock/q",
      version: "1.1.0",
      homepage: "https://github.com/dlock/dlock/tree/main/packages/q#readme",
      repository: { type: "git", url: "git+https://github.com/dlock/dlock.git", directory: "packages/q" }
    }
    assert.deepStrictEqual(messages(good, other), [`packages/p/package.json: "version" differs from packages/q`])
  })
})
