/**
 * The known name that is nearest to one that is not known.
 */

// A longer name is no slip of the pen; its beginning will do.
const longestCompared = 64

const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1]
    for (const [j, other] of [...b].entries()) {
      next.push(Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (letter === other ? 0 : 1)))
    }
    row = next
  }
  return row[b.length] ?? 0
}

const plain = (name: string) => name.slice(0, longestCompared).toLowerCase()

/** The one of `names` that takes the fewest changes; `undefined` if there is none. */
export const nearest = (name: string, names: Iterable<string>): string | undefined => {
  let best: string | undefined
  let fewest = Number.POSITIVE_INFINITY
  for (const candidate of names) {
    const changes = distance(plain(name), candidate)
    if (changes < fewest) {
      best = candidate
      fewest = changes
    }
  }
  return best
}
