import { conforms, mariadbFlavour } from "./support.ts"

conforms(mariadbFlavour)
