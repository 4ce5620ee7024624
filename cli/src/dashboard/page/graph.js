// The drawing of who calls whom.

import { health, html, percent, rate, svg, time } from "./dom.js";
import { layout } from "./layout.js";
import { details, edgeList } from "./details.js";

const MARGIN = 24;
/// Edges up to which each has its number written on it.
const FEW = 26;

let data;
let drawn; // { key, plan, root, parts }
let chosen; // { node: id } or { from, to }
let view; // { x, y, scale }: what is seen of the drawing

const elements = {};

/// The view's elements; `show` fills them.
export function build() {
  elements.svg = svg("svg", { role: "group", "aria-label": "Who calls whom. Tab moves between workloads, arrow keys along calls." });
  elements.side = html("aside", { class: "card side", "aria-label": "What is chosen" });
  elements.legend = legend();
  const zoom = (name, label, factor) => html("button", { type: "button", "aria-label": label, onclick: () => zoomBy(factor) }, name);
  const fitting = html("button", { type: "button", "aria-label": "Show all", onclick: () => fit() }, "⤢");
  const canvas = html("div", { class: "card canvas" }, elements.svg, elements.legend,
    html("div", { class: "zoom" }, zoom("−", "Smaller", 1 / 1.25), zoom("+", "Larger", 1.25), fitting));
  move(elements.svg);
  drawn = undefined;
  return html("div", { class: "graph" }, canvas, elements.side);
}

export function show(graph) {
  data = graph;
  const key = JSON.stringify([graph.nodes.map((node) => node.id), graph.edges.map((edge) => [edge.from, edge.to])]);
  if (!drawn || drawn.key !== key) {
    const focused = document.activeElement?.getAttribute?.("data-id");
    const { width, height } = elements.svg.getBoundingClientRect();
    drawn = { key, plan: layout(graph.nodes, graph.edges, width / Math.max(1, height - 40)) };
    draw();
    fit();
    if (focused) nodeOf(focused)?.focus();
  }
  numbers();
  tell();
}

function legend() {
  const line = (kind) => svg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, svg("path", { class: `edge ${kind}`, d: "M0,5 H30", "stroke-width": 2.4 }));
  return html("ul", { class: "legend" },
    html("li", {}, line(""), "encrypted"), html("li", {}, line("clear"), "in the clear"),
    html("li", {}, line("warn"), "under 99.9 % success"), html("li", {}, line("bad"), "under 99 %"));
}

const text = (x, y, words, kind) => svg("text", { x, y, class: kind }, words);
const short = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);

