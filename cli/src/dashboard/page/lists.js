// Routes, certificates and problems.

import { chip, empty, health, html, part, percent, rate, span, table, time, wide } from "./dom.js";

// Routes.

const busy = (rule) => rule.requestsPerSecond ?? 0;

export function routes({ rules }) {
  if (rules.length === 0) return empty("No routes here: calls go to the Services that they name.");
  const sorted = [...rules].sort((a, b) => busy(b) - busy(a) || a.route.localeCompare(b.route) || a.rule - b.rule);
  return html("div", { class: "rules" }, sorted.map(rule));
}

function rule(it) {
  const how = health(it.success, it.requestsPerSecond);
  const numbers = it.requestsPerSecond === undefined
    ? html("div", { class: "facts dim" }, "carries bytes: connections aren't counted by rule")
    : html("div", { class: "facts" }, html("span", {}, html("b", {}, rate(it.requestsPerSecond)), " requests/s"),
      html("span", {}, html("b", {}, percent(it.success)), " success"), html("span", {}, "99 of 100 within ", html("b", {}, time(it.p99Seconds))));
  const title = html("h3", {}, it.route, html("span", { class: "dim" }, ` rule ${it.rule}${it.name ? ` (${it.name})` : ""}`));
  return html("article", { class: "card rule", "aria-label": `${it.route} rule ${it.rule}` },
    html("header", {}, title, how !== "idle" && chip(how, percent(it.success))),
    html("p", { class: "dim" }, "at ", it.parents.join(", ")), html("p", { class: "dim" }, "for ", it.wants.join(", or ") || "anything"),
    numbers, it.answers ? html("p", {}, chip(it.answers.startsWith("500") ? "bad" : "", "answers"), ` ${it.answers}`) : split(it));
}

function bar(name, backends, share) {
  const parts = backends.map((backend, at) => [share(backend), at]).filter(([share]) => share > 0);
  const segments = parts.map(([share, at]) => wide(html("span", { class: `of-${at % 6}` }, share >= 0.08 ? part(share) : ""), share));
  const words = parts.map(([share, at]) => `${backends[at].target} ${part(share)}`).join(", ");
  return [html("span", {}, name), html("div", { class: "bar", role: "img", "aria-label": `${name}: ${words || "nothing yet"}` }, segments)];
}

function split({ backends }) {
  if (backends.length === 0) return html("p", {}, chip("bad", "answers"), " 500: it has no backend");
  const rows = backends.map((backend, at) => [
    [html("span", { class: `swatch of-${at % 6}`, "aria-hidden": "true" }), backend.target.replace(/^Service /, ""), backend.problem && html("div", {}, chip("bad", `500: ${backend.problem}`))],
    part(backend.share), part(backend.measured), rate(backend.requestsPerSecond), percent(backend.success), time(backend.p99Seconds),
  ]);
  const columns = [["backend"], ["weight", "number"], ["measured", "number"], ["req/s", "number"], ["success", "number"], ["p99", "number"]];
  return [
    backends.length > 1 && html("div", { class: "split" }, bar("weights", backends, (it) => it.share), bar("measured", backends, (it) => it.measured)),
    table(undefined, columns, rows),
  ];
}

// Certificates.

const KINDS = { root: "root", intermediate: "intermediate", workload: "workload", gateway: "Gateway's TLS" };
/// What is left of it that needs nobody: leaves live for hours and are renewed by themselves, what people make ends in years.
const SOON = { workload: [3600, 12 * 3600], gateway: [7 * 86400, 90 * 86400], intermediate: [86400, 60 * 86400], root: [90 * 86400, 3650 * 86400] };

export function certificates({ certificates }) {
  if (certificates.length === 0) return empty("No certificates yet.");
  const now = Date.now() / 1000;
  const rows = certificates.map((it) => [KINDS[it.kind], it.name, [...it.at].join(", ") || "–", ends(it, now), life(it, now), it.failures > 0 ? chip("bad", `${it.failures} failed`) : "–"]);
  const columns = [["of"], ["whose"], ["at"], ["ends"], ["left"], ["renewals"]];
  return html("section", { class: "card" }, table("Certificates, what ends first at the top", columns, rows));
}

function grade(it, left) {
  if (left <= 0) return "bad";
  return left < SOON[it.kind][0] ? "warn" : "good";
}

const ends = (it) => (it.until === null ? "–" : html("time", { datetime: new Date(it.until * 1000).toISOString() }, new Date(it.until * 1000).toISOString().slice(0, 16).replace("T", " "), " UTC"));

function life(it, now) {
  // Proxies don't hand out what Gateways present.
  if (it.until === null) return it.kind === "gateway" ? chip("", "not known here") : chip("bad", "there is none");
  const left = it.until - now;
  const how = grade(it, left);
  if (left <= 0) return chip("bad", `ended ${span(left)} ago`);
  const whole = SOON[it.kind][1];
  return [chip(how, span(left)), html("span", { class: "life", "aria-hidden": "true" }, wide(html("span", { class: how }), left / whole))];
}

// Problems.

export const bad = ({ findings }) => findings.filter((it) => it.severity === "error" || it.severity === "unknown").length;

export function problems({ findings, failures, reasons, unread }) {
  const sections = [];
  if (unread?.length > 0) sections.push(html("section", {}, html("h2", {}, "Not everybody could be asked"), html("p", { class: "notice" }, unread.join("\n"))));
  sections.push(html("section", {}, html("h2", {}, "What the mesh's checks find"),
    findings.length > 0 ? html("div", { class: "problems" }, findings.map(finding)) : html("p", { class: "dim" }, "Nothing: every check is well.")));
  sections.push(html("section", {}, html("h2", {}, `What fails now, counted over ${failures.seconds.toFixed(0)} s`),
    failures.failures.length > 0 ? html("div", { class: "problems" }, failures.failures.map((it) => failure(it, reasons[it.reason])))
      : html("p", { class: "dim" }, "Nothing: no request and no connection failed.")));
  return html("div", {}, sections);
}

function finding(it) {
  const how = { error: "bad", unknown: "bad", warning: "warn" }[it.severity] ?? "";
  return html("article", { class: `card problem ${it.severity}` }, html("header", {}, html("h3", {}, it.object || "the mesh"), chip(how, it.severity)),
    html("p", {}, it.what), it.remedy && html("dl", {}, html("dt", {}, "what to do"), html("dd", { class: "code" }, it.remedy)));
}

const MAKERS = { application: "the application answered so", proxy: "a proxy answered so", network: "the network" };

function failure(it, page) {
  const many = `${rate(it.perSecond)} ${it.of}/s`;
  const facts = [["whose doing", MAKERS[it.madeBy] ?? it.madeBy], ["callers", it.callers.join(", ") || "not counted one by one"],
    ["cause", page?.cause], ["where to look", page?.look], ["remedy", page?.remedy]];
  const title = html("h3", {}, html("code", {}, it.reason), " at ", it.at);
  return html("article", { class: `card problem ${it.madeBy === "proxy" ? "warning" : "error"}` },
    html("header", {}, title, chip("bad", many)),
    html("dl", {}, facts.filter(([, value]) => value).map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)])));
}
