"""Panels as HTML and SVG. Each function gives one that makes the panel's text for a size (width, height) in pixels."""

import html
import math
import re

PALETTE = ["#2f6fb2", "#d9822b", "#3a9a5b", "#b8435b", "#7a5bb5", "#2b9aa8", "#a88b1f", "#7f7f7f", "#c45ca8", "#5f8f2f"]
COLOURS = {"green": "#2a8a4f", "yellow": "#b07a00", "red": "#c0362c", "text": "#1c2733", "blue": "#2f6fb2"}

STYLE = """
* { box-sizing: border-box; margin: 0; }
body { width: 1440px; background: #f2f4f7; color: #1c2733; font: 13px/1.35 "Liberation Sans", Arial, sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 22px; padding: 12px 16px 8px; }
h1 { font-size: 20px; }
header p { color: #5b6878; }
header span { margin-right: 14px; }
header .note { margin-left: auto; padding: 2px 10px; border-radius: 10px; background: #fdf0d0; color: #7a5200; font-weight: bold; }
main { position: relative; width: 1440px; }
h2 { position: absolute; font-size: 15px; padding-top: 6px; }
.panel { position: absolute; overflow: hidden; background: #fff; border: 1px solid #dde2e8; border-radius: 4px; padding: 0; }
.panel.bare { background: none; border: 0; }
h3 { height: 26px; padding: 6px 10px 0; font-size: 13px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
svg { display: block; }
svg text { font: 11px "Liberation Sans", Arial, sans-serif; fill: #5b6878; }
.nothing { padding-top: 24px; text-align: center; color: #8a96a3; }
.keys { position: absolute; left: 10px; right: 6px; bottom: 4px; max-height: 62px; overflow: hidden; font-size: 11px; }
.keys span { display: inline-block; margin-right: 14px; white-space: nowrap; }
.keys i { display: inline-block; width: 10px; height: 3px; margin: 0 5px 3px 0; }
.stats { display: flex; height: 100%; }
.stat { flex: 1; min-width: 0; text-align: center; overflow: hidden; padding-top: 4px; }
.stat b { display: block; white-space: nowrap; }
.stat small { color: #5b6878; white-space: nowrap; }
table { width: 100%; border-collapse: collapse; font-size: 11.5px; }
th, td { text-align: left; padding: 3px 7px; border-bottom: 1px solid #edf0f3; white-space: nowrap; }
th { color: #5b6878; }
.number { text-align: right; }
.words { padding: 8px 12px; }
"""


def nothing():
    return '<p class="nothing">No data</p>'


