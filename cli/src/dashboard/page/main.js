// The page: which view, of which namespace, and what is asked when.

import { empty } from "./dom.js";
import * as graph from "./graph.js";
import { bad, certificates, problems, routes } from "./lists.js";

/// How often the shown view is asked for, in milliseconds.
const EVERY = 5000;
const by = (id) => document.getElementById(id);

const page = { view: "graph", shown: undefined, paused: false, timer: undefined, turn: 0 };

// The session: the one-time token of the address is exchanged for a key, which stays with this tab and this port.

async function session() {
  const said = new URLSearchParams(location.hash.slice(1));
  const token = said.get("token");
  if (token) {
    // It is of no use any more, and needn't stay in the history.
    history.replaceState(null, "", `#${said.get("view") ?? "graph"}`);
    const reply = await fetch("/api/session", { method: "POST", body: token });
    if (!reply.ok) throw new Error((await reply.json()).error);
    sessionStorage.setItem("key", (await reply.json()).key);
  }
  if (!sessionStorage.getItem("key")) throw new Error("Open the address that `weft dashboard` prints: it has the key of this page.");
}

async function ask(path) {
  const namespace = by("namespace").value.trim();
  const query = namespace && path !== "namespaces" ? `?namespace=${encodeURIComponent(namespace)}` : "";
  const reply = await fetch(`/api/${path}${query}`, { headers: { authorization: `Bearer ${sessionStorage.getItem("key")}` } });
  const body = await reply.json();
  if (!reply.ok) throw new Error(body.error ?? reply.statusText);
  return body;
}

function notice(words) {
  by("notice").hidden = !words;
  by("notice").textContent = words ?? "";
}

function state(is, words) {
  by("state").dataset.is = is;
  by("state").textContent = words;
}

// Views.

const VIEWS = { graph: "graph", routes: "routes", certificates: "certificates", problems: "problems" };
const DRAW = { routes, certificates, problems };

function count(problems) {
  const found = bad(problems) + problems.failures.failures.length;
  by("count").hidden = found === 0;
  by("count").textContent = found;
  by("count").setAttribute("aria-label", `${found} problems`);
}

function draw(data) {
  const fresh = page.shown !== page.view;
  page.shown = page.view;
  if (page.view !== "graph") {
    // The place in a long list stays where the reader is.
    const top = by("content").scrollTop;
    by("content").replaceChildren(DRAW[page.view](data));
    if (!fresh) by("content").scrollTop = top;
  } else if (data.edges.length === 0) {
    page.shown = undefined;
    by("content").replaceChildren(empty(`No traffic in ${data.seconds.toFixed(0)} s.`));
  } else {
    if (fresh) by("content").replaceChildren(graph.build());
    graph.show(data);
  }
}

async function refresh() {
  clearTimeout(page.timer);
  const turn = ++page.turn;
  try {
    const data = await ask(VIEWS[page.view]);
    const problems = page.view === "problems" ? data : await ask("problems");
    // Somebody has chosen another view meanwhile.
    if (turn !== page.turn) return;
    draw(data);
    count(problems);
    notice();
    state("live", data.seconds === undefined ? "live" : `last ${data.seconds.toFixed(0)} s`);
  } catch (error) {
    if (turn !== page.turn) return;
    notice(error.message === "Failed to fetch" ? "`weft dashboard` doesn't answer: does it still run?" : error.message);
    state("lost", "not live");
  }
  if (!page.paused) page.timer = setTimeout(refresh, EVERY);
}

function choose() {
  const name = location.hash.slice(1);
  page.view = VIEWS[name] ? name : "graph";
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === `#${page.view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Weft: ${page.view}`;
  return refresh();
}

// Light and dark.

function theme(name) {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = name ?? localStorage.getItem("theme") ?? system;
}

function pause() {
  page.paused = !page.paused;
  by("pause").setAttribute("aria-pressed", String(page.paused));
  if (page.paused) {
    clearTimeout(page.timer);
    state("", "paused");
  } else refresh();
}

async function start() {
  theme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
  by("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    theme(next);
  });
  by("pause").addEventListener("click", pause);
  by("namespace").addEventListener("change", () => refresh());
  try {
    await session();
  } catch (error) {
    state("lost", "no key");
    return notice(error.message);
  }
  window.addEventListener("hashchange", choose);
  await choose();
  try {
    const { namespaces, mesh } = await ask("namespaces");
    by("namespaces").replaceChildren(...namespaces.map((name) => new Option(name)));
    by("about").textContent = mesh;
  } catch {
    // Who may not list them writes the name.
    by("about").textContent = "You may not list the namespaces: write the name of one that you may view.";
  }
}

start();
