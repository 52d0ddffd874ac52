/**
 * Known names that an unknown one was probably meant to be.
 */

// A longer name is no slip of the pen; its beginning will do.
const longestCompared = 64

/** How many letters to change, add, drop or swap with their neighbour make one text of the other. */
const distance = (a: string, b: string): number => {
  let before: ReadonlyArray<number> = []
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      next.push(Math.min(
        (row[j] ?? 0) + 1,
        (next[j - 1] ?? 0) + 1,
        (row[j - 1] ?? 0) + (same ? 0 : 1),
        swapped ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY
      ))
    }
    before = row
    row = next
  }
  return row[b.length] ?? 0
}

const plain = (name: string): string => name.slice(0, longestCompared).toLowerCase().replace(/[^a-z0-9]/g, "")

const closest = (name: string, names: Iterable<string>) => {
  let best: string | undefined
  let fewest = Number.POSITIVE_INFINITY
  for (const candidate of names) {
    const changes = distance(plain(name), plain(candidate))
    if (changes < fewest) {
      best = candidate
      fewest = changes
    }
  }
  return { best, fewest }
}

/**
 * The one of `names` that takes the fewest changes, whatever the case and what separates the words; none, if it takes
 * one for more than every other letter.
 */
export const nearest = (name: string, names: Iterable<string>): string | undefined => {
  const { best, fewest } = closest(name, names)
  return fewest <= Math.max(1, plain(name).length / 2) ? best : undefined
}

/** The end of a sentence about an unknown name. */
export const hint = (name: string, names: Iterable<string>): string => {
  const best = nearest(name, names)
  return best === undefined ? "" : `, the nearest known one is "${best}"`
}

// "title" is no slip of the pen for "ttl".
const shortName = 6

/** The one of `names` that `name` is a slip of the pen for, if there is one: two changes, one in a short name. */
export const nearMiss = (name: string, names: Iterable<string>): string | undefined => {
  const { best, fewest } = closest(name, names)
  return fewest <= (plain(name).length < shortName ? 1 : 2) ? best : undefined
}
