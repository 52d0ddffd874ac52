/**
 * Programs in containers, for machines that have Docker and not the servers.
 */
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { host } from "./Port.ts"
import * as Process from "./Process.ts"
import type { Program } from "./Program.ts"

let answered: boolean | undefined

/** Whether a daemon answers; asked once. */
export const isRunning = (): boolean =>
  answered ??= ChildProcess.spawnSync("docker", ["info"], { stdio: "ignore", timeout: 10_000 }).status === 0

/** Whether an image is here. */
export const has = (image: string): boolean =>
  ChildProcess.spawnSync("docker", ["image", "inspect", image], { stdio: "ignore", timeout: 10_000 }).status === 0

/** Signals go to the container: the process on this machine is only its client. */
const docker = (...args: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    ChildProcess.spawn("docker", args, { stdio: "ignore" })
      .once("error", () => resume(Effect.void))
      .once("exit", () => resume(Effect.void))
  })

/**
 * Runs the programs of an image. Data are in the server's folder, which belongs to the user of the tests. Servers that
 * talk to each other share the network of the machine, which needs a Docker that runs on this machine's own Linux.
 */
export const program = (
  server: string,
  image: string,
  wrap: (command: ReadonlyArray<string>) => ReadonlyArray<string>
): Program => {
  const launch: Program["launch"] = Effect.fnUntraced(function*({ command, folder, inGroup = false, ports = [] }) {
    const name = `dlock-test-${Path.basename(folder)}`
    const marker = Path.join(folder, `${name}.container`)
    const [entrypoint = "", ...args] = wrap(command(inGroup ? host : "0.0.0.0"))
    // The reaper removes what is on record.
    yield* Effect.sync(() => Fs.writeFileSync(marker, ""))
    const client = yield* Process.launch(server, folder, [
      "docker",
      "run",
      "--rm",
      "--init",
      `--name=${name}`,
      `--user=${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`,
      `--volume=${folder}:${folder}`,
      `--workdir=${folder}`,
      ...(inGroup ? ["--network=host"] : ports.map((port) => `--publish=${host}:${port}:${port}`)),
      `--entrypoint=${entrypoint}`,
      image,
      ...args
    ])
    return {
      ...client,
      kill: docker("rm", "--force", name).pipe(
        Effect.andThen(client.kill),
        Effect.andThen(Effect.sync(() => Fs.rmSync(marker, { force: true })))
      ),
      pause: docker("pause", name),
      resume: docker("unpause", name)
    }
  })
  return { launch }
}
