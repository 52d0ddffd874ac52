/**
 * The clock that all processes of this machine share: CLOCK_MONOTONIC, in milliseconds.
 */

/** Milliseconds since the machine started; comparable between processes, and never set back. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

/** A span of that time. */
export interface Interval {
  readonly from: number
  readonly to: number
}

/** Twice as often costs a process that only waits 25 ms of processor time in each second instead of 16. */
const tick = 10
const longestTick = 30

/**
 * Tells of every span in which the event loop did nothing: the process was stopped, the loop was blocked, or the machine
 * was busy with others. `onTick` is called now and then.
 */
export const watchStalls = (onStall: (stall: Interval) => void, onTick: () => void = () => {}): () => void => {
  let last = now()
  const timer = setInterval(() => {
    const at = now()
    if (at - last > longestTick) onStall({ from: last, to: at })
    last = at
    onTick()
  }, tick)
  return () => clearInterval(timer)
}
