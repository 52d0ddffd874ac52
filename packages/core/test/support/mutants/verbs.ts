import type { Inspection, LockBackendError, LockRequest } from "@dlock/core"
import { Effect, Option } from "effect"
import type { Backend, Mutant } from "./wrap.ts"
import { mapRequest, withHolders } from "./wrap.ts"

const mapInspection = (store: Backend, change: (told: Inspection, key: string) => Inspection): Backend => ({
  ...store,
  inspect: (key) => Effect.map(store.inspect(key), (told) => change(told, key))
})

const holderIs = (
  change: Partial<Option.Option.Value<Inspection["holder"]>>
) =>
(store: Backend): Backend =>
  mapInspection(store, ({ holder, waiting }) => ({
    holder: Option.map(holder, (told) => ({ ...told, ...change })),
    waiting
  }))

const waits = (change: (owners: ReadonlyArray<string>) => Inspection["waiting"]) => (store: Backend): Backend =>
  mapInspection(
    store,
    ({ holder, waiting }) => ({ holder, waiting: typeof waiting === "number" ? waiting : change(waiting) })
  )

const told =
  "a holder is told by its owner, its greatest token and the time that is left, and what is not known is absent"
const inOrder = "the waiters are told in the order of the line"

/** What `inspect` tells. */
const inspect: ReadonlyArray<Mutant> = [
  {
    name: "inspect tells what it told the first time",
    caughtBy: "a key that is not held is free",
    make: (store) => {
      const seen = new Map<string, Inspection>()
      return {
        ...store,
        inspect: (key) =>
          Effect.map(store.inspect(key), (told) => {
            const shown = seen.get(key) ?? told
            seen.set(key, shown)
            return shown
          })
      }
    }
  },
  {
    name: "inspect tells a dead holder",
    caughtBy: "a key whose grant ended by itself is free",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return mapInspection(backend, (told, key) => {
        const holder = holderOf(key)
        return holder === undefined ? told : { ...told, holder: Option.some({ owner: holder.owner }) }
      })
    }
  },
  { name: "the label is told instead of the owner", caughtBy: told, make: holderIs({ owner: "suite" }) },
  { name: "no owner is told", caughtBy: told, make: holderIs({ owner: undefined }) },
  { name: "no token is told", caughtBy: told, make: holderIs({ token: undefined }) },
  { name: "a wrong token is told", caughtBy: told, make: holderIs({ token: 1n }) },
  { name: "the ttl is told instead of the time that is left", caughtBy: told, make: holderIs({ remaining: 300_000 }) },
  { name: "the time that is left is told in seconds", caughtBy: told, make: holderIs({ remaining: 300 }) },
  { name: "the line is told in reverse", caughtBy: inOrder, make: waits((owners) => owners.toReversed()) },
  { name: "the line is told without the first waiter", caughtBy: inOrder, make: waits((owners) => owners.slice(1)) },
  { name: "only the number of waiters is told", caughtBy: inOrder, make: waits((owners) => owners.length) },
  {
    name: "the line is told with the holder in it",
    caughtBy: inOrder,
    make: (store) =>
      mapInspection(store, ({ holder, waiting }) => ({
        holder,
        waiting: typeof waiting === "number" || Option.isNone(holder) ? waiting : [holder.value.owner ?? "", ...waiting]
      }))
  },
  {
    name: "inspect renews the grant",
    caughtBy: "it changes nothing",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return {
        ...backend,
        inspect: (key) => {
          const holder = holderOf(key)
          return Effect.andThen(holder === undefined ? Effect.void : backend.renew(holder, {}), backend.inspect(key))
        }
      }
    }
  },
  {
    name: "inspect takes a free key",
    caughtBy: "it changes nothing",
    make: (store) => ({
      ...store,
      inspect: (key) => Effect.andThen(store.tryAcquire(stranger(key)), store.inspect(key))
    })
  },
  {
    name: "inspect succeeds without being declared",
    isPoor: true,
    caughtBy: "a backend without inspect says so",
    make: (store) => ({ ...store, inspect: () => Effect.succeed({ holder: Option.none(), waiting: 0 }) })
  }
]

const stranger = (key: string): LockRequest => ({
  key,
  owner: "stranger",
  ttl: 600_000,
  spare: 0,
  onLost: () => {},
  onWanted: () => {}
})

