// A dependency that needs no download, so that `npm ci` has something to put into node_modules.
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

export const escape = (text) => String(text).replace(/[&<>"]/g, (character) => ENTITIES[character]);

export const page = (title, body, { buildId, publicValues }) =>
  `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title></head>` +
  `<body data-build="${buildId}" data-public="${escape(publicValues.join(" "))}">` +
  `<h1>${escape(title)}</h1>${body}</body></html>\n`;