def shown(value, unit):
    """A number as people read it, by Grafana's name of its unit."""
    if value is None:
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.3g} %" if 0 < abs(value) < 0.999 else f"{value * 100:.0f} %" if value in (0, 1) else f"{value * 100:.2f} %"
    if unit == "s":
        size, steps = abs(value), [(1e-6, "µs"), (1e-3, "ms"), (1, "s"), (60, "min"), (3600, "h"), (86400, "d"), (31536000, "y")]
        step, name = next((it for it in reversed(steps) if size >= it[0]), steps[0] if size else (1, "s"))
        return f"{value / step:.3g} {name}"
    if unit in ("bytes", "Bps"):
        step, name = next((it for it in [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")] if abs(value) >= it[0]), (1, "B"))
        return f"{value / step:.3g} {name}" + ("/s" if unit == "Bps" else "")
    short = f"{value / 1e6:.3g} M" if abs(value) >= 1e6 else f"{value / 1e3:.3g} k" if abs(value) >= 1e4 else f"{value:.0f}" if value == int(value) else f"{value:.3g}"
    return short + {"reqps": " req/s", "cps": "/s"}.get(unit, "")


def ticks(top):
    """Round numbers from 0 to beyond the top."""
    if top <= 0:
        return [0, 1]
    step = 10 ** math.floor(math.log10(top))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if top / s <= 5)
    return [n * step for n in range(math.ceil(top / step - 1e-9) + 1)]


def path(points, place, gap):
    """The way of a line; where there is nothing for longer than a gap it is interrupted."""
    parts, before = [], None
    for at, value in points:
        if value is None:
            before = None
            continue
        x, y = place(at, value)
        parts.append(f"{'L' if before is not None and at - before <= gap else 'M'}{x:.1f},{y:.1f}")
        before = at
    return "".join(parts)


def lines(series, unit, stacked, span, marks):
    def body(size):
        (width, height), (start, end) = size, span
        ordered = sorted(series, key=lambda it: -max((v for _, v in it[1] if v is not None), default=0))
        names, rows = legend(ordered, unit, width - 16)
        left, right, top, bottom = 66, 12, 6, 22 + rows * 15
        floor = None
        if stacked:
            ordered, floor = stack(ordered)
        highest = max((v for _, points in ordered for _, v in points if v is not None), default=0)
        steps = ticks(highest)
        def place(at, value):
            return left + (at - start) / (end - start) * (width - left - right), height - bottom - value / steps[-1] * (height - top - bottom)
        parts = []
        for step in steps:
            _, y = place(start, step)
            parts.append(f'<path d="M{left},{y:.1f}H{width - right}" stroke="#e7ebef"/><text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{html.escape(shown(step, unit))}</text>')
        for n in range(5):
            at = start + (end - start) * n / 4
            ago = (end - at) / 60
            x, _ = place(at, 0)
            anchor = "start" if n == 0 else "end" if n == 4 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{height - bottom + 14:.1f}" text-anchor="{anchor}">{"now" if n == 4 else f"{ago:.3g} min ago"}</text>')
        for at, colour in marks:
            x, _ = place(at, 0)
            parts.append(f'<path d="M{x:.1f},{top}V{height - bottom}" stroke="{COLOURS.get(colour, colour)}" stroke-dasharray="3 3" opacity=".7"/>')
        step = (end - start) / 40
        for n, (name, points) in enumerate(ordered):
            colour = PALETTE[n % len(PALETTE)]
            way = path(points, place, step)
            if floor is not None:
                back = [(at, value) for at, value in reversed(floor[n])]
                area = path(points + back, place, end - start) + "z"
                parts.append(f'<path d="{area}" fill="{colour}" opacity=".35"/>')
            parts.append(f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        return f'<svg width="{width - 2:.0f}" height="{height:.0f}">{"".join(parts)}</svg><div class="keys">{names}</div>'
    return body


def legend(series, unit, width):
    """Names with their last values in at most four rows, and how many rows these are."""
    parts, rows, used = [], 1, 0
    for n, (name, points) in enumerate(series):
        last = shown(next((value for _, value in reversed(points) if value is not None), None), unit)
        needs = (len(name) + len(last)) * 6.1 + 36
        if used + needs > width and used > 0:
            if rows == 4:
                parts[-1:] = [f"<span>and {len(series) - n + 1} more</span>"]
                break
            rows, used = rows + 1, 0
        used += needs
        parts.append(f'<span><i style="background:{PALETTE[n % len(PALETTE)]}"></i>{html.escape(name)} <b>{html.escape(last)}</b></span>')
    return "".join(parts), rows


def stack(series):
    """One on top of the other: the upper edges, and below each the lower one."""
    times = sorted({at for _, points in series for at, _ in points})
    below, tops, floors = {at: 0 for at in times}, [], []
    for name, points in series:
        known = {at: value or 0 for at, value in points}
        floors.append([(at, below[at]) for at in times])
        below = {at: below[at] + known.get(at, 0) for at in times}
        tops.append((name, [(at, below[at]) for at in times]))
    return tops, floors


def stat(values, unit, steps):
    def colour(value):
        passed = [step for step in steps if step["value"] is None or (value is not None and value >= step["value"])]
        return COLOURS.get(passed[-1]["color"], "#1c2733")

    def body(size):
        width, height = size
        each = width / max(1, len(values))
        parts = []
        for name, points in values:
            last = next((v for _, v in reversed(points) if v is not None), None)
            words = shown(last, unit)
            font = max(14, min(34, height * 0.36, each / max(3, len(words)) * 1.7))
            label = f"<small>{html.escape(name)}</small>" if len(values) > 1 else ""
            parts.append(f'<div class="stat">{label}<b style="font-size:{font:.0f}px;color:{colour(last)}">{html.escape(words)}</b>{spark(points, each - 12, height - font - 44, colour(last))}</div>')
        return f'<div class="stats">{"".join(parts)}</div>'
    return body


def spark(points, width, height, colour):
    known = [(at, value) for at, value in points if value is not None]
    if len(known) < 2 or height < 14:
        return ""
    start, end, top = known[0][0], known[-1][0], max(value for _, value in known) or 1
    place = lambda at, value: (6 + (at - start) / max(1, end - start) * width, height - 2 - value / top * (height - 6))
    return f'<svg width="{width + 12:.0f}" height="{height:.0f}"><path d="{path(known, place, end - start)}" fill="none" stroke="{colour}" opacity=".6"/></svg>'


def table(columns, rows):
    def body(size):
        most = max(1, int((size[1] - 26) / 23.5))
        first = len(columns) - sum(isinstance(cell, tuple) for cell in rows[0]) if rows else len(columns)
        head = "".join(f'<th class="{"number" if n >= first else ""}">{html.escape(name)}</th>' for n, name in enumerate(columns))
        def cell(value):
            return f'<td class="number">{html.escape(shown(*value))}</td>' if isinstance(value, tuple) else f"<td>{html.escape(value)}</td>"
        lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows[:most])
        return f"<table><tr>{head}</tr>{lines}</table>"
    return body


def graph(nodes, edges):
    def body(size):
        width, height = size
        layers = layered([node[0]["id"] for node in nodes], [(a, b) for a, b, _ in edges])
        places, parts = {}, []
        for n, layer in enumerate(layers):
            for m, name in enumerate(layer):
                places[name] = ((n + 0.4) * width / len(layers), (m + 0.5) * (height - 8) / len(layer))
        for source, target, rate in edges:
            if source not in places or target not in places:
                continue
            (x1, y1), (x2, y2) = places[source], places[target]
            length = math.hypot(x2 - x1, y2 - y1) or 1
            dx, dy = (x2 - x1) / length * 24, (y2 - y1) / length * 24
            parts.append(f'<path d="M{x1 + dx:.1f},{y1 + dy:.1f}L{x2 - dx:.1f},{y2 - dy:.1f}" stroke="#9aa7b5" stroke-width="1.4" marker-end="url(#a)"/>')
            # Not in the middle, where edges of one node cross those of another.
            x, y = x1 + (x2 - x1) * 0.62, y1 + (y2 - y1) * 0.62
            parts.append(f'<text x="{x:.1f}" y="{y - 3:.1f}" text-anchor="middle" stroke="#fff" stroke-width="3" paint-order="stroke">{shown(rate, "reqps")}</text>')
        for metric, rate, failed in nodes:
            x, y = places[metric["id"]]
            ring = 2 * math.pi * 20
            title, subtitle = html.escape(metric.get("title", metric["id"])), html.escape(metric.get("subtitle", ""))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="20" fill="#fff" stroke="#2a8a4f" stroke-width="3.5"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="20" fill="none" stroke="#c0362c" stroke-width="3.5" stroke-dasharray="{ring * failed:.1f} {ring}" transform="rotate(-90 {x:.1f} {y:.1f})"/>')
            parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{shown(rate, "short")}</text>')
            parts.append(f'<text x="{x + 27:.1f}" y="{y - 1:.1f}" style="fill:#1c2733;font-weight:bold" stroke="#fff" stroke-width="3" paint-order="stroke">{title}</text><text x="{x + 27:.1f}" y="{y + 12:.1f}" stroke="#fff" stroke-width="3" paint-order="stroke">{subtitle}</text>')
        marker = '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0L8,4L0,8z" fill="#9aa7b5"/></marker></defs>'
        return f'<svg width="{width - 2:.0f}" height="{height:.0f}">{marker}{"".join(parts)}</svg>'
    return body


def layered(names, edges):
    """Names in columns: each right of all that call it, as far as there are no circles, near those that it has to do with."""
    column, way = {}, []
    def place(name):
        if name not in column and name not in way:
            way.append(name)
            before = [place(source) for source, target in edges if target == name and source in names and source not in way]
            way.pop()
            column[name] = max(before, default=-1) + 1
        return column.get(name, 0)
    for name in sorted(names):
        place(name)
    columns = [[name for name in sorted(names) if column[name] == n] for n in sorted(set(column.values()))]
    for _ in range(8):
        for side in (1, -1):
            row = {name: (n + 0.5) / len(layer) for layer in columns for n, name in enumerate(layer)}
            for layer in columns:
                def near(name):
                    others = [row[a if side == 1 else b] for a, b in edges if (b if side == 1 else a) == name and a in row and b in row]
                    return sum(others) / len(others) if others else row[name]
                layer.sort(key=near)
                row.update({name: (n + 0.5) / len(layer) for n, name in enumerate(layer)})
    return columns


def markdown(text):
    """What the dashboards' own texts use of it: bold words, and links, which lead nowhere here."""
    safe = html.escape(text, quote=False)
    safe = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe)
    safe = re.sub(r"\[(.+?)\]\([^)]*\)", r"\1", safe)
    return lambda _size: f'<p class="words">{safe}</p>'
