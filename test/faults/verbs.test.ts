/**
 * The verbs are read from bytes as the drivers send them.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Sql from "../../packages/mysql/src/internal/requests.ts"
import * as RedisScripts from "../../packages/redis/src/internal/scripts.ts"
import { asksOnlyFor, etcd, mysql, postgres, redis, zooKeeper } from "./verbs.ts"

const scripts = RedisScripts.make(true)

const evalsha = (sha1: string) => `*3\r\n$7\r\nEVALSHA\r\n$40\r\n${sha1}\r\n$1\r\n0\r\n`

const query = (...expressions: ReadonlyArray<Sql.Expression>) =>
  Buffer.from(`....\x03${Sql.select(expressions.map(({ text }) => text(false)))}`)

const zooKeeperPacket = (type: number, path: string): Buffer => {
  const packet = Buffer.alloc(16 + path.length + 4)
  packet.writeInt32BE(packet.length - 4, 0)
  packet.writeInt32BE(7, 4)
  packet.writeInt32BE(type, 8)
  packet.writeInt32BE(path.length, 12)
  packet.write(path, 16)
  return packet
}

const http2 = (type: number, payload: ReadonlyArray<number>): Buffer =>
  Buffer.from([0, 0, payload.length, type, 0, 0, 0, 0, 1, ...payload])

const grpc = (message: ReadonlyArray<number>): Buffer => http2(0, [0, 0, 0, 0, message.length, ...message])

const key = [...Buffer.from("k/1-a")]
const operation = (number: number) => [0x12, key.length + 4, number * 8 + 2, key.length + 2, 0x0a, key.length, ...key]
const compare = [0x0a, key.length + 2, 0x1a, key.length, ...key]
const leaseId = [0x08, 0x9a, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7, 0x98, 0xa9, 0x35]

/** A message of PostgreSQL: its type, its length, what is in it. */
const postgresMessage = (type: string, body: string): Buffer => {
  const length = Buffer.alloc(4)
  length.writeInt32BE(body.length + 4)
  return Buffer.concat([Buffer.from(type), length, Buffer.from(body, "latin1")])
}

/** One format for all parameters, and as many of these, each NULL. */
const bind = (parameters: number): Buffer =>
  postgresMessage(
    "B",
    `\0name\0\0\x01\0\x01\0${String.fromCharCode(parameters)}${"\xff\xff\xff\xff".repeat(parameters)}\0\0`
  )

describe("verbs", () => {
  it("of PostgreSQL", () => {
    const sync = postgresMessage("S", "")
    const execute = postgresMessage("E", "\0\0\0\0\0")
    const all = [
      bind(3),
      execute,
      sync,
      postgresMessage("P", "name\0select\0\0\0"),
      bind(8),
      execute,
      sync,
      bind(4),
      bind(1)
    ]
    assert.deepStrictEqual(postgres(Buffer.concat(all)), ["release", "acquire", "renew"])
    assert.deepStrictEqual(postgres(Buffer.from("\0\0\0\x08\x04\xd2\x16\x2f", "latin1")), [])
  })

  it("of Redis", () => {
    const text = evalsha(scripts.release.sha1) + evalsha(scripts.acquire.sha1) + evalsha(scripts.renew.sha1)
    assert.deepStrictEqual(redis(Buffer.from(text)), ["release", "acquire", "renew"])
    assert.deepStrictEqual(redis(Buffer.from(evalsha("0".repeat(40)))), [])
  })

  it("of MySQL", () => {
    assert.deepStrictEqual(mysql(query(Sql.take("k", () => Sql.uuidTokens(0)))), ["acquire"])
    assert.deepStrictEqual(mysql(query(Sql.wait("k", Sql.uuidTokens(63)))), ["acquire"])
    assert.deepStrictEqual(mysql(query(Sql.state([]), Sql.owns("k"), Sql.owns("l"))), ["renew"])
    assert.deepStrictEqual(mysql(query(Sql.release("k"))), ["release"])
    assert.deepStrictEqual(mysql(query(Sql.release("k"), Sql.take("k", () => Sql.uuidTokens(0)))), [
      "release",
      "acquire"
    ])
    assert.deepStrictEqual(mysql(query(Sql.uptime)), [])
  })

  it("of etcd", () => {
    const headers = http2(1, [1, 2, 3])
    const read = (...message: ReadonlyArray<number>) => etcd(Buffer.concat([headers, grpc(message)]))
    assert.deepStrictEqual(read(...compare, ...operation(2)), ["acquire"])
    assert.deepStrictEqual(read(...compare, ...operation(3)), ["release"])
    assert.deepStrictEqual(read(...operation(2), ...operation(3)), ["release"])
    assert.deepStrictEqual(read(...leaseId), ["renew"])
    assert.deepStrictEqual(read(0x08, 0x02), [])
    assert.deepStrictEqual(etcd(headers), [])
  })

  it("of ZooKeeper", () => {
    const bytes = Buffer.concat([
      zooKeeperPacket(1, "/locks/k/_c_1-lock-"),
      zooKeeperPacket(4, "/locks/k/_c_1-lock-0000000001"),
      zooKeeperPacket(2, "/locks/k/_c_1-lock-0000000001"),
      zooKeeperPacket(2, "/locks/nowhere")
    ])
    assert.deepStrictEqual(zooKeeper(bytes), ["acquire", "release", "renew"])
  })

  it("alone in a chunk or not", () => {
    const isRelease = asksOnlyFor(redis, "release")
    assert.isTrue(isRelease(Buffer.from(evalsha(scripts.release.sha1))))
    assert.isFalse(isRelease(Buffer.from(evalsha(scripts.release.sha1) + evalsha(scripts.acquire.sha1))))
    assert.isFalse(isRelease(Buffer.from(evalsha(scripts.renew.sha1))))
  })
})
