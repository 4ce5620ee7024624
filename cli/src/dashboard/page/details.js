// The side of the graph: what is chosen, or all calls.

import { NAMES, chip, health, html, percent, rate, time } from "./dom.js";

const fact = (name, value) => [html("dt", {}, name), html("dd", {}, value)];

function encryption(edge) {
  if (edge.encrypted === undefined) return "–";
  return edge.encrypted >= 1 ? chip("good", "encrypted") : chip("bad", edge.encrypted > 0 ? `${percent(edge.encrypted)} encrypted` : "in the clear");
}

function call(edge, other, choose) {
  const how = health(edge.success, edge.requestsPerSecond);
  const said = edge.requestsPerSecond > 0 ? `${rate(edge.requestsPerSecond)}/s` : `${edge.openConnections} open`;
  return html("li", {}, html("button", { type: "button", onclick: () => choose({ from: edge.from, to: edge.to }) },
    html("span", {}, other), chip(how === "idle" ? "" : how, said)));
}

const busiest = (edges) => [...edges].sort((a, b) => b.requestsPerSecond - a.requestsPerSecond);

function calls(title, edges, side, choose) {
  if (edges.length === 0) return [];
  return [html("h4", {}, title), html("ul", {}, busiest(edges).map((edge) => call(edge, edge[side], choose)))];
}

function ofNode(data, node, choose) {
  const title = { hidden: "Namespaces that you may not view", overflow: "Workloads that there was no room to count one by one" }[node.kind];
  return [
    html("h2", {}, title ?? (node.namespace ? `${node.namespace}/${node.name}` : node.name)),
    node.kind === "gateway" && chip("", "Gateway"),
    node.kind === "service" && chip("warn", "a proxy answered, and no endpoint"),
    html("dl", {}, fact("requests to it", `${rate(node.requestsPerSecond)}/s`), fact("success", percent(node.success)),
      fact("half within", time(node.p50Seconds)), fact("99 of 100 within", time(node.p99Seconds))),
    ...calls("called by", data.edges.filter((edge) => edge.to === node.id), "from", choose),
    ...calls("calls", data.edges.filter((edge) => edge.from === node.id), "to", choose),
  ];
}

function ofEdge(edge, choose) {
  const end = (id) => html("ul", {}, html("li", {}, html("button", { type: "button", onclick: () => choose({ node: id }) }, id)));
  return [
    html("h2", {}, "A call"), html("h4", {}, "from"), end(edge.from), html("h4", {}, "to"), end(edge.to),
    html("dl", {}, fact("requests", `${rate(edge.requestsPerSecond)}/s`), fact("success", percent(edge.success)),
      fact("on average", time(edge.meanSeconds)), fact("99 of 100 within, of all callers", time(edge.p99Seconds)),
      fact("connections open", String(edge.openConnections)), fact("opened", `${rate(edge.openedPerSecond)}/s`),
      fact("protection", encryption(edge)), fact("by", (edge.security ?? []).map((it) => NAMES[it] ?? it).join(", ") || "–"),
      fact("Service", (edge.services ?? []).join(", ") || "–")),
  ];
}

export function details(data, node, edge, choose) {
  const back = html("button", { type: "button", onclick: () => choose(node ? { node: node.id } : { from: edge.from, to: edge.to }) }, "← all calls");
  return [back, ...(node ? ofNode(data, node, choose) : ofEdge(edge, choose))].filter(Boolean);
}

export function edgeList(data, choose) {
  const sum = data.edges.reduce((sum, edge) => sum + edge.requestsPerSecond, 0);
  const failed = data.edges.reduce((sum, edge) => sum + edge.requestsPerSecond * (1 - (edge.success ?? 1)), 0);
  const clear = data.edges.filter((edge) => edge.encrypted !== undefined && edge.encrypted < 1).length;
  return [
    html("h2", {}, "All calls"),
    html("dl", {}, fact("workloads", String(data.nodes.filter((node) => ["workload", "gateway"].includes(node.kind)).length)),
      fact("requests", `${rate(sum)}/s`), fact("success", percent(sum > 0 ? 1 - failed / sum : undefined)),
      fact("ways in the clear", clear > 0 ? chip("bad", String(clear)) : chip("good", "none"))),
    html("h4", {}, "by requests"),
    html("ul", {}, busiest(data.edges).map((edge) => call(edge, `${edge.from} → ${edge.to}`, choose))),
  ];
}
