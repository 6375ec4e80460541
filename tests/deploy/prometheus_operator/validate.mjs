// Reads a JSON array of objects of monitoring.coreos.com/v1 and ends with an error for one that is not valid.
import * as models from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";

for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  new models[manifest.kind](manifest).validate();
}
