/**
 * A primary and its standby behind one address, as a name or a virtual address that follows the primary.
 */
import { Effect, Scope } from "effect"
import { host } from "../harness/Port.ts"
import { type Postgres, postgres } from "../harness/PostgresServer.ts"
import { at, connect, switchboard } from "./support.ts"

/** What a synchronous standby calls itself to its primary. */
const name = "standby"

const setSynchronous = ({ url }: Postgres) =>
  Effect.scoped(Effect.gen(function*() {
    const sql = yield* connect(url)
    yield* sql.unsafe(`alter system set synchronous_standby_names = '${name}'`)
    yield* sql`select pg_reload_conf()`
  }))

const promote = ({ url }: Postgres) =>
  Effect.scoped(Effect.gen(function*() {
    const sql = yield* connect(url)
    yield* sql`select pg_promote()`
  }))

/**
 * `kill` ends the primary. `start` promotes the standby, leads the address to it, and makes a new standby in the
 * background; until there is one, the primary itself is started again. A synchronous standby has what its primary has
 * confirmed, from the moment at which it is one.
 */
export const pair = Effect.fnUntraced(function*({ isSynchronous }: { readonly isSynchronous: boolean }) {
  const scope = yield* Effect.scope
  let primary = yield* postgres({})
  let standby: Postgres | undefined
  let promotions = 0
  const board = yield* switchboard(primary)

  const follow = Effect.gen(function*() {
    const follower = yield* Scope.provide(postgres({ primary, name }), scope)
    if (isSynchronous) yield* setSynchronous(primary)
    standby = follower
  })

  const failOver = Effect.fnUntraced(function*(next: Postgres) {
    standby = undefined
    yield* promote(next)
    promotions++
    primary = next
    yield* board.to(next)
    // A kill of the primary may end this as well: then there is no standby any more.
    yield* Effect.forkIn(Effect.ignore(follow), scope)
  }, Effect.orDie)

  yield* Effect.orDie(follow)
  const front: Postgres = {
    ...primary,
    host,
    port: board.port,
    addr: `${host}:${board.port}`,
    url: at(primary.url, board.port),
    kill: Effect.suspend(() => primary.kill),
    start: Effect.suspend(() => standby === undefined ? primary.start : failOver(standby)),
    pause: Effect.suspend(() => primary.pause),
    resume: Effect.suspend(() => primary.resume),
    probe: Effect.suspend(() => primary.probe),
    log: Effect.suspend(() => primary.log)
  }
  return { front, promotions: Effect.sync(() => promotions) }
})
