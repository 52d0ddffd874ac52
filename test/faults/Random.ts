/**
 * Numbers drawn from a seed, the same on every machine.
 */

/** Draws one number after the other. */
export interface Random {
  /** From 0 on, below 1. */
  readonly next: () => number
  /** A whole number, both ends included. */
  readonly between: (least: number, greatest: number) => number
  readonly chance: (probability: number) => boolean
  readonly pick: <A>(items: ReadonlyArray<A>) => A | undefined
}

/** Another stream for each text, from one seed. */
export const seedOf = (seed: number, text: string): number => {
  let hash = seed | 0
  for (const char of text) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193)
  return hash >>> 0
}

/** Mulberry32: small, and good enough to choose faults. */
export const make = (seed: number): Random => {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    next,
    between: (least, greatest) => least + Math.floor(next() * (greatest - least + 1)),
    chance: (probability) => next() < probability,
    pick: (items) => items[Math.floor(next() * items.length)]
  }
}
