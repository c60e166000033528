import { readFileSync } from "node:fs";

// Outside of `web-ui/` on purpose: a new commit alone is no reason to build again.
const FILE = new URL("../src/universal_agent/_release.txt", import.meta.url);

export const readVersion = () => {
  const text = readFileSync(FILE, "utf8").trim();
  return text.startsWith("$") ? "unreleased" : text;
};
