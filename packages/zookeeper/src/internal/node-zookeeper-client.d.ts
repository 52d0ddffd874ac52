// The driver has no types of its own. This is what `ZooKeeperClient.ts` and `ZooKeeperRequest.ts` use of it; what they
// use of a client is in `ZooKeeperDriver.ts`.

declare module "node-zookeeper-client" {
  interface Client {
    readonly connect: () => void
    readonly close: () => void
    readonly getSessionId: () => Buffer
    readonly getSessionTimeout: () => number
  }
  export const createClient: (
    connectionString: string,
    options?: { readonly sessionTimeout?: number, readonly spinDelay?: number, readonly retries?: number }
  ) => Client
}

declare module "node-zookeeper-client/lib/jute/index.js" {
  const jute: {
    readonly OP_CODES: {
      readonly CREATE: number
      readonly DELETE: number
      readonly EXISTS: number
      readonly GET_DATA: number
      readonly GET_CHILDREN2: number
    }
    readonly Request: new(header: object, payload: object) => object
    readonly data: {
      readonly Id: new(scheme: string, id: string) => object
      readonly ACL: new(permissions: number, id: object) => object
    }
    readonly protocol: {
      readonly RequestHeader: new(xid: number, type: number) => object
      readonly CreateRequest: new(path: string, data: Buffer, acl: ReadonlyArray<object>, flags: number) => object
      readonly DeleteRequest: new(path: string, version: number) => object
      readonly ExistsRequest: new(path: string, watch: boolean) => object
      readonly GetDataRequest: new(path: string, watch: boolean) => object
      readonly GetChildren2Request: new(path: string, watch: boolean) => object
    }
  }
  export default jute
}
