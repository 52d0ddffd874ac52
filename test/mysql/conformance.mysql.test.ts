import { conforms, mysqlFlavour } from "./support.ts"

conforms(mysqlFlavour)
