// A layered layout, from left to right, after Sugiyama: no cycles, layers, few crossings, straight ways. Pure: no page needed.

const COLUMN = 238; // between the left edges of two layers
const NODE = { width: 164, height: 46 };
const GAPS = [46, 34, 24, 16]; // between nodes of a layer: the largest with which all of them fit
const BEND_GAP = 12; // between an edge that passes through a layer and its neighbours
const SWEEPS = 24;

/// Places of nodes ({id}) and ways of edges ({from, to}), for a canvas that is so many times as wide as it is high.
export function layout(nodes, edges, aspect) {
  const ids = nodes.map((node) => node.id);
  const known = new Set(ids);
  const links = edges.filter((edge) => edge.from !== edge.to && known.has(edge.from) && known.has(edge.to));
  const forward = withoutCycles(ids, links);
  const layers = inLayers(ids, forward);
  const { rows, chains } = withBends(layers, forward);
  order(rows);
  let plan;
  for (const gap of GAPS) {
    plan = placed(rows, chains, edges, gap);
    if (plan.height * aspect <= plan.width) break;
  }
  return plan;
}

/// Edges with a direction in which there are no cycles.
function withoutCycles(ids, links) {
  const out = new Map(ids.map((id) => [id, []]));
  const incoming = new Map(ids.map((id) => [id, 0]));
  for (const link of links) {
    out.get(link.from).push(link);
    incoming.set(link.to, incoming.get(link.to) + 1);
  }
  const state = new Map();
  const forward = [];
  const visit = (start) => {
    const stack = [{ id: start, next: 0 }];
    state.set(start, "open");
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const link = out.get(top.id)[top.next++];
      if (!link) {
        state.set(top.id, "done");
        stack.pop();
      } else if (state.get(link.to) === "open") {
        forward.push({ edge: link, from: link.to, to: link.from, turned: true });
      } else {
        forward.push({ edge: link, from: link.from, to: link.to, turned: false });
        if (!state.has(link.to)) {
          state.set(link.to, "open");
          stack.push({ id: link.to, next: 0 });
        }
      }
    }
  };
  [...ids].sort((a, b) => incoming.get(a) - incoming.get(b)).forEach((id) => state.has(id) || visit(id));
  return forward;
}

/// Layers by the longest way from a beginning; none gets so many nodes that it can't be read.
function inLayers(ids, forward) {
  const most = Math.max(8, Math.ceil(Math.sqrt(ids.length * 2.2)));
  const before = new Map(ids.map((id) => [id, []]));
  const after = new Map(ids.map((id) => [id, []]));
  const waiting = new Map(ids.map((id) => [id, 0]));
  for (const { from, to } of forward) {
    before.get(to).push(from);
    after.get(from).push(to);
    waiting.set(to, waiting.get(to) + 1);
  }
  const layer = new Map();
  const count = [];
  const take = (id) => {
    let at = Math.max(-1, ...before.get(id).map((other) => layer.get(other))) + 1;
    while ((count[at] ?? 0) >= most) at++;
    layer.set(id, at);
    count[at] = (count[at] ?? 0) + 1;
  };
  let ready = ids.filter((id) => waiting.get(id) === 0);
  while (ready.length > 0) {
    const next = [];
    for (const id of ready) {
      take(id);
      for (const to of after.get(id)) {
        waiting.set(to, waiting.get(to) - 1);
        if (waiting.get(to) === 0) next.push(to);
      }
    }
    ready = next;
  }
  // What begins somewhere stands just before the first that it calls.
  for (const id of ids) {
    const first = Math.min(...after.get(id).map((other) => layer.get(other))) - 1;
    if (before.get(id).length === 0 && Number.isFinite(first) && first > layer.get(id) && count[first] < most) {
      count[layer.get(id)]--;
      count[first]++;
      layer.set(id, first);
    }
  }
  return layer;
}

