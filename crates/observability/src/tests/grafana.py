"""Whether a dashboard is one in Grafana's eyes: every field of it is in the types that Grafana makes of its schema
(grafana-foundation-sdk), with a value of that type. Usage: grafana.py DASHBOARD.json; says what isn't and ends with 1.

The package's own reader is lenient: it leaves unknown fields out. This one goes along the types instead.
"""

import enum
import importlib
import json
import sys
import typing

from grafana_foundation_sdk.models import dashboard, prometheus

MISTAKES = []


def plain(name):
    """A field by its name in JSON or in Python."""
    return name.removesuffix("_val").replace("_", "").lower()


def fields(kind):
    """Fields of a class, of the module it is in, by their plain names."""
    module = sys.modules[kind.__module__]
    return {plain(name): of for name, of in typing.get_type_hints(kind, vars(module)).items()}


def check(value, kind, at):
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (object, typing.Any) or isinstance(kind, typing.TypeVar):
        return True
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        if value is None and type(None) in inner:
            return True
        kept = len(MISTAKES)
        for of in inner:
            if of is not type(None):
                del MISTAKES[kept:]
                if check(value, of, at):
                    return True
        return False
    if origin is typing.Literal:
        return expect(value in inner, at, f"{value!r} is none of {inner}")
    if origin is list:
        well = expect(isinstance(value, list), at, "is no list")
        return well and all([check(one, inner[0], f"{at}[{i}]") for i, one in enumerate(value)])
    if origin is dict:
        well = expect(isinstance(value, dict), at, "is no object")
        return well and all([check(one, inner[1], f"{at}.{key}") for key, one in value.items()])
    if kind in (int, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return expect(number and (kind is float or float(value).is_integer()), at, f"{value!r} is no {kind.__name__}")
    if kind in (str, bool):
        return expect(isinstance(value, kind), at, f"{value!r} is no {kind.__name__}")
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return expect(value in [one.value for one in kind], at, f"{value!r} is none of {[one.value for one in kind]}")
    if isinstance(kind, type) and kind.__module__.startswith("grafana_foundation_sdk.models"):
        return record(value, kind, at)
    return True


def record(value, kind, at):
    """An object with the fields of a class, all known, and none that must be there missing."""
    if not expect(isinstance(value, dict), at, f"is no {kind.__name__}"):
        return False
    known = fields(kind)
    well = True
    for key, one in value.items():
        if (kind, plain(key)) in OF_SOURCES:
            continue
        if expect(plain(key) in known, f"{at}.{key}", f"isn't a field of {kind.__name__}"):
            well = check(one, special(kind, key, value) or known[plain(key)], f"{at}.{key}") and well
        else:
            well = False
    for name, of in known.items():
        may_lack = type(None) in typing.get_args(of) or (kind, name) in DEFAULTED
        well = expect(may_lack or name in map(plain, value), at, f"lacks {name}") and well
    return well


# What the schema wants of links of a dashboard. Those of fields have the same type there, though Grafana reads no more of
# them than a title and an address.
DEFAULTED = {
    (dashboard.DashboardLink, name)
    for name in ("icon", "tooltip", "url", "tags", "targetblank", "type", "asdropdown", "includevars", "keeptime")
}
# What the schema leaves to data sources: Prometheus' has a title for annotations.
OF_SOURCES = {(dashboard.AnnotationQuery, "titleformat")}


def special(kind, key, value):
    """The types that depend on the kind of a panel."""
    if kind is dashboard.Panel:
        if key == "targets":
            return list[prometheus.Dataquery]
        if key == "options":
            return getattr(importlib.import_module(f"grafana_foundation_sdk.models.{value['type'].lower()}"), "Options")
        if key == "fieldConfig":
            custom = value.get("fieldConfig", {}).get("defaults", {}).get("custom")
            module = importlib.import_module(f"grafana_foundation_sdk.models.{value['type'].lower()}")
            if custom is not None:
                check(custom, module.FieldConfig, f"{value['title']}.custom")
    return None


def expect(well, at, what):
    if not well:
        MISTAKES.append(f"{at}: {what}")
    return well


with open(sys.argv[1]) as file:
    board = json.load(file)
rest = {key: value for key, value in board.items() if key != "panels"}
well = record(rest, dashboard.Dashboard, "dashboard")
for index, panel in enumerate(board["panels"]):
    kind = dashboard.RowPanel if panel["type"] == "row" else dashboard.Panel
    well = record(panel, kind, f"panels[{index}]") and well
    if kind is dashboard.Panel:
        well = expect("gridPos" in panel, f"panels[{index}]", "has no place") and well
for mistake in MISTAKES:
    print(mistake)
sys.exit(0 if not MISTAKES else 1)
