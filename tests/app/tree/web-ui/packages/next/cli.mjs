#!/usr/bin/env node
// `ua-next build` and `ua-next start [--hostname HOST] [--port PORT]`, in the directory of the web UI.
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "./build.mjs";
import { start } from "./server.mjs";

const options = { hostname: { type: "string", default: "0.0.0.0" }, port: { type: "string", default: "3000" } };
const { positionals, values } = parseArgs({ allowPositionals: true, options });
const root = resolve(".");
if (positionals[0] === "build") {
  await build(root);
} else if (positionals[0] === "start") {
  await start(root, values.hostname, Number(values.port));
} else {
  console.error("usage: ua-next build | start [--hostname HOST] [--port PORT]");
  process.exit(2);
}
