import type { Grant, LockBackend, LockBackendError, LockRequest, Validity } from "@dlock/core"
import { Clock, Deferred, Duration, Effect, Fiber, Option } from "effect"

type Backend = LockBackend["Service"]

/** A memory backend that is broken in one way, and the case of the suite that must notice. */
export interface Mutant {
  readonly name: string
  readonly caughtBy: string
  readonly make: (store: Backend) => Backend
  /** Breaks only the client that is to die. */
  readonly onlyMortal?: true
}

type GrantEffect = Effect.Effect<Grant, LockBackendError>

/** Changes the requests on their way to the store; the same request is changed to the same object. */
const mapRequest = (store: Backend, change: (request: LockRequest) => Partial<LockRequest>): Backend => {
  const changed = new WeakMap<LockRequest, LockRequest>()
  const to = (request: LockRequest): LockRequest => {
    const known = changed.get(request) ?? { ...request, ...change(request) }
    changed.set(request, known)
    return known
  }
  return {
    ...store,
    tryAcquire: (request) => store.tryAcquire(to(request)),
    acquire: (request) => store.acquire(to(request)),
    renew: (request) => store.renew(to(request)),
    release: (request) => store.release(to(request))
  }
}

const mapKey = (store: Backend, change: (key: string) => string): Backend =>
  mapRequest(store, ({ key }) => ({ key: change(key) }))

const mapGrant = (store: Backend, change: (grant: Grant, request: LockRequest) => Grant): Backend => ({
  ...store,
  tryAcquire: (request) => Effect.map(store.tryAcquire(request), Option.map((grant) => change(grant, request))),
  acquire: (request) => Effect.map(store.acquire(request), (grant) => change(grant, request))
})

/** Tells `onGrant` of every grant and `onRelease` of every release that freed the key. */
const observe = (store: Backend, on: {
  readonly granted: (request: LockRequest, grant: Grant) => void
  readonly released: (request: LockRequest) => void
}): Backend => ({
  ...mapGrant(store, (grant, request) => {
    on.granted(request, grant)
    return grant
  }),
  release: (request) => Effect.tap(store.release(request), (freed) => Effect.sync(() => freed && on.released(request)))
})

/** Knows who holds what. */
const withHolders = (store: Backend) => {
  const holders = new Map<string, LockRequest>()
  const backend = observe(store, {
    granted: (request) => holders.set(request.key, request),
    released: (request) => holders.delete(request.key)
  })
  return { backend, holderOf: (key: string) => holders.get(key) }
}

/** A line of its own over `tryAcquire`, woken by releases; `next` says who of those who wait is woken. */
const withLine = (
  store: Backend,
  next: (waiting: Array<Deferred.Deferred<void>>) => ReadonlyArray<Deferred.Deferred<void>>
): Backend => {
  const lines = new Map<string, Array<Deferred.Deferred<void>>>()
  const acquire = (request: LockRequest): GrantEffect =>
    Effect.flatMap(
      store.tryAcquire(request),
      Option.match({
        onSome: Effect.succeed,
        onNone: () =>
          Effect.suspend(() => {
            const turn = Deferred.makeUnsafe<void>()
            const waiting = lines.get(request.key) ?? []
            lines.set(request.key, waiting)
            waiting.push(turn)
            return Effect.andThen(
              Effect.onInterrupt(
                Effect.andThen(Deferred.await(turn), Effect.yieldNow),
                () => Effect.sync(() => waiting.includes(turn) && waiting.splice(waiting.indexOf(turn), 1))
              ),
              acquire(request)
            )
          })
      })
    )
  return {
    ...store,
    acquire,
    release: (request) =>
      Effect.tap(
        store.release(request),
        (freed) =>
          Effect.sync(() => {
            if (freed) { for (const turn of next(lines.get(request.key) ?? [])) Deferred.doneUnsafe(turn, Effect.void) }
          })
      )
  }
}

const shift = (grant: Grant, by: Duration.Input): Grant => ({
  ...grant,
  validFrom: grant.validFrom + Duration.toNanosUnsafe(by)
})

