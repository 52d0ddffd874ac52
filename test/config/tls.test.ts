/**
 * Certificates as options name them, on connections that need them.
 */
import { Tls } from "@dlock/core/backend"
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, FileSystem, Redacted, Result } from "effect"
import { connect, createServer as listen, type TLSSocket } from "node:tls"
import { authority } from "../harness/Certificates.ts"

const read = (input: Tls.Input) => {
  const tls = Result.getOrThrowWith(Tls.read(input), (problem) => new Error(problem))
  return tls === undefined ? assert.fail("there is TLS") : tls.get
}

const tests = it.layer(NodeServices.layer, { excludeTestServices: true })

tests("certificates", (it) => {
  it.effect("are good for mutual TLS, as files and as texts, and a key behind a passphrase too", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { ca, encrypt, sign } = yield* authority
      const server = yield* sign("server.test", true)
      const client = yield* sign("client", false)
      const port = yield* serve({ ca, ...server })
      const texts = {
        ca: yield* fs.readFileString(ca),
        cert: yield* fs.readFileString(client.cert),
        key: Redacted.make(yield* fs.readFileString(client.key))
      }
      const locked = { ca, cert: client.cert, key: yield* encrypt(client, "open sesame"), passphrase: "open sesame" }
      for (const input of [{ ca, ...client }, texts, locked]) {
        assert.strictEqual(yield* greeting(port, { ...input, serverName: "server.test" }), "client")
      }
      assert.include(yield* Effect.flip(greeting(port, { ca, ...client, serverName: "other.test" })), "altnames")
      assert.include(yield* Effect.flip(greeting(port, true)), "certificate")
      assert.include(yield* Effect.flip(greeting(port, { ca, serverName: "server.test" })), "certificate required")
    }))

  it.effect("are read anew at each connect", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { ca, sign } = yield* authority
      const [first, second] = [yield* sign("first", false), yield* sign("second", false)]
      const get = read({ ca, ...first })
      const before = Redacted.value(yield* get)
      yield* fs.copyFile(second.cert, first.cert)
      yield* fs.copyFile(second.key, first.key)
      const after = Redacted.value(yield* get)
      assert.strictEqual(after.cert, yield* fs.readFileString(second.cert))
      assert.notStrictEqual(before.key, after.key)
    }))

  it.effect("that are wrong are told with the option and the file, without what is in them", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { ca, encrypt, folder, sign } = yield* authority
      const [one, other] = [yield* sign("one", false), yield* sign("other", false)]
      const encrypted = yield* encrypt(one, "open sesame")
      const empty = `${folder}/empty`
      yield* fs.writeFileString(empty, "hunter2")
      for (
        const [input, problem] of [
          [{ ca: "/nowhere/ca.pem" }, "ca: \"/nowhere/ca.pem\": there is no such file"],
          [{ ca: folder }, `ca: "${folder}": this is not a file`],
          [{ ca: empty }, "ca: there is no certificate in it"],
          [
            { ca: "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----" },
            "ca: a certificate in it cannot be read"
          ],
          [{ ca, cert: one.cert, key: other.key }, "key: it is not the key of cert"],
          [{ ca, cert: one.cert, key: encrypted }, "key: it needs a passphrase"],
          [
            { ca, cert: one.cert, key: encrypted, passphrase: "wrong" },
            "key: it is no private key that this passphrase opens"
          ],
          [{ ca, cert: one.cert, key: empty }, "key: there is no private key in it"]
        ] as const
      ) assert.strictEqual(yield* Effect.flip(read(input)), problem)
    }))
})

/** A server that wants a certificate and greets a client by the name in it. */
const serve = Effect.fnUntraced(function*(files: { readonly ca: string, readonly cert: string, readonly key: string }) {
  const { ca, cert, key } = Redacted.value(yield* read(files))
  return yield* Effect.acquireRelease(
    Effect.callback<{ readonly port: number, readonly close: () => void }>((resume) => {
      const options = { ca, cert, key, requestCert: true, rejectUnauthorized: true }
      const server = listen(options, (socket: TLSSocket) => socket.end(String(socket.getPeerCertificate().subject.CN)))
      server.on("tlsClientError", () => {})
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        if (typeof address === "object" && address !== null) {
          resume(Effect.succeed({ port: address.port, close: () => server.close() }))
        }
      })
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map(({ port }) => port))
})

/** What the server says, or why there is no connection. */
const greeting = Effect.fnUntraced(function*(port: number, input: Tls.Input) {
  const material = Redacted.value(yield* read(input))
  return yield* Effect.callback<string, string>((resume) => {
    const socket = connect({ host: "127.0.0.1", port, ...material })
    let said = ""
    socket.on("data", (data) => said += String(data))
    socket.on("end", () => resume(Effect.succeed(said)))
    socket.on("error", (error) => resume(Effect.fail(error.message)))
    return Effect.sync(() => socket.destroy())
  })
})
