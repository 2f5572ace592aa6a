//! Makes the JSON of Grafana from the source of a dashboard.

use serde_json::{Value, json};

use crate::dashboards::source::{Dashboard, Panel, PanelQuery, PanelType, Row, Variable, common_rows};

/// Columns of a dashboard.
pub(crate) const COLUMNS: u64 = 24;
/// The schema of Grafana 10.4; newer ones read it and migrate it.
pub(crate) const SCHEMA: u64 = 39;
/// What the processes of a dashboard have in common; [`render`] adds the cluster.
const INSTANCE: &str = "instance=~\"$instance\"";
const CLUSTER: &str = "cluster=~\"$cluster\"";

/// The dashboard of the file `name`.
pub(crate) fn render(name: &str, dashboard: &Dashboard) -> Value {
    let rows: Vec<Row> = dashboard.rows.iter().cloned().chain(common_rows(dashboard)).collect();
    json!({
        "annotations": {"list": []},
        "description": dashboard.description,
        "editable": false,
        "graphTooltip": 1,
        "id": null,
        "links": [{
            "asDropdown": true, "icon": "external link", "includeVars": false, "keepTime": true, "tags": ["isthmus"],
            "targetBlank": false, "title": "Isthmus", "tooltip": "", "type": "dashboards", "url": ""
        }],
        "panels": panels(&rows),
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "tags": ["isthmus"],
        "templating": {"list": variables(dashboard)},
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "title": format!("Isthmus / {}", dashboard.title),
        "uid": format!("isthmus-{name}"),
        "version": 1,
    })
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn variables(dashboard: &Dashboard) -> Vec<Value> {
    let mut list = vec![json!({
        "current": {}, "hide": 0, "includeAll": false, "label": "Data source", "multi": false, "name": "datasource",
        "options": [], "query": "prometheus", "refresh": 1, "regex": "", "skipUrlSync": false, "type": "datasource"
    })];
    if let Some(metric) = &dashboard.process {
        let variable = |name: &str, label: &str, metric: String, all: Option<&str>| Variable {
            name: name.to_owned(),
            label: label.to_owned(),
            metric,
            of: name.to_owned(),
            all: all.map(str::to_owned),
            single: false,
        };
        // A Prometheus without external labels has no label `cluster`.
        list.push(label_values(&variable("cluster", "Scraping cluster", metric.clone(), Some(".*"))));
        list.push(label_values(&variable("instance", "Process", format!("{metric}{{{CLUSTER}}}"), None)));
    }
    list.extend(dashboard.variables.iter().map(label_values));
    list.push(json!({
        "current": {"selected": false, "text": RUNBOOKS, "value": RUNBOOKS}, "hide": 0, "label": "Runbooks", "name": "runbooks",
        "options": [], "query": RUNBOOKS, "skipUrlSync": false, "type": "textbox",
        "description": "The address at which docs/runbooks.md can be read"
    }));
    list
}

const RUNBOOKS: &str = "docs/runbooks.md";

fn label_values(variable: &Variable) -> Value {
    let query = format!("label_values({}, {})", variable.metric, variable.of);
    let all = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
    json!({
        "allValue": variable.all, "current": if variable.single { json!({}) } else { all }, "datasource": datasource(),
        "definition": query, "hide": 0, "includeAll": !variable.single, "label": variable.label, "multi": !variable.single,
        "name": variable.name, "options": [],
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2, "regex": "", "skipUrlSync": false, "sort": 1, "type": "query"
    })
}

/// The panels of all rows, from the left to the right and from the top to the bottom.
fn panels(rows: &[Row]) -> Vec<Value> {
    let (mut list, mut top) = (Vec::new(), 0);
    for row in rows {
        let id = list.len() as u64 + 1;
        list.push(json!({
            "collapsed": false, "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top}, "id": id, "panels": [], "title": row.title,
            "type": "row"
        }));
        top += 1;
        let (mut left, mut height) = (0, 0);
        for panel in &row.panels {
            let (default_width, own_height) = if panel.kind == PanelType::Stat { (4, 4) } else { (8, 8) };
            let width = panel.width.unwrap_or(default_width);
            if left + width > COLUMNS || (height > 0 && height != own_height) {
                (top, left) = (top + height, 0);
            }
            height = own_height;
            let at = json!({"h": height, "w": width, "x": left, "y": top});
            list.push(panel_json(panel, list.len() as u64 + 1, at));
            left += width;
        }
        top += height;
    }
    list
}

fn panel_json(panel: &Panel, id: u64, at: Value) -> Value {
    let queries = panel.queries();
    assert!(!queries.is_empty(), "{}: no query", panel.title);
    let targets: Vec<Value> =
        queries.iter().zip('A'..='Z').map(|(query, letter)| target(panel, query, letter)).collect();
    let (name, options, custom) = shape(panel);
    let mut defaults = json!({
        "color": {"mode": if panel.kind == PanelType::Stat { "thresholds" } else { "palette-classic" }},
        "custom": custom, "mappings": [], "thresholds": {"mode": "absolute", "steps": steps(panel)}, "unit": panel.unit
    });
    if let Some(max) = panel.max {
        (defaults["min"], defaults["max"]) = (json!(0), json!(max));
    }
    if let Some(empty) = &panel.empty {
        defaults["noValue"] = json!(empty);
    }
    let links: Vec<Value> = panel.alerts.iter().map(|alert| runbook(alert)).collect();
    let mut json = json!({
        "datasource": datasource(), "description": panel.description, "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": at, "id": id, "links": links, "options": options, "targets": targets, "title": panel.title, "type": name
    });
    if panel.kind == PanelType::Table {
        let names = json!({"excludeByName": {"Time": true}, "renameByName": {"Value": "Number"}});
        json["transformations"] = json!([{"id": "organize", "options": names}]);
    }
    json
}

fn runbook(alert: &str) -> Value {
    let url = format!("${{runbooks}}#{}", alert.to_lowercase());
    json!({"targetBlank": true, "title": format!("Runbook of {alert}"), "url": url})
}

fn target(panel: &Panel, query: &PanelQuery, letter: char) -> Value {
    let is_table = panel.kind == PanelType::Table;
    json!({
        "datasource": datasource(), "editorMode": "code",
        "expr": query.expr.trim_end().replace(INSTANCE, &format!("{CLUSTER}, {INSTANCE}")),
        "format": if is_table { "table" } else { "time_series" }, "instant": is_table, "legendFormat": query.legend,
        "range": !is_table, "refId": letter.to_string()
    })
}

/// The type of a panel under its name in Grafana, its options, and its own settings of fields.
fn shape(panel: &Panel) -> (&'static str, Value, Value) {
    match panel.kind {
        PanelType::Stat => {
            let reduce = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
            let options = json!({
                "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "reduceOptions": reduce,
                "textMode": "auto"
            });
            ("stat", options, json!({}))
        }
        PanelType::Table => {
            let footer = json!({"countRows": false, "fields": "", "reducer": ["sum"], "show": false});
            let options = json!({"cellHeight": "sm", "footer": footer, "showHeader": true});
            ("table", options, json!({"align": "auto", "cellOptions": {"type": "auto"}, "inspect": false}))
        }
        PanelType::Timeseries => {
            let options = json!({
                "legend": {"calcs": ["lastNotNull"], "displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"}
            });
            let custom = json!({
                "axisSoftMin": 0, "drawStyle": "line", "fillOpacity": if panel.stack { 30 } else { 5 }, "lineWidth": 1,
                "showPoints": "never", "stacking": {"group": "A", "mode": if panel.stack { "normal" } else { "none" }},
                "thresholdsStyle": {"mode": if panel.thresholds.is_empty() { "off" } else { "line" }}
            });
            ("timeseries", options, custom)
        }
    }
}

/// `[green, 1 yellow, 5 red]` as steps.
fn steps(panel: &Panel) -> Vec<Value> {
    if panel.thresholds.is_empty() {
        return vec![json!({"color": "green", "value": null})];
    }
    let step = |(number, text): (usize, &String)| match text.split_once(' ') {
        None if number == 0 => json!({"color": text, "value": null}),
        Some((from, colour)) if number > 0 => {
            let from: f64 =
                from.parse().unwrap_or_else(|_| panic!("{}: {from} is not a number", panel.title));
            json!({"color": colour, "value": from})
        }
        _ => panic!("{}: {text} is not a threshold", panel.title),
    };
    panel.thresholds.iter().enumerate().map(step).collect()
}
