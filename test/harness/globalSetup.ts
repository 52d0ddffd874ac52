/**
 * Runs once before the tests of the project `servers`: brings in what is missing to start the servers.
 */
export const setup = (): void => {}
