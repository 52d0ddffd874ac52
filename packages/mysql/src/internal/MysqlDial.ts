/**
 * New connections: at most so many, each looked at before it is used.
 */
import type { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Client } from "./MysqlClient.ts"
import * as MysqlConnection from "./MysqlConnection.ts"
import { backendError, closed, notConnected, toBackendError } from "./MysqlError.ts"
import * as MysqlServer from "./MysqlServer.ts"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export interface Dialled {
  readonly connection: MysqlConnection.Connection
  readonly server: MysqlServer.Server
}

export interface Dial {
  /**
   * Opens a connection and gives it to `use` in the same step. Interruptible: a connection that is not ready yet is
   * closed. `patience` is how long it has for each answer.
   */
  readonly open: <A>(
    patience: Duration.Duration,
    listeners: MysqlConnection.Listeners,
    use: (dialled: Dialled) => A
  ) => Effect.Effect<A, LockBackendError>
  /** There is no room for another one. */
  readonly isFull: () => boolean
}

/** The time limit for a connection and what makes it ready. */
export const within = (patience: Duration.Duration) =>
<A>(
  self: Effect.Effect<A, LockBackendError>
): Effect.Effect<A, LockBackendError> =>
  Effect.timeoutOrElse(self, {
    duration: patience,
    orElse: () =>
      Effect.fail(toBackendError("connect", notConnected(`no connection within ${Duration.format(patience)}`)))
  })

const layerClosed = () => closed("the layer was closed")

const leave = (connection: MysqlConnection.Connection): Effect.Effect<void> =>
  // A statement under way would be waited for; the server drops a closed session by itself.
  Effect.andThen(
    connection.isQuiet() ? connection.quit : Effect.void,
    Effect.sync(() => connection.close(layerClosed()))
  )

/** `limit` is for everything that is open or being opened through it. The scope closes what is still open. */
export const make = Effect.fnUntraced(
  function*(client: Client, limit: number): Effect.fn.Return<Dial, never, Scope.Scope> {
    const all = new Set<MysqlConnection.Connection>()
    let opening = 0
    let ended = false

    const isFull = () => all.size + opening >= limit

    const connect = Effect.fnUntraced(
      function*(restore: Restore, patience: Duration.Duration, listeners: MysqlConnection.Listeners) {
        opening++
        const wire = yield* restore(client.connect).pipe(
          Effect.mapError((error) => toBackendError("connect", error)),
          Effect.onError(() =>
            Effect.sync(() => {
              opening--
            })
          )
        )
        let opened: MysqlConnection.Connection | undefined
        const connection = yield* MysqlConnection.make(wire, patience, {
          onStall: listeners.onStall,
          // It may have ended before it is known here.
          onClose: (error) => {
            if (opened !== undefined) {
              all.delete(opened)
            }
            listeners.onClose(error)
          }
        })
        opening--
        if (connection.isOpen()) {
          opened = connection
          all.add(connection)
        }
        if (ended) {
          connection.close(layerClosed())
        }
        const server = yield* restore(MysqlServer.inspect(connection)).pipe(
          Effect.onError(() => Effect.sync(() => connection.close(closed("it was not needed any more"))))
        )
        return { connection, server }
      }
    )

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        ended = true
        return Effect.forEach([...all], leave, { concurrency: "unbounded", discard: true })
      })
    )

    return {
      isFull,
      open: (patience, listeners, use) =>
        Effect.uninterruptibleMask((restore) => {
          if (ended) {
            return Effect.fail(toBackendError("connect", layerClosed()))
          }
          return isFull()
            ? Effect.fail(
              backendError(
                "connect",
                "Rejected",
                `connectionLimit is reached: ${limit} connections hold or await locks`
              )
            )
            : Effect.map(connect(restore, patience, listeners), use)
        })
    }
  }
)
