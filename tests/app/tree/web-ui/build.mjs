// Renders every `app/**/page.mjs` into `.next/`. Like the real build it first removes the old output,
// so whoever serves from that directory meanwhile is broken.
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { readVersion } from "./release.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const app = join(here, "app");
const out = join(here, ".next");

const findPages = (directory) =>
  readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return findPages(path);
    return entry.name === "page.mjs" ? [path] : [];
  });

const version = readVersion();
rmSync(out, { recursive: true, force: true });

const routes = {};
for (const source of findPages(app).sort()) {
  const render = (await import(pathToFileURL(source))).default;
  const route = `/${relative(app, dirname(source))}`;
  const target = join(out, "server", "app", `${route === "/" ? "index" : route.slice(1)}.html`);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, render({ version }));
  routes[route] = relative(out, target);
}

const buildId = randomBytes(12).toString("base64url");
writeFileSync(join(out, "routes-manifest.json"), `${JSON.stringify({ version, routes }, null, 2)}\n`);
// Last, so that an interrupted build is not taken for a whole one.
writeFileSync(join(out, "BUILD_ID"), buildId);
console.log(`built ${Object.keys(routes).length} pages of ${version} as ${buildId}`);
