export * as PostgresLock from "./PostgresLock.ts"
