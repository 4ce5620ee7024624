#!/usr/bin/env python3
"""Draws Grafana dashboards without Grafana: what a Prometheus answers to their queries, in their grid, as one page each.

Usage: render.py PROMETHEUS DASHBOARDS OUT [--minutes N] [--only NAME] [--without NAME]
Writes OUT/NAME.html for each DASHBOARDS/NAME.json, and a line of JSON for each panel to standard output: which dashboard, which
panel, whether its queries returned data. It reads the files that Grafana reads; the look is its own and plain, and the page says so.
"""

import argparse
import html
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
import charts  # noqa: E402 (nothing of it is left in the source folder)

COLUMNS = 24
WIDTH = 1440  # of the page, in pixels
ROW = 34  # height of a unit of the grid, in pixels
GAP = 8
WINDOW = "1m"  # $__rate_interval, as Grafana would choose it for short ranges


class Prometheus:
    """A Prometheus, and the range that is looked at."""

    def __init__(self, address, minutes):
        self.address = address
        self.end = time.time()
        self.start = self.end - 60 * minutes
        self.step = max(1, round(60 * minutes / 120))

    def ask(self, path, **parameters):
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                said = json.load(reply)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{parameters.get('query')}\n{error.read().decode()}") from error
        return said["data"]["result"]

    def instant(self, expr):
        return self.ask("query", query=expr, time=self.end)

    def range(self, expr):
        return self.ask("query_range", query=expr, start=self.start, end=self.end, step=self.step)


def chosen(expr, board):
    """A query with everything chosen, as Grafana sends it."""
    expr = expr.replace("$__rate_interval", WINDOW)
    names = [variable["name"] for variable in board["templating"]["list"]]
    for name in sorted(names, key=len, reverse=True):
        expr = expr.replace(f"${{{name}}}", ".*").replace(f"${name}", ".*")
    return expr


def legend(target, metric):
    text = target.get("legendFormat") or ""
    for label, value in metric.items():
        text = text.replace(f"{{{{{label}}}}}", value)
    # Labels that the series doesn't have.
    text = re.sub(r"\{\{[^}]*\}\}", "", text).strip()
    return text or ", ".join(f"{name}={value}" for name, value in metric.items())


def number(text):
    value = float(text)
    return value if value == value and abs(value) != float("inf") else None


def lines(panel, board, prometheus):
    series = []
    for target in panel["targets"]:
        for found in prometheus.range(chosen(target["expr"], board)):
            points = [(at, number(value)) for at, value in found["values"]]
            series.append((legend(target, found["metric"]), points))
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    marks = [mark for note in board["annotations"]["list"] for mark in changes(note, board, prometheus)]
    return bool(series), charts.lines(series, defaults.get("unit"), stacked, (prometheus.start, prometheus.end), marks)


def changes(note, board, prometheus):
    """When something that is marked began: times and a colour."""
    for found in prometheus.range(chosen(note["expr"], board)):
        before = None
        for at, _ in found["values"]:
            if before is None or at - before > 1.5 * prometheus.step:
                yield at, note["iconColor"]
            before = at


def stat(panel, board, prometheus):
    values = []
    for target in panel["targets"]:
        for found in prometheus.range(chosen(target["expr"], board)):
            points = [(at, number(value)) for at, value in found["values"]]
            values.append((legend(target, found["metric"]), points))
    defaults = panel["fieldConfig"]["defaults"]
    return bool(values), charts.stat(values, defaults.get("unit"), defaults["thresholds"]["steps"])


def table(panel, board, prometheus):
    """Rows are merged by their labels, as Grafana's transformations of the panel say."""
    organize = next(it["options"] for it in panel["transformations"] if it["id"] == "organize")
    order, names = organize["indexByName"], organize["renameByName"]
    fields = sorted(order, key=order.get)
    labels = [field for field in fields if not field.startswith("Value")]
    units = {it["matcher"]["options"]: it["properties"][0]["value"] for it in panel["fieldConfig"]["overrides"] if it["properties"][0]["id"] == "unit"}
    rows = {}
    for target in panel["targets"]:
        field = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
        for found in prometheus.instant(chosen(target["expr"], board)):
            key = tuple(found["metric"].get(label, "") for label in labels)
            rows.setdefault(key, {})[field] = number(found["value"][1])
    values = [field for field in fields if field.startswith("Value")]
    body = [list(key) + [(row.get(field), units.get(names[field])) for field in values] for key, row in rows.items()]
    first = len(labels)
    if values:
        body.sort(key=lambda row: row[first][0] if row[first][0] is not None else -1, reverse=True)
    return bool(rows), charts.table([names.get(field, field) for field in fields], body)