const ended = "the hold of exactly this owner ends, and its holder learns of it"
const leftAlone = "another owner, a waiter and a free key are left alone"

/** Revokes the holder if `isMeant`. */
const revokesIf = (isMeant: (holder: string, owner: string) => boolean) => (store: Backend): Backend => ({
  ...store,
  revoke: (key, owner): Effect.Effect<boolean, LockBackendError> =>
    Effect.flatMap(store.inspect(key), ({ holder }) => {
      const holds = Option.isSome(holder) ? holder.value.owner ?? "" : ""
      return store.revoke(key, isMeant(holds, owner) ? holds : owner)
    })
})

/** How a hold is taken away. */
const revoke: ReadonlyArray<Mutant> = [
  {
    name: "a revoke ends nothing",
    caughtBy: ended,
    make: (store) => ({ ...store, revoke: () => Effect.succeed(true) })
  },
  {
    name: "a revoke answers false",
    caughtBy: ended,
    make: (store) => ({ ...store, revoke: (key, owner) => Effect.as(store.revoke(key, owner), false) })
  },
  {
    name: "a revoke is told with another reason",
    caughtBy: ended,
    make: (store) => mapRequest(store, ({ onLost }) => ({ onLost: () => onLost("session") }))
  },
  { name: "a revoke is not told", caughtBy: ended, make: (store) => mapRequest(store, () => ({ onLost: () => {} })) },
  {
    name: "a revoke leaves the line to itself",
    caughtBy: "the next in line has the key",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return {
        ...backend,
        revoke: (key, owner) => {
          const holder = holderOf(key)
          return holder?.owner !== owner
            ? Effect.succeed(false)
            : Effect.as(Effect.andThen(Effect.sync(() => holder.onLost("taken")), backend.renew(holder, {})), true)
        }
      }
    }
  },
  { name: "a revoke ends the hold of any owner", caughtBy: leftAlone, make: revokesIf(() => true) },
  {
    name: "a revoke compares the beginning of the owner",
    caughtBy: leftAlone,
    make: revokesIf((holder, owner) => owner !== "" && holder.startsWith(owner))
  },
  {
    name: "a revoke compares without case",
    caughtBy: leftAlone,
    make: revokesIf((holder, owner) => holder.toLowerCase() === owner.toLowerCase())
  },
  {
    name: "revoke ends the hold without being declared",
    isPoor: true,
    caughtBy: "a backend without revoke says so and ends nothing",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return {
        ...backend,
        revoke: (key, owner) => {
          const holder = holderOf(key)
          return Effect.andThen(
            holder === undefined ? Effect.void : backend.release(holder),
            backend.revoke(key, owner)
          )
        }
      }
    }
  }
]

const ping: ReadonlyArray<Mutant> = [
  {
    name: "ping hangs",
    caughtBy: "it succeeds while locks can be taken, and takes none",
    make: (store) => ({ ...store, ping: Effect.never })
  },
  {
    name: "ping succeeds without a server",
    of: "third",
    caughtBy: "no verb hangs when the server is unreachable",
    make: (store) => ({ ...store, ping: Effect.void })
  }
]

const wanted: ReadonlyArray<Mutant> = [
  ...[
    "a holder is told when another client waits for its key",
    "a holder is told of a waiter that came before its grant"
  ]
    .map((caughtBy): Mutant => ({
      name: `no holder is told (${caughtBy})`,
      caughtBy,
      make: (store) => mapRequest(store, () => ({ onWanted: () => {} }))
    })),
  {
    name: "every holder is told that its key is wanted",
    caughtBy: "a holder is not told that its key is wanted when no client waits",
    make: (store) => ({
      ...store,
      renew: (request, renewal) =>
        Effect.tap(store.renew(request, renewal), () => Effect.sync(() => request.onWanted()))
    })
  },
  {
    name: "a waiter is told that the key is wanted",
    caughtBy: "a holder is told of a waiter that came before its grant",
    make: (store) => ({
      ...store,
      acquire: (request) => Effect.andThen(Effect.sync(() => request.onWanted()), store.acquire(request))
    })
  }
]

/** The verbs that the laws do not number, and what a holder is told. */
export const verbs: ReadonlyArray<Mutant> = [...inspect, ...revoke, ...ping, ...wanted]