function draw() {
  const { plan } = drawn;
  drawn.nodes = new Map();
  drawn.ways = [];
  const arrow = (id) => svg("marker", { id: `arrow-${id}`, viewBox: "0 0 8 8", refX: 7.4, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", markerUnits: "userSpaceOnUse" },
    svg("path", { class: `arrow ${id}`, d: "M0,0.6 L8,4 L0,7.4 z" }));
  const ways = data.edges.filter((edge) => plan.ways.has(edge)).map((edge) => way(edge, plan.ways.get(edge)));
  const nodes = data.nodes.map((node) => box(node, plan.places.get(node.id)));
  const root = svg("g", {}, svg("defs", {}, ["good", "warn", "bad"].map(arrow)), ways, nodes);
  elements.svg.replaceChildren(root);
  drawn.root = root;
}

function box(node, { x, y, width, height }) {
  const kind = node.kind === "hidden" ? "hidden-end" : node.kind;
  const under = { service: "by a proxy", outside: "of the mesh", hidden: "may not be viewed", overflow: "not counted one by one" }[node.kind] ?? node.namespace;
  const parts = { mark: svg("rect", { class: "mark", x, y: y + 6, width: 4, height: height - 12, rx: 2 }), under: text(x + 13, y + 36, under, "under"), title: svg("title") };
  const group = svg("g", { tabindex: 0, role: "button", "data-id": node.id, onclick: () => choose({ node: node.id }), onkeydown: (event) => keys(event, node.id) },
    parts.title, svg("rect", { class: "box", x, y, width, height, rx: 8 }), parts.mark, text(x + 13, y + 19, node.kind === "outside" ? "outside" : short(node.name, 18)), parts.under);
  drawn.nodes.set(node.id, { group, kind, base: under, ...parts });
  return group;
}

function way(edge, { path, middle }) {
  const line = svg("path", { class: "edge", d: path });
  const label = text(middle.x, middle.y + 3, "");
  const select = () => choose({ from: edge.from, to: edge.to });
  const group = svg("g", { class: "way", onclick: select }, svg("title"), svg("path", { class: "hit", d: path }), line, label);
  drawn.ways.push({ from: edge.from, to: edge.to, group, line, label });
  return group;
}

const nodeOf = (id) => drawn.nodes.get(id)?.group;
const words = (it) => `${rate(it.requestsPerSecond)} requests a second, ${percent(it.success)} success, 99 of 100 within ${time(it.p99Seconds)}`;

/// Numbers and colours of now, in the drawing that is there.
function numbers() {
  const near = neighbours();
  for (const node of data.nodes) {
    const it = drawn.nodes.get(node.id);
    const how = health(node.success, node.requestsPerSecond);
    const fades = near && !near.has(node.id);
    it.group.setAttribute("class", `node ${it.kind} ${how}${chosen?.node === node.id ? " chosen" : ""}${fades ? " faded" : ""}`);
    it.group.setAttribute("aria-pressed", String(chosen?.node === node.id));
    const said = node.requestsPerSecond > 0 ? ` · ${rate(node.requestsPerSecond)}/s · ${percent(node.success)}` : "";
    it.under.textContent = short(`${it.base}${it.base ? said : said.slice(3)}`, 26);
    const name = node.namespace ? `${node.namespace}/${node.name}` : node.name;
    const label = node.requestsPerSecond > 0 ? `${name}: ${words(node)}` : name;
    it.group.setAttribute("aria-label", label);
    it.title.textContent = label;
  }
  const most = Math.max(1, ...data.edges.map((edge) => edge.requestsPerSecond));
  for (const it of drawn.ways) {
    const edge = data.edges.find((edge) => edge.from === it.from && edge.to === it.to);
    const how = health(edge.success, edge.requestsPerSecond);
    const isClear = edge.encrypted !== undefined && edge.encrypted < 1;
    const isChosen = chosen?.from === it.from && chosen?.to === it.to;
    const touches = !chosen || isChosen || chosen.node === it.from || chosen.node === it.to;
    const arrow = how === "warn" || how === "bad" ? how : "good";
    it.line.setAttribute("class", `edge ${how}${isClear ? " clear" : ""}`);
    it.line.setAttribute("stroke-width", (1.3 + 3.2 * Math.sqrt(edge.requestsPerSecond / most)).toFixed(2));
    it.line.setAttribute("marker-end", `url(#arrow-${arrow})`);
    it.group.setAttribute("class", `way${isChosen ? " chosen" : ""}${touches ? "" : " faded"}`);
    const shows = edge.requestsPerSecond > 0 && (data.edges.length <= FEW || (chosen && touches) || how === "bad");
    it.label.textContent = shows ? `${rate(edge.requestsPerSecond)}/s` : "";
    it.label.setAttribute("class", how);
    it.group.querySelector("title").textContent = `${edge.from} calls ${edge.to}: ${rate(edge.requestsPerSecond)} requests a second, ${percent(edge.success)} success`;
  }
}

/// What stays bright while something is chosen.
function neighbours() {
  if (!chosen) return undefined;
  if (!chosen.node) return new Set([chosen.from, chosen.to]);
  const near = data.edges.filter((edge) => edge.from === chosen.node || edge.to === chosen.node);
  return new Set([chosen.node, ...near.flatMap((edge) => [edge.from, edge.to])]);
}

function choose(what) {
  const same = chosen && chosen.node === what.node && chosen.from === what.from && chosen.to === what.to;
  chosen = same ? undefined : what;
  numbers();
  tell();
}

/// The side: what is chosen, or everything as a list, which is the drawing for who doesn't see it.
function tell() {
  const node = chosen?.node && data.nodes.find((node) => node.id === chosen.node);
  const edge = chosen?.from && data.edges.find((edge) => edge.from === chosen.from && edge.to === chosen.to);
  if (chosen && !node && !edge) chosen = undefined;
  const { side } = elements;
  // Who reads or walks through the side stays where he is, whatever is counted meanwhile.
  const [top, focused] = [side.scrollTop, [...side.querySelectorAll("button")].indexOf(document.activeElement)];
  side.replaceChildren(...(node || edge ? details(data, node, edge, choose) : edgeList(data, choose)));
  side.scrollTop = top;
  if (focused >= 0) (side.querySelectorAll("button")[focused] ?? side.querySelector("button"))?.focus({ preventScroll: true });
}

// Keys and moves.

function keys(event, id) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    choose({ node: id });
    return;
  }
  if (event.key === "Escape" && chosen) choose(chosen);
  const here = drawn.plan.places.get(id);
  const ids = (edges, side) => edges.map((edge) => edge[side]).filter((other) => other !== id);
  const near = {
    ArrowRight: () => ids(data.edges.filter((edge) => edge.from === id), "to"),
    ArrowLeft: () => ids(data.edges.filter((edge) => edge.to === id), "from"),
    ArrowDown: () => data.nodes.map((node) => node.id).filter((other) => inColumn(other, here) > 0),
    ArrowUp: () => data.nodes.map((node) => node.id).filter((other) => inColumn(other, here) < 0),
  }[event.key];
  if (!near) return;
  event.preventDefault();
  const distance = (other) => Math.abs(drawn.plan.places.get(other).y - here.y);
  const next = near().sort((a, b) => distance(a) - distance(b))[0];
  if (next) nodeOf(next).focus();
}

