/**
 * ZooKeeper: the recipe of its manual by hand, and dlock.
 */
import { ZooKeeperLock } from "@dlock/zookeeper"
import { createRequire } from "node:module"
import { type Contender, dlock, type Entry, type LayerOf, promising, type Release, type Site } from "../Contender.ts"

type Answer<A> = (error: Error | null, answer: A) => void

interface Client {
  readonly connect: () => void
  readonly close: () => void
  readonly once: (event: "connected", listener: () => void) => void
  readonly create: (path: string, data: null, mode: number, answer: Answer<string>) => void
  readonly mkdirp: (path: string, answer: Answer<string>) => void
  readonly getChildren: (path: string, answer: Answer<ReadonlyArray<string>>) => void
  readonly exists: (path: string, watcher: () => void, answer: Answer<object | null>) => void
  readonly remove: (path: string, answer: Answer<void>) => void
}

// The driver has no types of its own.
const driver: {
  readonly createClient: (servers: string, options: { readonly sessionTimeout: number }) => Client
  readonly CreateMode: { readonly EPHEMERAL_SEQUENTIAL: number }
} = createRequire(import.meta.url)("node-zookeeper-client")

const ask = <A>(question: (answer: Answer<A>) => void): Promise<A> =>
  new Promise((resolve, reject) => question((error, answer) => error ? reject(error) : resolve(answer)))

const sequenceOf = (name: string): string => name.slice(-10)

const recipe = async ({ addrs }: Site): Promise<Contender> => {
  const client = driver.createClient(addrs.join(","), { sessionTimeout: 30_000 })
  await new Promise<void>((resolve) => {
    client.once("connected", resolve)
    client.connect()
  })
  const parents = new Map<string, Promise<string>>()

  /** Takes the place behind the last, and waits until none is before it; answers the node. */
  const take = async (key: string): Promise<string> => {
    const parent = `/recipe/${key}`
    let made = parents.get(parent)
    if (made === undefined) {
      made = ask<string>((answer) => client.mkdirp(parent, answer))
      parents.set(parent, made)
    }
    await made
    const mode = driver.CreateMode.EPHEMERAL_SEQUENTIAL
    const node = await ask<string>((answer) => client.create(`${parent}/lock-`, null, mode, answer))
    const place = sequenceOf(node)
    for (;;) {
      const children = await ask<ReadonlyArray<string>>((answer) => client.getChildren(parent, answer))
      const before = children.filter((child) => sequenceOf(child) < place).toSorted().at(-1)
      if (before === undefined) return node
      await new Promise<void>((resolve, reject) =>
        client.exists(`${parent}/${before}`, resolve, (error, stat) => {
          if (error) reject(error)
          else if (stat === null) resolve()
        })
      )
    }
  }
  const run = async (key: string, work?: () => Promise<void>) => {
    const node = await take(key)
    if (work !== undefined) await work()
    await ask<void>((answer) => client.remove(node, answer))
  }
  return promising({
    pair: run,
    run,
    hold: async (key): Promise<Release> => {
      const node = await take(key)
      return () => ask<void>((answer) => client.remove(node, answer))
    },
    close: async () => client.close()
  })
}

export const zookeeperLayer: LayerOf = ({ addrs }) => ZooKeeperLock.layer({ servers: addrs })

export const zookeeper: ReadonlyArray<Entry> = [
  { name: "bare recipe", kind: "floor", make: recipe },
  { name: "dlock", kind: "dlock", make: (site) => dlock(zookeeperLayer(site)) }
]
