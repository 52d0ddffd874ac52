/**
 * An environment and a file system that exist in the test only.
 */
import { LockConfig } from "@dlock/core"
import { ConfigProvider, Effect, FileSystem, Layer, PlatformError } from "effect"

export const environment = (variables: Record<string, string>): ConfigProvider.ConfigProvider =>
  ConfigProvider.fromEnvRecord(variables)

/** Files by their paths; an error's tag where reading fails. */
export const files = (
  contents: Record<string, string | Uint8Array | { readonly fails: PlatformError.SystemErrorTag }>
): Layer.Layer<FileSystem.FileSystem> =>
  FileSystem.layerNoop({
    readFileString: (path) => {
      const content = contents[path] ?? { fails: "NotFound" as const }
      if (typeof content === "string") return Effect.succeed(content)
      if (content instanceof Uint8Array) return Effect.succeed(new TextDecoder().decode(content))
      return Effect.fail(PlatformError.systemError({
        _tag: content.fails,
        module: "FileSystem",
        method: "readFile",
        pathOrDescriptor: path
      }))
    }
  })

export interface Sources {
  readonly env?: Record<string, string>
  readonly files?: Parameters<typeof files>[0]
  readonly file?: string
  readonly section?: string
  readonly backends?: ReadonlyArray<LockConfig.Backend>
}

/** `LockConfig.layer` over the given sources only. */
export const layer = (sources: Sources) =>
  LockConfig.layer(sources).pipe(
    Layer.provide(files(sources.files ?? {})),
    Layer.provide(ConfigProvider.layer(environment(sources.env ?? {})))
  )

/** Every problem that the layer reports, as "source: problem". */
export const problems = (sources: Sources) =>
  Layer.build(layer(sources)).pipe(
    Effect.scoped,
    Effect.flip,
    Effect.map((error) => error.problems.map(({ problem, source }) => `${source}: ${problem}`))
  )
