/**
 * Asking a server whether it is there, on a bare TCP connection.
 */
import { Data, Effect } from "effect"
import * as Net from "node:net"

/** There was no such answer in time. */
export class NoAnswer extends Data.TaggedError("NoAnswer")<{ readonly received: string }> {}

/** Each probe has a limit of its own: a server that is just starting may take a question and never answer it. */
const limitMillis = 1000

/** Silence after something else came: there was an answer, and it is not the one. */
const silenceMillis = 100

/**
 * Connects, sends, and reads until what came matches; answers what came, one character per byte.
 */
export const ask = (
  address: { readonly host: string, readonly port: number },
  question: string,
  expected: RegExp
): Effect.Effect<string, NoAnswer> =>
  Effect.callback((resume) => {
    let received = ""
    const socket = Net.connect(address, () => socket.write(question, "latin1"))
    const end = (answer: Effect.Effect<string, NoAnswer>) => {
      clearTimeout(timer)
      socket.off("close", fail)
      socket.destroy()
      resume(answer)
    }
    const fail = () => end(Effect.fail(new NoAnswer({ received })))
    let timer = setTimeout(fail, limitMillis)
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1")
      if (expected.test(received)) return end(Effect.succeed(received))
      clearTimeout(timer)
      timer = setTimeout(fail, silenceMillis)
    })
    socket.on("error", fail)
    socket.on("close", fail)
    return Effect.sync(() => {
      clearTimeout(timer)
      socket.destroy()
    })
  })