export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "a held key is granted a second time",
    caughtBy: "a held key is refused to every other owner, whichever client asks",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.map(
          store.tryAcquire(request),
          Option.orElse(() => Option.some({ validFrom: 0n, ttl: request.ttl, fencingToken: 0n }))
        )
    })
  },
  {
    name: "acquire does not wait",
    caughtBy: "acquire waits for the holder and then excludes everybody else",
    make: (store) => ({
      ...store,
      acquire: (request) =>
        Effect.map(
          store.tryAcquire(request),
          Option.getOrElse(() => ({
            validFrom: 0n,
            ttl: request.ttl,
            fencingToken: 0n
          }))
        )
    })
  },
  {
    name: "one grant in fifty goes to a key that is held",
    caughtBy: "many contenders over both clients count an unprotected counter exactly",
    make: (store) => {
      let n = 0
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() =>
            ++n % 50 === 0
              ? Effect.succeed({ validFrom: 0n, ttl: request.ttl, fencingToken: BigInt(n) })
              : store.acquire(request)
          )
      }
    }
  },
  {
    name: "the line is last come, first served",
    caughtBy: "the line is first come, first served over both clients",
    make: (store) => withLine(store, (waiting) => waiting.splice(-1))
  },
  {
    name: "a release wakes nobody",
    caughtBy: "acquire waits for the holder and then excludes everybody else",
    make: (store) => withLine(store, () => [])
  },
  {
    name: "a release wakes everybody, and who is quickest wins",
    caughtBy: "tryAcquire does not overtake those who stand in line",
    make: (store) => withLine(store, (waiting) => waiting.splice(0))
  },
  {
    name: "anybody can release",
    caughtBy: "only the owner releases",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return { ...backend, release: (request) => backend.release(holderOf(request.key) ?? request) }
    }
  },
  {
    name: "a release that comes again frees the key of the next holder",
    caughtBy: "release is idempotent, also when the key is somebody else's by now",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      const released = new WeakSet<LockRequest>()
      return {
        ...backend,
        release: (request) => {
          const again = released.has(request)
          released.add(request)
          return backend.release(again ? holderOf(request.key) ?? request : request)
        }
      }
    }
  },
  {
    name: "release always answers true",
    caughtBy: "release of an owner that never asked does nothing to a free key",
    make: (store) => ({ ...store, release: (request) => Effect.as(store.release(request), true) })
  },
  {
    name: "release always answers false",
    caughtBy: "acquire of a free key does not wait",
    make: (store) => ({ ...store, release: (request) => Effect.as(store.release(request), false) })
  },
  {
    name: "release does nothing",
    caughtBy: "acquire of a free key does not wait",
    make: (store) => ({ ...store, release: () => Effect.succeed(true) })
  },
  {
    name: "owners are compared by their first 20 characters",
    caughtBy: "only the owner releases",
    make: (store) => mapRequest(store, ({ owner }) => ({ owner: owner.slice(0, 20) }))
  },
  {
    name: "an owner is cut at its first slash",
    caughtBy: "an owner may be any text",
    make: (store) => mapRequest(store, ({ owner }) => ({ owner: owner.split("/")[0] ?? owner }))
  },
  {
    name: "a waiter whose acquire was interrupted stays in line",
    caughtBy: "release leaves the line",
    make: (store) => {
      const held = new WeakSet<LockRequest>()
      const backend = observe(store, {
        granted: (request) => held.add(request),
        released: (request) => held.delete(request)
      })
      return {
        ...backend,
        acquire: (request) =>
          Effect.flatMap(Effect.forkDetach(backend.acquire(request), { startImmediately: true }), Fiber.join),
        release: (request) => Effect.suspend(() => held.has(request) ? backend.release(request) : Effect.succeed(false))
      }
    }
  },
  {
    name: "an interrupted acquire of a free key keeps it",
    caughtBy: "an acquire that is interrupted at any moment leaves nothing",
    make: (store) => {
      const answered = new WeakSet<LockRequest>()
      const slow = (request: LockRequest) => <A>(effect: Effect.Effect<A, LockBackendError>) =>
        Effect.tap(
          effect,
          () => Effect.andThen(Effect.repeat(Effect.yieldNow, { times: 3 }), Effect.sync(() => answered.add(request)))
        )
      return {
        ...store,
        tryAcquire: (request) => slow(request)(store.tryAcquire(request)),
        acquire: (request) => slow(request)(store.acquire(request)),
        release: (request) =>
          Effect.suspend(() => answered.has(request) ? store.release(request) : Effect.succeed(false))
      }
    }
  },
  {
    name: "a give-back leaves no void mark",
    caughtBy: "an attempt that was given back gets nothing any more",
    make: (store) => ({
      ...store,
      tryAcquire: (request) => store.tryAcquire({ ...request }),
      acquire: (request) => store.acquire({ ...request })
    })
  },
  {
    name: "a release does not reach an acquire in flight",
    caughtBy: "a release beside an acquire in flight wins",
    make: (store) => ({
      ...store,
      acquire: (request) =>
        Effect.flatMap(
          Effect.forkDetach(Effect.andThen(
            Effect.repeat(Effect.yieldNow, { times: 15 }),
            Effect.suspend(() => store.acquire({ ...request }))
          )),
          Fiber.join
        )
    })
  },
  {
    name: "release does not end an acquire that waits",
    caughtBy: "release ends an acquire that still waits, and it holds nothing",
    make: (store) => {
      const held = new WeakSet<LockRequest>()
      const backend = observe(store, { granted: (request) => held.add(request), released: () => {} })
      return {
        ...backend,
        release: (request) =>
          Effect.suspend(() => {
            if (!held.has(request)) return Effect.succeed(false)
            held.delete(request)
            return Effect.as(Effect.forkDetach(Effect.delay(backend.release(request), "1 second")), true)
          })
      }
    }
  },
  {
    name: "the holder that asks again is refused",
    caughtBy: "an owner that asks again gets its own grant back",
    make: (store) => {
      const asked = new WeakSet<LockRequest>()
      return {
        ...store,
        tryAcquire: (request) => {
          const again = asked.has(request)
          asked.add(request)
          return again ? Effect.succeedNone : store.tryAcquire(request)
        }
      }
    }
  },
  {
    name: "grants are counted, and need as many releases",
    caughtBy: "an owner that asks again gets its own grant back",
    make: (store) => {
      const counts = new WeakMap<LockRequest, number>()
      const backend = observe(store, {
        granted: (request) => counts.set(request, (counts.get(request) ?? 0) + 1),
        released: () => {}
      })
      return {
        ...backend,
        release: (request) =>
          Effect.suspend(() => {
            const left = (counts.get(request) ?? 1) - 1
            counts.set(request, left)
            return left > 0 ? Effect.succeed(true) : backend.release(request)
          })
      }
    }
  },
  {
    name: "asking again gives a new fencing token",
    caughtBy: "an owner that asks again gets its own grant back",
    make: (store) => {
      let n = 0n
      return mapGrant(store, (grant) => ({ ...grant, fencingToken: ++n }))
    }
  },
  {
    name: "an attempt that asks again while it waits stands in line twice",
    caughtBy: "an owner that asks again while it waits has one place in line",
    make: (store) => {
      const asked = new WeakSet<LockRequest>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const again = asked.has(request)
            asked.add(request)
            return store.acquire(again ? { ...request, owner: `${request.owner}/again` } : request)
          })
      }
    }
  },
  {
    name: "renew creates the lease again",
    caughtBy: "a lease that ended is not renewed, and renewing it does not create it again",
    make: (store) => ({
      ...store,
      renew: (request) =>
        Effect.flatMap(
          store.renew(request),
          (validity): Effect.Effect<Option.Option<Validity>, LockBackendError> =>
            Option.isSome(validity) ? Effect.succeed(validity) : store.tryAcquire({ ...request })
        )
    })
  },
  {
    name: "renew after the release creates the lease again",
    caughtBy: "renew after release is none, also when both are sent at once",
    make: (store) => {
      const released = new WeakSet<LockRequest>()
      return {
        ...store,
        release: (request) => {
          released.add(request)
          return store.release(request)
        },
        renew: (request) => released.has(request) ? store.tryAcquire({ ...request }) : store.renew(request)
      }
    }
  },
  {
    name: "anybody can renew",
    caughtBy: "renew by somebody who does not hold the key changes nothing",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return { ...backend, renew: (request) => backend.renew(holderOf(request.key) ?? request) }
    }
  },
  {
    name: "renew answers without extending",
    caughtBy: "a renewed lease outlives its ttl",
    make: (store) => ({
      ...store,
      renew: (request) =>
        Effect.map(Clock.monotonicTimeNanos, (validFrom) => Option.some({ validFrom, ttl: request.ttl }))
    })
  },
  {
    name: "renew by a former holder takes the key back",
    caughtBy: "a lease that went to somebody else is not renewed",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return {
        ...backend,
        renew: (request) =>
          Effect.flatMap(backend.renew(request), (validity) => {
            const holder = holderOf(request.key)
            return Option.isSome(validity) || holder === undefined || holder === request
              ? Effect.succeed(validity)
              : Effect.andThen(backend.release(holder), backend.tryAcquire({ ...request }))
          })
      }
    }
  },
  {
    name: "a lease never ends",
    caughtBy: "a lease that nobody renews ends at its ttl with nobody in line",
    make: (store) =>
      mapGrant(mapRequest(store, () => ({ ttl: Duration.days(1) })), (grant, { ttl }) => ({ ...grant, ttl }))
  },
  {
    name: "a lease ends before its ttl",
    caughtBy: "a lease that nobody renews ends at its ttl, not before, and the next in line has the key",
    make: (store) =>
      mapGrant(
        mapRequest(store, ({ ttl }) => ({ ttl: Duration.divideUnsafe(ttl, 2) })),
        (grant, { ttl }) => ({ ...grant, ttl })
      )
  },
  {
    name: "a lease ends 100 milliseconds late",
    caughtBy: "a lease that nobody renews ends at its ttl, not before, and the next in line has the key",
    make: (store) =>
      mapGrant(
        mapRequest(store, ({ ttl }) => ({ ttl: Duration.sum(ttl, Duration.millis(100)) })),
        (grant, { ttl }) => ({ ...grant, ttl })
      )
  },
  {
    name: "the ttl is ignored",
    caughtBy: "a grant says truly from when and for how long it is good",
    make: (store) => mapRequest(store, () => ({ ttl: Duration.minutes(10) }))
  },
  {
    name: "validity counts from after the answer",
    caughtBy: "a grant says truly from when and for how long it is good",
    make: (store) => mapGrant(store, (grant) => shift(grant, "1 second"))
  },
  {
    name: "a lease that ends with somebody in line stays until it is looked at",
    caughtBy: "a waiter that does nothing with its turn holds up the line for its ttl",
    make: (store) => withLine(store, (waiting) => waiting.splice(0, 1))
  },
  {
    name: "the fencing token is constant",
    caughtBy: "fencing tokens grow over owners, clients and ways of getting the key",
    make: (store) => mapGrant(store, (grant) => ({ ...grant, fencingToken: 1n }))
  },
  {
    name: "the fencing token does not grow on a hand-over",
    caughtBy: "fencing tokens grow over owners, clients and ways of getting the key",
    make: (store) => {
      const last = new Map<string, bigint>()
      return {
        ...store,
        tryAcquire: (request) =>
          Effect.tap(
            store.tryAcquire(request),
            (grant) => Effect.sync(() => Option.isSome(grant) && last.set(request.key, grant.value.fencingToken))
          ),
        acquire: (request) =>
          Effect.map(store.acquire(request), (grant) => ({
            ...grant,
            fencingToken: last.get(request.key) ?? grant.fencingToken
          })),
        renew: (request) => Effect.map(store.renew(request), Option.map(({ ttl, validFrom }) => ({ ttl, validFrom })))
      }
    }
  },
  {
    name: "the fencing token starts again when a lease ended by itself",
    caughtBy: "fencing tokens grow over leases that ended by themselves",
    make: (store) => {
      const tokens = new Map<string, bigint>()
      const { backend, holderOf } = withHolders(store)
      const { acquire, tryAcquire } = mapGrant(backend, (grant, { key }) => {
        const token = (tokens.get(key) ?? 0n) + 1n
        tokens.set(key, token)
        return { ...grant, fencingToken: token }
      })
      const forget = (request: LockRequest) =>
        Effect.sync(() => {
          if (holderOf(request.key) !== undefined) tokens.delete(request.key)
        })
      return {
        ...backend,
        acquire: (request) => Effect.andThen(forget(request), acquire(request)),
        tryAcquire
      }
    }
  },
  {
    name: "a renewal changes the fencing token",
    caughtBy: "a renewal does not change the fencing token",
    make: (store) => {
      let n = 1_000_000n
      return {
        ...store,
        renew: (request) =>
          Effect.map(store.renew(request), Option.map((validity) => ({ ...validity, fencingToken: ++n })))
      }
    }
  },
  {
    name: "a loss is never told",
    caughtBy: "the holder is told when its lease is lost",
    make: (store) => mapRequest(store, () => ({ onLost: () => {} }))
  },
  {
    name: "a release is told as a loss",
    caughtBy: "a release is not a loss",
    make: (store) => ({
      ...store,
      release: (request) => Effect.tap(store.release(request), () => Effect.sync(() => request.onLost("taken")))
    })
  },
  {
    name: "a refusal is told as a loss",
    caughtBy: "a release is not a loss",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.tap(
          store.tryAcquire(request),
          (grant) => Effect.sync(() => Option.isNone(grant) && request.onLost("taken"))
        )
    })
  },
  ...([
    ["keys are folded to lower case", (key) => key.toLowerCase()],
    ["keys are trimmed", (key) => key.trim()],
    ["keys lose trailing spaces", (key) => key.replace(/ +$/, "")],
    ["keys are normalised", (key) => key.normalize("NFC")],
    ["keys lose their accents", (key) => key.normalize("NFD").replaceAll(/[\u0300-\u036f]/g, "")],
    ["keys are cut at 64 characters", (key) => key.slice(0, 64)],
    ["keys are cut at 511 characters", (key) => key.slice(0, 511)],
    ["keys end at a zero byte", (key) => key.split("\0")[0] ?? key],
    ["slashes are collapsed", (key) => key.replaceAll(/\/+/g, "/")],
    ["slashes are escaped, percents are not", (key) => key.replaceAll("/", "%2F")],
    ["backslashes are lost", (key) => key.replaceAll("\\", "")],
    ["keys are read as paths", (key) => new URL(`file:///${encodeURIComponent(key).replaceAll("%2F", "/")}`).pathname],
    ["keys are read as latin-1", (key) => Buffer.from(key, "latin1").toString("latin1")],
    ["keys lose half of an emoji", (key) => key.replaceAll(/[\udc00-\udfff]/g, "?")],
    ["empty hash tags are lost", (key) => key.replaceAll("{}", "")],
    ["only the hash tag counts", (key) => /\{([^}]+)\}/.exec(key)?.[1] ?? key]
  ] satisfies ReadonlyArray<readonly [string, (key: string) => string]>).map(([name, change]) => ({
    name,
    caughtBy: "every key is a lock of its own, however awkward its characters and its length",
    make: (store: Backend) => mapKey(store, change)
  })),
  {
    name: "check refuses what it should not",
    caughtBy: "every key is a lock of its own, however awkward its characters and its length",
    make: (store) => ({
      ...store,
      check: (key) => key.length > 200 ? "The key is longer than 200 characters" : undefined
    })
  },
  {
    name: "the tenure is not what was declared",
    caughtBy: "the declared tenure is the backend's, and check accepts ordinary requests",
    make: (store) => ({ ...store, tenure: "session" })
  },
  {
    name: "only 400 keys can be held",
    caughtBy: "one client holds 500 keys at once",
    make: (store) => {
      const held = new Set<string>()
      const backend = observe(store, {
        granted: ({ key }) => held.add(key),
        released: ({ key }) => held.delete(key)
      })
      return {
        ...backend,
        tryAcquire: (request) =>
          Effect.suspend(() => held.size < 400 ? backend.tryAcquire(request) : Effect.succeedNone)
      }
    }
  },
  {
    name: "who leaves the line takes the one behind along",
    caughtBy: "who leaves the line does not hold up those behind",
    make: (store) => {
      const lines = new Map<string, Set<LockRequest>>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const line = lines.get(request.key) ?? new Set()
            lines.set(request.key, line.add(request))
            return Effect.onInterrupt(
              Effect.tap(store.acquire(request), () => Effect.sync(() => line.delete(request))),
              () => Effect.forEach([...line].slice([...line].indexOf(request)), store.release)
            )
          })
      }
    }
  },
  {
    name: "who leaves at its turn keeps it",
    caughtBy: "who leaves at the moment of its turn does not hold up those behind",
    make: (store) => {
      const seen = new WeakSet<LockRequest>()
      return {
        ...store,
        tryAcquire: (request) => {
          seen.add(request)
          return store.tryAcquire(request)
        },
        acquire: (request) =>
          Effect.onInterrupt(
            Effect.tap(store.acquire(request), () => Effect.sync(() => seen.add(request))),
            () => Effect.void
          ),
        release: (request) => Effect.suspend(() => seen.has(request) ? store.release(request) : Effect.succeed(false))
      }
    }
  },
  {
    name: "the lease of a client that died does not end",
    onlyMortal: true,
    caughtBy: "the key of a client that died becomes free within the ttl of its last renewal",
    make: (store) =>
      mapGrant(mapRequest(store, () => ({ ttl: Duration.days(1) })), (grant, { ttl }) => ({ ...grant, ttl }))
  },
  {
    name: "the turn of a waiter that died does not end",
    onlyMortal: true,
    caughtBy: "a waiter that died holds up the line no longer than declared",
    make: (store) => mapRequest(store, () => ({ ttl: Duration.days(1) }))
  },
  {
    name: "renew hangs when the server is out of reach",
    onlyMortal: true,
    caughtBy: "no verb hangs when the server is out of reach",
    make: (store) => ({ ...store, renew: (request) => Effect.catch(store.renew(request), () => Effect.never) })
  },
  {
    name: "tryAcquire answers none when the server is out of reach",
    onlyMortal: true,
    caughtBy: "no verb hangs when the server is out of reach",
    make: (store) => ({
      ...store,
      tryAcquire: (request) => Effect.catch(store.tryAcquire(request), () => Effect.succeedNone)
    })
  },
  {
    name: "a release with nothing to give back asks the server",
    onlyMortal: true,
    caughtBy: "no verb hangs when the server is out of reach",
    make: (store) => ({
      ...store,
      release: (request) =>
        Effect.catch(
          Effect.andThen(store.renew(request), store.release(request)),
          (error) => Effect.delay(Effect.fail(error), "5 seconds")
        )
    })
  },
  {
    name: "the second of two equal acquires is never answered",
    caughtBy: "the same acquire sent twice at once is granted once",
    make: (store) => {
      const asked = new WeakSet<LockRequest>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const again = asked.has(request)
            asked.add(request)
            return again ? Effect.never : store.acquire(request)
          })
      }
    }
  },
  {
    name: "a lease that was revoked is renewed",
    caughtBy: "a lease that was revoked is not renewed, and others can have the key",
    make: (store) => {
      const validities = new WeakMap<LockRequest, Validity>()
      const backend = mapGrant(store, (grant, request) => {
        validities.set(request, grant)
        return grant
      })
      return {
        ...backend,
        renew: (request) =>
          Effect.map(backend.renew(request), Option.orElse(() => Option.fromUndefinedOr(validities.get(request)))),
        release: (request) => {
          validities.delete(request)
          return backend.release(request)
        }
      }
    }
  },
  {
    name: "one interrupted acquire in ten stays in line",
    caughtBy: "exclusion and the line survive a storm of waits, tries and interruptions",
    make: (store) => {
      const forgotten = new WeakSet<LockRequest>()
      let n = 0
      return {
        ...store,
        acquire: (request) =>
          Effect.onInterrupt(
            Effect.flatMap(Effect.forkDetach(store.acquire(request), { startImmediately: true }), (there) =>
              Effect.onInterrupt(Fiber.join(there), () =>
                ++n % 10 === 0 ? Effect.void : Fiber.interrupt(there))),
            () =>
              Effect.sync(() => {
                if (n % 10 === 0) {
                  forgotten.add(request)
                }
              })
          ),
        release: (request) =>
          Effect.suspend(() => forgotten.has(request) ? Effect.succeed(false) : store.release(request))
      }
    }
  }
]
