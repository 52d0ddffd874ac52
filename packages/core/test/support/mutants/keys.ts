import { Effect } from "effect"
import type { Backend, Mutant } from "./wrap.ts"
import { mapKey, mapRequest, observe } from "./wrap.ts"

/** Keys and owners that are taken for others. */
export const keys: ReadonlyArray<Mutant> = [
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
  ...([
    ["a key in braces is the key", (key) => /^\{(.*)\}$/.exec(key)?.[1] ?? key],
    ["keys that end in a colon and a word are the key", (key) => key.replace(/:[a-z]+$/, "")],
    ["keys are folded to upper case", (key) => key.toUpperCase()],
    ["what follows a slash is lost", (key) => key.split("/")[0] || key]
  ] satisfies ReadonlyArray<readonly [string, (key: string) => string]>).map(([name, change]) => ({
    name,
    caughtBy: "a key that is held and waited for has nothing to do with a key that is like it",
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
  }
]