function inColumn(id, here) {
  const there = drawn.plan.places.get(id);
  return there.layer === here.layer ? there.y - here.y : 0;
}

function apply() {
  drawn?.root.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
}

function fit() {
  const { width, height } = elements.svg.getBoundingClientRect();
  if (!drawn || width === 0) return;
  const { plan } = drawn;
  const scale = Math.min((width - 2 * MARGIN) / Math.max(1, plan.width), (height - 2 * MARGIN - 20) / Math.max(1, plan.height), 1.25);
  // Smaller than this nobody reads it: the rest is reached by moving.
  const kept = Math.max(scale, 0.5);
  const left = kept > scale ? MARGIN : (width - plan.width * kept) / 2;
  const top = plan.height * kept > height - 2 * MARGIN ? MARGIN / 2 : (height - 20 - plan.height * kept) / 2;
  view = { x: left, y: top, scale: kept };
  apply();
}

function zoomBy(factor, at) {
  const { width, height } = elements.svg.getBoundingClientRect();
  const { x, y } = at ?? { x: width / 2, y: height / 2 };
  const scale = Math.max(0.15, Math.min(3, view.scale * factor));
  view = { scale, x: x - ((x - view.x) * scale) / view.scale, y: y - ((y - view.y) * scale) / view.scale };
  apply();
}

function move(canvas) {
  let from;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { left, top } = canvas.getBoundingClientRect();
    zoomBy(Math.exp(-event.deltaY / 500), { x: event.clientX - left, y: event.clientY - top });
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => (from = { x: event.clientX - view.x, y: event.clientY - view.y }));
  window.addEventListener("pointermove", (event) => {
    if (!from || event.buttons === 0) return (from = undefined);
    view = { ...view, x: event.clientX - from.x, y: event.clientY - from.y };
    apply();
  });
  new ResizeObserver(() => fit()).observe(canvas);
}