/// Rows of nodes and bends, with their neighbours; an edge over several layers has a bend in each between.
function withBends(layers, forward) {
  const rows = [];
  const cell = (id, at, edge) => {
    const it = { id, edge, at, y: 0, left: [], right: [] };
    (rows[at] ??= []).push(it);
    return it;
  };
  const nodes = new Map([...layers].map(([id, at]) => [id, cell(id, at)]));
  for (let at = 0; at < rows.length; at++) rows[at] ??= [];
  const chains = forward.map(({ edge, from, to, turned }) => {
    const chain = [nodes.get(from)];
    for (let at = layers.get(from) + 1; at < layers.get(to); at++) chain.push(cell(undefined, at, edge));
    chain.push(nodes.get(to));
    chain.slice(1).forEach((it, index) => {
      it.left.push(chain[index]);
      chain[index].right.push(it);
    });
    return { edge, chain, turned };
  });
  return { rows, chains };
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/// Exchanges cells of rows until few edges cross.
function order(rows) {
  const number = () => rows.forEach((row) => row.forEach((it, index) => (it.index = index)));
  const sort = (row, side) => {
    const key = new Map(row.map((it) => [it, it[side].length > 0 ? mean(it[side].map((other) => other.index)) : it.index]));
    row.sort((a, b) => key.get(a) - key.get(b) || a.index - b.index);
    row.forEach((it, index) => (it.index = index));
  };
  number();
  let best = { crossings: crossings(rows), rows: rows.map((row) => [...row]) };
  for (let sweep = 0; sweep < SWEEPS && best.crossings > 0; sweep++) {
    if (sweep % 2 === 0) rows.slice(1).forEach((row) => sort(row, "left"));
    else rows.slice(0, -1).reverse().forEach((row) => sort(row, "right"));
    const now = crossings(rows);
    if (now < best.crossings) best = { crossings: now, rows: rows.map((row) => [...row]) };
  }
  best.rows.forEach((row, at) => (rows[at] = row));
  number();
}

/// Pairs of edges that cross between two rows.
function crossings(rows) {
  let sum = 0;
  for (const row of rows) {
    const ends = row.flatMap((it) => it.right.map((other) => other.index).sort((a, b) => a - b));
    for (let i = 0; i < ends.length; i++) for (let j = i + 1; j < ends.length; j++) sum += ends[i] > ends[j] ? 1 : 0;
  }
  return sum;
}

const height = (it) => (it.id === undefined ? 0 : NODE.height);
const apart = (a, b, gap) => (height(a) + height(b)) / 2 + (a.id === undefined || b.id === undefined ? BEND_GAP : gap);

/// The places nearest to the wanted ones at which a row keeps its order and distances (pool adjacent violators).
function spread(row, wanted, gap) {
  let offset = 0;
  const offsets = row.map((it, index) => (offset += index === 0 ? 0 : apart(row[index - 1], it, gap)));
  const pools = [];
  row.forEach((it, index) => {
    pools.push({ sum: wanted[index] - offsets[index], size: 1 });
    while (pools.length > 1) {
      const [a, b] = pools.slice(-2);
      if (a.sum / a.size <= b.sum / b.size) break;
      pools.splice(-2, 2, { sum: a.sum + b.sum, size: a.size + b.size });
    }
  });
  let index = 0;
  for (const pool of pools) {
    for (let n = 0; n < pool.size; n++, index++) row[index].y = pool.sum / pool.size + offsets[index];
  }
}

function placed(rows, chains, edges, gap) {
  rows.forEach((row) => spread(row, row.map(() => 0), gap));
  for (let sweep = 0; sweep < 12; sweep++) {
    const side = sweep % 2 === 0 ? "left" : "right";
    const sequence = side === "left" ? rows : [...rows].reverse();
    for (const row of sequence) {
      const wanted = row.map((it) => {
        const near = sweep < 8 ? it[side] : [...it.left, ...it.right];
        return near.length > 0 ? mean(near.map((other) => other.y)) : it.y;
      });
      spread(row, wanted, gap);
    }
  }
  const cells = rows.flat();
  const top = Math.min(0, ...cells.map((it) => it.y - height(it) / 2));
  const bottom = Math.max(0, ...cells.map((it) => it.y + height(it) / 2));
  cells.forEach((it) => (it.y -= top));
  const places = new Map();
  for (const it of cells) {
    if (it.id !== undefined) {
      places.set(it.id, { x: it.at * COLUMN, y: it.y - NODE.height / 2, layer: it.at, ...NODE });
    }
  }
  const ways = new Map(chains.map(({ edge, chain, turned }) => [edge, way(chain, turned)]));
  for (const edge of edges) {
    if (edge.from === edge.to && places.has(edge.from)) ways.set(edge, loop(places.get(edge.from)));
  }
  const width = Math.max(0, rows.length - 1) * COLUMN + NODE.width;
  return { places, ways, width, height: bottom - top };
}

/// The path of an edge through its bends, as SVG has it, and its middle.
function way(chain, turned) {
  const points = chain.flatMap((it, index) => {
    const x = it.at * COLUMN;
    if (it.id === undefined) return [{ x: x + NODE.width * 0.15, y: it.y }, { x: x + NODE.width * 0.85, y: it.y }];
    return [{ x: index === 0 ? x + NODE.width : x, y: it.y }];
  });
  // An edge back goes above or below of the way forth, so that both can be seen.
  if (turned) points.reverse().forEach((point) => (point.y += 9));
  let path = `M${points[0].x},${points[0].y}`;
  for (let i = 1; i < points.length; i++) {
    const [a, b] = [points[i - 1], points[i]];
    const pull = (b.x - a.x) / 2;
    path += ` C${a.x + pull},${a.y} ${b.x - pull},${b.y} ${b.x},${b.y}`;
  }
  const at = Math.floor((points.length - 1) / 2);
  const [a, b] = [points[at], points[at + 1]];
  return { path, middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 } };
}

function loop({ x, y, width }) {
  const [left, right] = [x + width * 0.35, x + width * 0.65];
  return { path: `M${left},${y} C${left},${y - 26} ${right},${y - 26} ${right},${y}`, middle: { x: x + width / 2, y: y - 20 } };
}
