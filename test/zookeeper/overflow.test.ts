import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freshKey, newRequest, until } from "../requests.ts"
import { connect, directoryOf, fourLetterWord, lineOf, mkdirp, ZooKeeper } from "./support.ts"

const adler32 = (bytes: Buffer): number => {
  let a = 1
  let b = 0
  for (const byte of bytes) {
    a = (a + byte) % 65521
    b = (b + a) % 65521
  }
  return b * 65536 + a
}

/** A long with the checksum of what is before it, and then the path that ends the nodes. */
const seal = Buffer.from("000000012f", "hex")

/**
 * Writes another count of created children into a node of the latest snapshot of a server that does not run: two
 * thousand million nodes take too long to create.
 */
const setCounter = (folder: string, node: string, value: number): void => {
  const latest = Fs.readdirSync(folder).filter((name) => name.startsWith("snapshot.")).toSorted((a, b) =>
    Number.parseInt(a.slice(9), 16) - Number.parseInt(b.slice(9), 16)
  ).at(-1)
  assert.isString(latest)
  const file = Path.join(folder, latest ?? "")
  const bytes = Fs.readFileSync(file)
  const path = Buffer.alloc(4 + node.length)
  path.writeInt32BE(node.length)
  path.write(node, 4)
  const data = bytes.indexOf(path) + path.length
  const dataLength = Math.max(0, bytes.readInt32BE(data))
  // Data, ACL, czxid, mzxid, ctime, mtime, version.
  bytes.writeInt32BE(value, data + 4 + dataLength + 5 * 8 + 4)
  // The checksum covers what is before it; there may be another one behind, which covers more.
  let from = bytes.indexOf(path)
  for (let at = bytes.indexOf(seal, from); at !== -1; at = bytes.indexOf(seal, from)) {
    const sum = at - 8
    bytes.writeBigInt64BE(BigInt(adler32(bytes.subarray(0, sum))), sum)
    from = at + seal.length
  }
  Fs.writeFileSync(file, bytes)
}

layer(ZooKeeper.layer({ version: "3.8" }), { excludeTestServices: true, timeout: "1 minute" })(
  "the server's counter",
  (it) => {
    it.effect("may overflow in the midst of a line, which stays a line with one holder", () =>
      Effect.gen(function*() {
        const { bare: before, nodes: [node], servers } = yield* ZooKeeper
        const key = freshKey()
        yield* mkdirp(before, directoryOf(key))
        const folder = /^dataDir=(.*)$/m.exec(yield* fourLetterWord(node?.port ?? 0, "conf"))?.[1] ?? ""
        // A server writes a snapshot when it starts.
        yield* node?.kill ?? Effect.void
        yield* node?.start ?? Effect.void
        yield* node?.kill ?? Effect.void
        setCounter(folder, directoryOf(key), 2 ** 31 - 4)
        yield* node?.start ?? Effect.void
        // A driver that had just connected when the server was killed goes on waiting for its answer.
        const bare = yield* connect(servers)

        const a = yield* ZooKeeperLock.make({ servers })
        const b = yield* ZooKeeperLock.make({ servers })
        const seen = new Set<string>()
        const look = Effect.map(lineOf(bare, key), (line) => {
          for (const name of line) seen.add(name.slice(name.lastIndexOf("lock-") + 5))
          return line.length
        })
        const served: Array<number> = []
        let inside = 0
        const section = (i: number) =>
          Effect.suspend(() => {
            const client = i % 2 === 0 ? a : b
            const request = newRequest(key)
            return client.acquire(request).pipe(
              Effect.tap(() =>
                Effect.sync(() => {
                  assert.strictEqual(++inside, 1, "one holder at a time")
                  served.push(i)
                })
              ),
              Effect.andThen(look),
              Effect.andThen(Effect.sleep("5 millis")),
              Effect.andThen(Effect.sync(() => inside--)),
              Effect.andThen(client.release(request))
            )
          })
        // One after the other takes a place in line, so that the order is known.
        const inOrder: Array<Fiber.Fiber<unknown, unknown>> = []
        const holder = newRequest(key)
        yield* a.acquire(holder)
        for (let i = 0; i < 8; i++) {
          inOrder.push(yield* Effect.forkScoped(section(i)))
          yield* until(Effect.map(look, (length) => length === i + 2))
        }
        yield* a.release(holder)
        yield* Fiber.joinAll(inOrder)
        assert.deepStrictEqual(served, [0, 1, 2, 3, 4, 5, 6, 7], "first come, first served")
        assert.isTrue(seen.has("2147483647"), "the counter did come to its end")
        // Many at once: the server then counts on beyond the end, until it has written down what it has counted.
        while (![...seen].some((sequence) => sequence.startsWith("-"))) {
          yield* Effect.forEach(Array.from({ length: 20 }, (_, i) => i), section, { concurrency: "unbounded" })
        }
      }), { timeout: 180_000 })
  }
)
