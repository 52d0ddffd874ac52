import { assert, it } from "@effect/vitest"
import { environment, nodes, satisfies } from "../pack/outside.ts"

it("compares versions by their numbers", () => {
  assert.isTrue(satisfies("20.19.0", ">=20.19.0"))
  assert.isTrue(satisfies("24.0.0", ">=20.19.0"))
  assert.isFalse(satisfies("20.9.0", ">=20.19.0"))
  assert.isFalse(satisfies("9.0.0", ">=20.19.0"))
  assert.isTrue(satisfies("9.0.0", undefined))
})

it("takes the Node of the repository first, and gives a user nothing that pnpm added", () => {
  assert.strictEqual(nodes[0]?.command, process.execPath)
  assert.notInclude(environment.PATH ?? "", "node_modules")
  assert.notProperty(environment, "npm_config_user_agent")
})
