//! What Grafana wants to know of each kind of panel.

use serde_json::{Map, Value, json};

use super::{Bounds, Link, Panel, View};

/// The kind's name, its options and its defaults of fields.
pub(super) struct Look {
    pub(super) kind: &'static str,
    pub(super) options: Value,
    pub(super) defaults: Value,
    pub(super) overrides: Vec<Value>,
    pub(super) transformations: Vec<Value>,
}

/// The name that Grafana gives the value of a query in a table.
pub(super) fn value_name(panel: &Panel, index: usize) -> String {
    if panel.queries.len() == 1 { "Value".to_owned() } else { format!("Value #{}", ref_id(index)) }
}

/// `A`, `B` and so on.
pub(super) fn ref_id(index: usize) -> String {
    char::from(b'A' + u8::try_from(index % 26).unwrap_or_default()).to_string()
}

pub(super) fn look(panel: &Panel) -> Look {
    match &panel.view {
        View::Lines => lines(panel, "none", 8),
        View::Stack => lines(panel, "normal", 40),
        View::Number(bounds) => number(panel, bounds.as_ref()),
        View::Table(labels) => table(panel, labels),
        View::Graph => graph(panel),
    }
}

fn lines(panel: &Panel, stacking: &str, fill: u8) -> Look {
    let custom = json!({
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": fill, "showPoints": "never",
        "spanNulls": false, "stacking": { "mode": stacking, "group": "A" },
    });
    let links: Vec<_> =
        panel.links.iter().map(|link| json!({ "title": link.title, "url": url(link, Scope::Series) })).collect();
    let mut defaults = json!({ "unit": panel.unit.id(), "min": 0, "custom": custom });
    if !links.is_empty() {
        put(&mut defaults, "links", links.into());
    }
    Look {
        kind: "timeseries",
        options: json!({
            "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"] },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        defaults,
        overrides: Vec::new(),
        transformations: Vec::new(),
    }
}

fn number(panel: &Panel, bounds: Option<&Bounds>) -> Look {
    let steps = match bounds {
        None => json!([{ "color": "text", "value": null }]),
        Some(bounds) => {
            let [red, green] = [bounds.red, bounds.green].map(|text| text.parse::<f64>().unwrap_or_default());
            if bounds.more_is_worse() {
                json!([{ "color": "green", "value": null }, { "color": "yellow", "value": green }, { "color": "red", "value": red }])
            } else {
                json!([{ "color": "red", "value": null }, { "color": "yellow", "value": red }, { "color": "green", "value": green }])
            }
        }
    };
    let mut defaults = json!({ "unit": panel.unit.id(), "thresholds": { "mode": "absolute", "steps": steps } });
    let links: Vec<_> =
        panel.links.iter().map(|link| json!({ "title": link.title, "url": url(link, Scope::Series) })).collect();
    if !links.is_empty() {
        put(&mut defaults, "links", links.into());
    }
    Look {
        kind: "stat",
        options: json!({
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "auto", "orientation": "auto",
            "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
        }),
        defaults,
        overrides: Vec::new(),
        transformations: Vec::new(),
    }
}

fn table(panel: &Panel, labels: &[(&str, &str)]) -> Look {
    let (mut names, mut order, mut overrides) = (Map::new(), Map::new(), Vec::new());
    for (index, (label, heading)) in labels.iter().enumerate() {
        names.insert((*label).to_owned(), json!(heading));
        order.insert((*label).to_owned(), json!(index));
    }
    for (index, query) in panel.queries.iter().enumerate() {
        let value = value_name(panel, index);
        order.insert(value.clone(), json!(labels.len() + index));
        names.insert(value, json!(query.legend));
        overrides.push(json!({
            "matcher": { "id": "byName", "options": query.legend },
            "properties": [{ "id": "unit", "value": query.unit.id() }],
        }));
    }
    for link in &panel.links {
        overrides.push(json!({
            "matcher": { "id": "byName", "options": link.on },
            "properties": [{ "id": "links", "value": [{ "title": link.title, "url": url(link, Scope::Row) }] }],
        }));
    }
    let sort: Vec<_> =
        panel.queries.first().map(|it| json!({ "displayName": it.legend, "desc": true })).into_iter().collect();
    Look {
        kind: "table",
        options: json!({ "frameIndex": 0, "showHeader": true, "cellHeight": "sm", "sortBy": sort }),
        defaults: json!({ "custom": { "align": "auto", "filterable": true, "inspect": false, "cellOptions": { "type": "auto" } } }),
        overrides,
        transformations: vec![
            json!({ "id": "merge", "options": {} }),
            json!({ "id": "organize", "options": { "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names } }),
        ],
    }
}

/// The first query has the edges; the others are columns of the nodes, joined by their id. The panel finds columns by the
/// names of fields, which a transformation that renames leaves as they are: a calculation makes fields of other names.
fn graph(panel: &Panel) -> Look {
    let nodes: Vec<_> = (1..panel.queries.len()).map(ref_id).collect();
    let mut transformations = vec![json!({
        "id": "joinByField", "options": { "byField": "id", "mode": "outer" },
        "filter": { "id": "byRefId", "options": format!("/^(?:{})$/", nodes.join("|")) },
    })];
    for (index, query) in panel.queries.iter().enumerate() {
        let left = json!({ "matcher": { "id": "byName", "options": value_name(panel, index) } });
        transformations.push(json!({
            "id": "calculateField",
            "options": {
                "mode": "binary", "alias": query.legend, "binary": { "left": left, "operator": "*", "right": { "fixed": "1" } },
            },
        }));
    }
    let of_field = |name: &str, id: &str, value: Value| json!({ "matcher": { "id": "byName", "options": name }, "properties": [{ "id": id, "value": value }] });
    // Only nodes have a title: on every field, a click would show each link as often as there are fields.
    let links: Vec<_> =
        panel.links.iter().map(|link| json!({ "title": link.title, "url": url(link, Scope::Row) })).collect();
    let mut overrides = vec![of_field("title", "links", links.into())];
    for (field, name) in [("arc__ok", "answered"), ("arc__failed", "failed")] {
        overrides.push(of_field(field, "displayName", name.into()));
    }
    Look {
        kind: "nodeGraph",
        options: json!({
            "nodes": {
                "mainStatUnit": panel.unit.id(),
                "arcs": [{ "field": "arc__ok", "color": "green" }, { "field": "arc__failed", "color": "red" }],
            },
            "edges": { "mainStatUnit": panel.unit.id() },
        }),
        defaults: json!({}),
        overrides,
        transformations,
    }
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

enum Scope {
    Series,
    Row,
}

/// Where a link leads: what is chosen stays chosen, but for what the link sets.
fn url(link: &Link, scope: Scope) -> String {
    let sets = |name: &str| link.sets.iter().any(|(variable, _)| *variable == name);
    let mut url = format!("/d/{}?${{__url_time_range}}&${{datasource:queryparam}}", link.to.uid());
    for kept in ["cluster", "namespace"].into_iter().filter(|name| !sets(name)) {
        url += &format!("&${{{kept}:queryparam}}");
    }
    for (variable, label) in &link.sets {
        let value = match scope {
            Scope::Series => format!("${{__field.labels.{label}}}"),
            Scope::Row => format!("${{__data.fields.{label}}}"),
        };
        url += &format!("&var-{variable}={value}");
    }
    url
}
