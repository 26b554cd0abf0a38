// Prints every country of Natural Earth 1:50m as a GeoJSON feature, one a line.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { feature } from "topojson-client";

const file = createRequire(import.meta.url).resolve("world-atlas/countries-50m.json");
const topology = JSON.parse(readFileSync(file, "utf8"));
const { features } = feature(topology, topology.objects.countries);
process.stdout.write(features.map((country) => JSON.stringify(country) + "\n").join(""));
