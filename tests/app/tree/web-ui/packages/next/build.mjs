// Renders every `app/**/page.mjs` into `.next/`. Like the real build it removes the old output first, which breaks a
// server that still uses it.
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";

const findPages = (directory) =>
  readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return findPages(path);
    return entry.name === "page.mjs" ? [path] : [];
  });

// Values from a file of the server, which is not in git, become part of the pages.
const publicValues = (file) =>
  (existsSync(file) ? readFileSync(file, "utf8").split("\n") : []).filter((line) => line.startsWith("NEXT_PUBLIC_"));

// Writes small files, then large ones.
const writeMore = (directory, { files, megabytes }) => {
  mkdirSync(directory, { recursive: true });
  for (let number = 0; number < files; number += 1) writeFileSync(join(directory, `${number}.js`), `${number}\n`);
  const block = randomBytes(1 << 20);
  for (let number = 0; number < megabytes; number += 1) writeFileSync(join(directory, `${number}.bin`), block);
};

export const build = async (root) => {
  const app = join(root, "app");
  const out = join(root, ".next");
  rmSync(out, { recursive: true, force: true });
  const buildId = randomBytes(12).toString("base64url");
  const settings = { buildId, publicValues: publicValues(join(root, ".env.local")) };
  const routes = {};
  for (const source of findPages(app).sort()) {
    const render = (await import(pathToFileURL(source))).default;
    const route = `/${relative(app, dirname(source))}`;
    const target = join(out, "server", "app", `${route === "/" ? "index" : route.slice(1)}.html`);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, render(settings));
    routes[route] = relative(out, target);
  }
  const { GREETING } = await import(pathToFileURL(join(app, "page.mjs")));
  const more = await import(pathToFileURL(join(root, "outputs.mjs")));
  if (more.FILES > 0 || more.MEGABYTES > 0) {
    writeMore(join(out, "cache"), { files: more.FILES, megabytes: more.MEGABYTES });
  }
  const { HOME } = await import(pathToFileURL(join(root, "redirects.mjs")));
  writeFileSync(join(out, "routes-manifest.json"), `${JSON.stringify({ note: GREETING, home: HOME, routes }, null, 2)}\n`);
  // Written last: its presence marks a complete build.
  writeFileSync(join(out, "BUILD_ID"), buildId);
  console.log(`built ${Object.keys(routes).length} pages as ${buildId}`);
};
