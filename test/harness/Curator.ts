/**
 * Apache Curator, which works the locks of ZooKeeper that most of the world uses.
 */
import { Effect, Semaphore } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"
import { HarnessError } from "./HarnessError.ts"
import { host, reserve } from "./Port.ts"
import * as Process from "./Process.ts"
import * as Program from "./Program.ts"

/**
 * One client of Curator. What it is asked it does one after the other, in one thread.
 */
export interface Curator {
  /** Waits for its mutex at this path; `false`: it did not get it in time. */
  readonly acquire: (path: string, milliseconds: number) => Effect.Effect<boolean, HarnessError>
  readonly release: (path: string) => Effect.Effect<void, HarnessError>
  /** Sends SIGKILL; returns when it is gone. */
  readonly kill: Effect.Effect<void>
}

const startLimit = "30 seconds"

const failed = (problem: string) => new HarnessError({ server: "curator", problem })

/** Splits what a connection says into lines, and gives each to the caller that waits for it. */
const makeConversation = (socket: Net.Socket) => {
  const lines: Array<string> = []
  const readers: Array<(line: string) => void> = []
  let rest = ""
  const serve = (): void => {
    for (const reader of readers.splice(0, lines.length)) reader(lines.shift() ?? "")
  }
  socket.on("error", () => {})
  socket.on("data", (chunk) => {
    const parts = (rest + chunk.toString()).split("\n")
    rest = parts.pop() ?? ""
    lines.push(...parts)
    serve()
  })
  const read = Effect.callback<string>((resume) => {
    readers.push((line) => resume(Effect.succeed(line)))
    serve()
  })
  return { read, say: (line: string) => Effect.sync(() => socket.write(`${line}\n`)) }
}

const awaitConnection = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly socket: Net.Socket, readonly close: () => void }>((resume) => {
      const listener = Net.createServer((socket) => {
        const close = () => {
          socket.destroy()
          listener.close()
        }
        resume(Effect.succeed({ socket, close }))
      })
      listener.listen(port, host)
      return Effect.sync(() => listener.close())
    }),
    ({ close }) => Effect.sync(close),
    { interruptible: true }
  )

/**
 * Starts a client of Curator for these servers; it is killed when the scope closes. Look at
 * `Program.available("curator")` first.
 */
export const curator = Effect.fnUntraced(function*(
  servers: ReadonlyArray<string>
): Effect.fn.Return<Curator, HarnessError, Scope.Scope> {
  const program = yield* Program.find("curator")
  const folder = yield* Effect.acquireRelease(Process.makeFolder("curator"), Process.removeFolder)
  const port = yield* reserve
  const child = yield* Effect.acquireRelease(
    program.launch({
      folder,
      command: () => ["java", Process.script("CuratorMutex.java"), servers.join(","), String(port)]
    }),
    ({ kill }) => kill
  )
  const { socket } = yield* Effect.raceFirst(
    awaitConnection(port),
    Effect.flatMap(child.exit, (code) => failed(`ended with ${code} instead of starting:\n${Process.tail(folder)}`))
  ).pipe(Effect.timeoutOrElse({ duration: startLimit, orElse: () => failed(`did not start within ${startLimit}`) }))
  const { read, say } = makeConversation(socket)
  yield* read
  const oneAtATime = Semaphore.makeUnsafe(1).withPermit
  const ask = (command: string) => oneAtATime(Effect.andThen(say(command), read))
  return {
    acquire: (path, milliseconds) =>
      Effect.flatMap(
        ask(`acquire ${path} ${milliseconds}`),
        (answer) => answer === "true" || answer === "false" ? Effect.succeed(answer === "true") : failed(answer)
      ),
    release: (path) =>
      Effect.flatMap(ask(`release ${path}`), (answer) => answer === "released" ? Effect.void : failed(answer)),
    kill: child.kill
  }
})
