// Elements and words. Whatever comes from the mesh becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export const html = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

/// A width in percent; a style attribute would be refused by the page's own policy.
export function wide(element, share) {
  element.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return element;
}

export const rate = (value) => (value === undefined ? "–" : value >= 1000 ? `${(value / 1000).toFixed(1)}k` : value >= 100 ? value.toFixed(0) : value.toFixed(1));

/// Never rounded up to 100 %, which would hide that something fails.
export function percent(share) {
  if (share === undefined) return "–";
  const floor = Math.floor(share * 1000) / 10;
  return `${share >= 1 ? "100" : floor.toFixed(1)} %`;
}

/// Of a split: rounded to the nearest.
export const part = (share) => (share === undefined ? "–" : `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`);

export function time(seconds) {
  if (seconds === undefined) return "–";
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  return seconds < 1 ? `${(seconds * 1000).toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
}

/// How long a stretch of seconds is, in the largest unit that fits.
export function span(seconds) {
  const units = [["y", 365 * 86400], ["d", 86400], ["h", 3600], ["min", 60]];
  const [name, size] = units.find(([, size]) => Math.abs(seconds) >= 2 * size) ?? ["s", 1];
  return `${Math.floor(Math.abs(seconds) / size)} ${name}`;
}

/// How well answers are: the same bounds everywhere.
export function health(success, requests) {
  if (success === undefined || !requests) return "idle";
  return success >= 0.999 ? "good" : success >= 0.99 ? "warn" : "bad";
}

export const NAMES = {
  mutual_tls: "mutual TLS", local: "within a node, both identities known", plaintext: "plaintext", node: "from the node itself",
  passthrough: "relayed unchanged", none: "no connection",
};

export const chip = (kind, ...children) => html("span", { class: `chip ${kind}` }, ...children);

export function table(caption, columns, rows) {
  const head = columns.map(([name, kind]) => html("th", { scope: "col", class: kind }, name));
  const body = rows.map((cells) => html("tr", {}, cells.map((cell, at) => html("td", { class: columns[at][1] ?? "name" }, cell))));
  return html("table", {}, caption && html("caption", {}, caption), html("thead", {}, html("tr", {}, head)), html("tbody", {}, body));
}

export const empty = (...words) => html("p", { class: "empty" }, ...words);
