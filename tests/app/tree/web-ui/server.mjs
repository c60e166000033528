// Serves what `npm run build` made. Everything is read at the start: a process answers for one build only.
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { readVersion } from "./release.mjs";

const OUT = new URL(".next/", import.meta.url);
const read = (name) => readFileSync(new URL(name, OUT), "utf8");

if (!existsSync(new URL("BUILD_ID", OUT))) {
  console.error("no production build in .next: run `npm run build` first");
  process.exit(1);
}
const manifest = JSON.parse(read("routes-manifest.json"));
const pages = new Map(Object.entries(manifest.routes).map(([route, file]) => [route, read(file)]));
const identity = {
  version: readVersion(),
  service: "webui",
  pid: process.pid,
  started_at: Date.now() / 1000,
  build_id: read("BUILD_ID"),
  build_version: manifest.version,
};
const home = process.env.UA_WEB_UI_HOME ?? "";
const port = Number(process.env.UA_WEBUI_PORT || 3000);

const server = createServer((request, response) => {
  const path = request.url.split("?", 1)[0];
  if (path === "/version") {
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(identity));
  } else if (path === "/" && home) {
    response.writeHead(307, { location: home }).end();
  } else if (pages.has(path)) {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(pages.get(path));
  } else {
    response.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
  }
});
server.listen(port, "127.0.0.1", () => console.error(`webui: started, release ${identity.version}`));
// Node keeps kept-alive connections open for as long as they like.
process.on("SIGTERM", () => process.exit(0));
