// A dependency that needs no download, so that `npm ci` has something to put into node_modules.
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

export const escape = (text) => String(text).replace(/[&<>"]/g, (character) => ENTITIES[character]);

export const page = (title, body) =>
  `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title></head>` +
  `<body>${body}</body></html>\n`;
