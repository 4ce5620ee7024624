//! Grafana's form of a dashboard: the classic schema, which Grafana 10 and later read.

use serde_json::{Value, json};

use super::options::{look, ref_id};
use super::{Board, Dashboard, Panel, Query, Variable, View};

/// Of dashboards, as Grafana 11 writes them.
const SCHEMA_VERSION: u32 = 39;
/// The tag that all dashboards have, by which they find each other.
const TAG: &str = "weft";

/// A dashboard for Grafana.
pub fn json(dashboard: &Dashboard) -> Value {
    let board = dashboard.board;
    json!({
        "uid": board.uid(),
        "title": board.title(),
        "description": format!("Answers: {}", dashboard.questions.join(" ")),
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": true,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "liveNow": false,
        "refresh": "30s",
        "timezone": "browser",
        "weekStart": "",
        "time": { "from": "now-1h", "to": "now" },
        "timepicker": {},
        "links": [links()],
        "annotations": { "list": annotations() },
        "templating": { "list": variables(dashboard) },
        "panels": panels(dashboard),
    })
}

/// From every dashboard to every other one.
fn links() -> Value {
    json!({
        "type": "dashboards", "title": "Weft", "tags": [TAG], "asDropdown": true, "includeVars": true, "keepTime": true,
        "icon": "external link", "targetBlank": false, "tooltip": "Other dashboards of the mesh", "url": "",
    })
}

/// What happened when: alerts that fire, and configuration that came.
fn annotations() -> Vec<Value> {
    let of = |name: &str, color: &str, expr: &str, title: &str| {
        json!({
            "name": name, "datasource": source(), "enable": true, "hide": false, "iconColor": color, "expr": expr,
            "titleFormat": title,
        })
    };
    let alerts = r#"ALERTS{alertname=~"Weft.*", alertstate="firing"}"#;
    let changes = r#"sum(changes(weft_config_changes_total{cluster=~"$cluster"}[1m])) > 0"#;
    vec![
        of("Alerts of Weft", "red", alerts, "{{alertname}}"),
        of("Configuration applied", "blue", changes, "Configuration applied"),
    ]
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables(dashboard: &Dashboard) -> Vec<Value> {
    let mut list = vec![json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
        "multi": false, "includeAll": false, "refresh": 1, "regex": "", "skipUrlSync": false,
    })];
    list.push(variable(&Variable {
        name: "cluster",
        label: "Cluster",
        of: "weft_build_info".to_owned(),
        values: "cluster",
    }));
    list.push(variable(&Variable {
        name: "namespace",
        label: "Namespace",
        of: r#"weft:edge_connections:rate5m{cluster=~"$cluster"}"#.to_owned(),
        values: "destination_namespace",
    }));
    list.extend(dashboard.variables.iter().map(variable));
    list
}

/// Several values or all; all is everything, so that series without the label count too.
fn variable(variable: &Variable) -> Value {
    let Variable { name, label, of, values } = variable;
    let query = format!("label_values({of}, {values})");
    json!({
        "name": name, "label": label, "type": "query", "datasource": source(),
        "query": { "query": query, "refId": format!("{name}-values") }, "hide": 0, "multi": true, "includeAll": true,
        "allValue": ".*", "refresh": 2, "regex": "", "sort": 1, "skipUrlSync": false,
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
    })
}

/// All panels, each row's below those of the row before.
fn panels(dashboard: &Dashboard) -> Vec<Value> {
    let mut ids = 1..;
    let mut id = || ids.next().unwrap_or_default();
    let mut all = vec![questions(dashboard, id())];
    let mut top = HEADER;
    for row in &dashboard.rows {
        all.push(json!({
            "id": id(), "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": top, "w": 24, "h": 1 },
        }));
        top += 1;
        let (mut left, mut height) = (0, 0);
        for it in &row.panels {
            if left + u32::from(it.width) > 24 {
                (left, top, height) = (0, top + height, 0);
            }
            all.push(panel(it, id(), (left, top)));
            left += u32::from(it.width);
            height = height.max(u32::from(it.height));
        }
        top += height;
    }
    all
}

/// The height of the panel with the questions.
const HEADER: u32 = 3;

fn questions(dashboard: &Dashboard, id: u32) -> Value {
    let mut text = "**This dashboard answers:** ".to_owned();
    text += &dashboard.questions.join(" ");
    if dashboard.board != Board::Overview {
        text += &format!(
            " [Back to the overview](/d/{}?${{__url_time_range}}&${{__all_variables}}).",
            Board::Overview.uid()
        );
    }
    json!({
        "id": id, "type": "text", "title": "", "transparent": true,
        "gridPos": { "x": 0, "y": 0, "w": 24, "h": HEADER },
        "options": { "mode": "markdown", "content": text },
    })
}

fn panel(panel: &Panel, id: u32, (left, top): (u32, u32)) -> Value {
    let look = look(panel);
    let targets: Vec<_> = panel.queries.iter().enumerate().map(|(index, query)| target(panel, query, index)).collect();
    json!({
        "id": id,
        "type": look.kind,
        "title": panel.title,
        "description": panel.answers,
        "datasource": source(),
        "gridPos": { "x": left, "y": top, "w": panel.width, "h": panel.height },
        "targets": targets,
        "options": look.options,
        "fieldConfig": { "defaults": look.defaults, "overrides": look.overrides },
        "transformations": look.transformations,
    })
}

fn target(panel: &Panel, query: &Query, index: usize) -> Value {
    let is_table = matches!(panel.view, View::Table(_) | View::Graph);
    let mut target = json!({
        "refId": ref_id(index),
        "datasource": source(),
        "editorMode": "code",
        "expr": query.expr,
        "format": if is_table { "table" } else { "time_series" },
        "instant": is_table,
        "range": !is_table,
        "exemplar": query.exemplars,
    });
    if let (false, Some(object)) = (is_table, target.as_object_mut()) {
        object.insert("legendFormat".to_owned(), query.legend.into());
    }
    target
}
