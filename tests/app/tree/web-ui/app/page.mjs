import { escape, page } from "ua-markup";

const GREETING = "Universal Agent";

export default ({ version }) => page(GREETING, `<h1>${escape(GREETING)}</h1><p>Built from ${escape(version)}</p>`);
