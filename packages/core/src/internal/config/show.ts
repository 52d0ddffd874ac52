/**
 * Values as they may stand in a message: short, and without credentials.
 */
import * as Predicate from "effect/Predicate"

const longestShown = 80

/** A text without the credentials of the URLs in it. */
export const withoutCredentials = (text: string): string => text.replace(/\/\/[^/\s]*@/g, "//<redacted>@")

const cut = (text: string): string => text.length > longestShown ? `${text.slice(0, longestShown)}...` : text

const showEntry = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(cut(withoutCredentials(value)))
  if (Array.isArray(value)) return "a list"
  if (typeof value === "function") return "a function"
  return Predicate.isObject(value) ? "an object" : String(value)
}

/** A value as it may stand in a message. */
export const show = (value: unknown): string =>
  Array.isArray(value) ? cut(`[${value.slice(0, longestShown).map(showEntry).join(", ")}]`) : showEntry(value)

/** What an error says, as one line. A host with several addresses fails with one error for each and no message. */
export const oneLine = (error: unknown): string => {
  const text = error instanceof AggregateError && error.message === ""
    ? error.errors.map(oneLine).join(", ")
    : error instanceof Error
    ? error.message || error.name
    : String(error)
  return text.replace(/\s+/g, " ").trim()
}
