// Serves the output of `build`. All of it is read at the start, so a process serves one build only.
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

export const start = (root, hostname, port) => {
  const out = join(root, ".next");
  const read = (name) => readFileSync(join(out, name), "utf8");
  if (!existsSync(join(out, "BUILD_ID"))) {
    console.error("no production build in .next: run `npm run build` first");
    process.exit(1);
  }
  const { home, note, routes } = JSON.parse(read("routes-manifest.json"));
  const pages = new Map(Object.entries(routes).map(([route, file]) => [route, read(file)]));
  console.error(`webui: starting, pid=${process.pid} note=${JSON.stringify(note)}`);

  const server = createServer((request, response) => {
    const [path, query = ""] = request.url.split("?", 2);
    const asked = new URLSearchParams(query);
    const stays = ["session_id", "new_session", "attach"].some((key) => asked.has(key));
    if (path === "/" && home && !stays) {
      response.writeHead(307, { location: home }).end(home);
    } else if (pages.has(path)) {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(pages.get(path));
    } else {
      response.writeHead(404, { "content-type": "text/html; charset=utf-8" }).end("<h1>404</h1>\n");
    }
  });
  server.listen(port, hostname);
  // Kept-alive connections would keep the process.
  process.on("SIGTERM", () => process.exit(0));
};