def graph(panel, board, prometheus):
    answers = {target["refId"]: prometheus.instant(chosen(target["expr"], board)) for target in panel["targets"]}
    edges = [(it["metric"]["source"], it["metric"]["target"], number(it["value"][1])) for it in answers["A"]]
    failed = {it["metric"]["id"]: number(it["value"][1]) for it in answers.get("C", [])}
    nodes = [(it["metric"], number(it["value"][1]), failed.get(it["metric"]["id"]) or 0) for it in answers["B"]]
    return bool(edges), charts.graph(nodes, edges)


def text(panel, _board, _prometheus):
    return True, charts.markdown(panel["options"]["content"])


DRAW = {"timeseries": lines, "stat": stat, "table": table, "nodeGraph": graph, "text": text}


def draw(board, prometheus, note):
    """The page of a dashboard, and for each panel whether it has data."""
    cell = (WIDTH - 2 * GAP) / COLUMNS
    parts, told, bottom = [], [], 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        place = (GAP + at["x"] * cell, at["y"] * ROW, at["w"] * cell - GAP, at["h"] * ROW - GAP)
        bottom = max(bottom, place[1] + place[3])
        style = "left:{:.0f}px;top:{:.0f}px;width:{:.0f}px;height:{:.0f}px".format(*place)
        title = html.escape(panel.get("title") or "")
        if panel["type"] == "row":
            parts.append(f'<h2 style="{style}">{title}</h2>')
            continue
        has_data, body = DRAW[panel["type"]](panel, board, prometheus)
        body = body((place[2], place[3] - (30 if title else 0)))
        told.append({"dashboard": board["uid"], "panel": panel.get("title"), "data": has_data})
        heading = f"<h3>{title}</h3>" if title else ""
        kind = "panel bare" if panel.get("transparent") else "panel"
        parts.append(f'<section class="{kind}" style="{style}">{heading}{body if has_data else charts.nothing()}</section>')
    variables = " ".join(f"<span>{html.escape(it.get('label') or it['name'])}: <b>all</b></span>" for it in board["templating"]["list"])
    said = f"Drawn by a plain renderer, not Grafana. {note}".strip()
    head = f'<header><h1>{html.escape(board["title"])}</h1><p>{variables}</p><p class="note">{html.escape(said)}</p></header>'
    height = bottom + 2 * GAP
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(board["title"])}</title><style>{charts.STYLE}</style>{head}<main style="height:{height:.0f}px">{"".join(parts)}</main>'
    return page, told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus")
    parser.add_argument("dashboards", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--at", type=float, help="the end of the range, in Unix time; now if left out")
    parser.add_argument("--only", help="the name of a dashboard, and no other")
    parser.add_argument("--without", help="the name of a dashboard that is left out")
    parser.add_argument("--note", default="", help="what the page says of its numbers")
    arguments = parser.parse_args()
    prometheus = Prometheus(arguments.prometheus, arguments.minutes)
    if arguments.at:
        prometheus.end, prometheus.start = arguments.at, arguments.at - 60 * arguments.minutes
    files = [file for file in sorted(arguments.dashboards.glob("*.json")) if arguments.only in (None, file.stem) and file.stem != arguments.without]
    if not files:
        sys.exit(f"no dashboards in {arguments.dashboards}")
    for file in files:
        page, told = draw(json.loads(file.read_text()), prometheus, arguments.note)
        (arguments.out / f"{file.stem}.html").write_text(page)
        for panel in told:
            print(json.dumps(panel))


if __name__ == "__main__":
    main()
