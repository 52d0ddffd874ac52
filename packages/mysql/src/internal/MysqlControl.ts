/**
 * The connection that neither holds nor awaits anything: it ends the waits of others, and while somebody waits it finds
 * out whether the server still answers, because a session inside GET_LOCK can not.
 */
import type { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type Dial, type Dialled, within } from "./MysqlDial.ts"
import { closed, deserted, stalled, toBackendError } from "./MysqlError.ts"
import type { Session } from "./MysqlSession.ts"
import * as Sql from "./MysqlSql.ts"

export interface Control {
  /** `session` begins to wait: it is closed when the server stops answering. */
  readonly enter: (session: Session) => void
  /** `session` does not wait any more. */
  readonly leave: (session: Session) => void
  /** Ends the wait of `session`. Complete when the server has done so: a late KILL could hit the next statement. */
  readonly endWait: (session: Session) => Effect.Effect<void>
}

export const make = Effect.fnUntraced(
  function*(dial: Dial, patience: Duration.Duration): Effect.fn.Return<Control, never, Scope.Scope> {
    const opening = yield* Semaphore.make(1)
    const busy = yield* Latch.make(false)
    const waiting = new Set<Session>()
    let current: Dialled | undefined
    // What a look may take. A third is for the time between two: a wait ends within patience of the server's last sign.
    const share = Duration.times(patience, 2 / 3)

    const open = dial.open(
      share,
      {
        onClose: () => {},
        // It holds nothing, so it is no loss.
        onStall: () => current?.connection.close(stalled())
      },
      (dialled) => {
        current = dialled
        return dialled
      }
    ).pipe(within(share))

    const connected: Effect.Effect<Dialled, LockBackendError> = opening.withPermit(
      Effect.suspend(() => current?.connection.isOpen() === true ? Effect.succeed(current) : open)
    )

    const desert = (error: LockBackendError): void => {
      if (error.reason === "Unreachable" || error.reason === "Timeout") {
        for (const session of waiting) {
          session.connection.close(deserted(error.detail ?? error.message))
        }
      }
    }

    const look = connected.pipe(
      Effect.flatMap(({ connection }) =>
        Effect.mapError(connection.ask(Sql.session).await, (error) => toBackendError("acquire", error))
      ),
      // One connection that is gone says nothing about the server.
      Effect.retry({ times: 1, while: (error) => error.reason === "Unreachable" }),
      within(share),
      Effect.catch((error) => Effect.sync(() => desert(error)))
    )

    yield* busy.await.pipe(
      Effect.andThen(Effect.sleep(Duration.subtract(patience, share))),
      Effect.andThen(Effect.suspend(() => {
        if (waiting.size > 0) {
          return Effect.asVoid(look)
        }
        busy.closeUnsafe()
        return Effect.void
      })),
      Effect.forever,
      Effect.forkScoped
    )

    const kill = (session: Session) =>
      Effect.flatMap(connected, ({ connection, server }) => {
        if (server.incarnation === session.server.incarnation) {
          return Effect.mapError(
            connection.run(Sql.killQuery(session.connection.id)).await,
            (error) => toBackendError("release", error)
          )
        }
        // Another server, or another run of it, would have somebody else behind that number.
        const moved = closed("the server is another one by now")
        connection.close(moved)
        return Effect.fail(toBackendError("release", moved))
      })

    return {
      enter: (session) => {
        waiting.add(session)
        busy.openUnsafe()
      },
      leave: (session) => {
        waiting.delete(session)
      },
      endWait: (session) =>
        kill(session).pipe(
          Effect.timeout(patience),
          // The server drops a waiting session within two seconds after its connection was closed.
          Effect.catch(() => Effect.sync(() => session.connection.close(closed("its wait could not be ended")))),
          Effect.asVoid
        )
    }
  }
)
