/**
 * The kit for authors of backends: options, errors, secrets and TLS in the shape that every backend has, and time
 * limits that cost little.
 *
 * @since 0.1.0
 */
export * as Address from "./Address.ts"
export * as Calls from "./Calls.ts"
export * as Errors from "./Errors.ts"
export * as Options from "./Options.ts"
export * as Secret from "./Secret.ts"
export * as Timers from "./Timers.ts"
export * as Tls from "./Tls.ts"
