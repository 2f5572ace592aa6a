//! The dashboards in `deploy/grafana`: they are made from their sources, Grafana can read them, and they lead to the runbooks.
//!
//! `isthmus quickstart --check` evaluates their expressions.

mod render;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use promql::{ParseOptions, parse};
use serde_json::Value;

use crate::dashboards::render::{COLUMNS, SCHEMA, render};
use crate::dashboards::source::{all, folder};

fn file(name: &str) -> PathBuf {
    folder().join("dashboards").join(format!("{name}.json"))
}

/// The committed dashboards by name.
fn committed() -> Vec<(String, Value)> {
    let read = |name: String| {
        let text = fs::read_to_string(file(&name)).unwrap_or_else(|error| panic!("{name}.json: {error}"));
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}.json: {error}"));
        (name, json)
    };
    all().into_iter().map(|(name, _)| read(name)).collect()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("{field} is not a list: {value}"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is not a text: {value}"))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} is not a number: {value}"))
}

#[test]
fn dashboards_are_those_of_their_sources() {
    for (name, dashboard) in all() {
        let fresh = render(&name, &dashboard);
        if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
            fs::write(file(&name), format!("{fresh:#}\n")).expect("a file");
            continue;
        }
        let old: Option<Value> =
            fs::read_to_string(file(&name)).ok().and_then(|text| serde_json::from_str(&text).ok());
        assert!(
            old.as_ref() == Some(&fresh),
            "{name}.json is outdated; run ISTHMUS_REGENERATE=1 ./tests/run"
        );
    }
    let files: BTreeSet<String> = fs::read_dir(folder().join("dashboards"))
        .expect("the dashboards")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let expected: BTreeSet<String> = all().iter().map(|(name, _)| format!("{name}.json")).collect();
    assert_eq!(files, expected, "a file in deploy/grafana/dashboards has no source");
}

#[test]
fn dashboards_have_the_form_that_grafana_reads() {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in committed() {
        let uid = text(&dashboard, "uid");
        assert!(uid.len() <= 40 && uids.insert(uid.to_owned()), "{name}: uid {uid}");
        assert_eq!(number(&dashboard, "schemaVersion"), SCHEMA, "{name}");
        assert!(dashboard["id"].is_null(), "{name}: Grafana gives the id");
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard, "panels") {
            let title = format!("{name}: {}", text(panel, "title"));
            assert!(ids.insert(number(panel, "id")), "{title}: its id is that of another panel");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|field| number(&panel["gridPos"], field));
            assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{title}: {x} + {w} columns");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{title} is over another panel");
            }
            check_panel(&title, panel);
        }
        assert!(ids.len() > 8, "{name}: {} panels", ids.len());
    }
}

/// Checks a panel that is not a row.
fn check_panel(title: &str, panel: &Value) {
    let kind = text(panel, "type");
    if kind == "row" {
        return;
    }
    assert!(["timeseries", "stat", "table"].contains(&kind), "{title}: {kind}");
    let description = text(panel, "description");
    assert!(description.ends_with('.') && description.len() > 20, "{title}: {description:?}");
    assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
    let defaults = &panel["fieldConfig"]["defaults"];
    let unit = text(defaults, "unit");
    let units = ["short", "s", "bytes", "Bps", "reqps", "ops", "percentunit"];
    assert!(units.contains(&unit), "{title}: unit {unit}");
    let mut last = f64::NEG_INFINITY;
    for (number, step) in list(&defaults["thresholds"], "steps").iter().enumerate() {
        assert!(["green", "yellow", "red"].contains(&text(step, "color")), "{title}: {step}");
        assert_eq!(step["value"].is_null(), number == 0, "{title}: {step}");
        let value = step["value"].as_f64().unwrap_or(f64::MIN);
        assert!(value > last, "{title}: thresholds must grow");
        last = value;
    }
    let mut letters = BTreeSet::new();
    for target in list(panel, "targets") {
        assert!(letters.insert(text(target, "refId").to_owned()), "{title}: refId");
        let is_single = list(panel, "targets").len() == 1;
        let has_legend = kind != "timeseries" || is_single || !text(target, "legendFormat").is_empty();
        assert!(has_legend, "{title}: several queries need legends");
    }
}

/// The names of the variables in a text: `$name` and `${name}`.
fn used_variables(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| -> String {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    text.split('$').skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn variables_are_declared_and_expressions_are_promql() {
    for (name, dashboard) in committed() {
        let variables = list(&dashboard["templating"], "list");
        let mut declared: BTreeSet<String> =
            variables.iter().map(|variable| text(variable, "name").to_owned()).collect();
        let used: BTreeSet<String> =
            list(&dashboard, "panels").iter().flat_map(|panel| used_variables(&panel.to_string())).collect();
        declared.insert("__rate_interval".to_owned());
        let unknown: Vec<&String> = used.difference(&declared).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?} are not declared");
        let unused: Vec<&String> =
            declared.difference(&used).filter(|name| *name != "__rate_interval").collect();
        assert!(unused.is_empty(), "{name}: {unused:?} are not used");
        let targets = list(&dashboard, "panels").iter().filter_map(|panel| panel["targets"].as_array());
        for target in targets.flatten() {
            let expr = text(target, "expr").replace("$__rate_interval", "1m");
            parse(&expr, &ParseOptions::ALL).unwrap_or_else(|error| panic!("{name}: {expr}: {error}"));
        }
    }
}

/// Each alert is shown by a panel that leads to its runbook, and panels lead to nothing else.
#[test]
fn panels_lead_to_the_runbook_of_every_alert() {
    let links: BTreeSet<String> = committed()
        .iter()
        .flat_map(|(_, dashboard)| list(dashboard, "panels"))
        .flat_map(|panel| panel["links"].as_array().into_iter().flatten())
        .map(|link| text(link, "url").to_owned())
        .collect();
    let alerts = crate::shipped_rules::alerts();
    let expected: BTreeSet<String> =
        alerts.iter().map(|alert| format!("${{runbooks}}#{}", alert.to_lowercase())).collect();
    assert_eq!(links, expected);
}

#[test]
fn what_grafana_is_provisioned_with_fits_together() {
    let read = |path: &str| -> Value {
        let text = fs::read_to_string(folder().join("provisioning").join(path)).expect("a file");
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let source = &list(&read("datasources/isthmus.yaml"), "datasources")[0].clone();
    assert_eq!(text(source, "type"), "prometheus");
    assert_eq!(text(source, "url"), "${ISTHMUS_QUERIER_URL}");
    assert_eq!(text(&source["jsonData"], "prometheusType"), "Thanos");
    let provider = &list(&read("dashboards/isthmus.yaml"), "providers")[0].clone();
    assert_eq!(text(provider, "type"), "file");
    let page = fs::read_to_string(folder().join("README.md")).expect("the page");
    let path = text(&provider["options"], "path");
    assert!(page.contains(&format!("/dashboards:{path}:ro")), "README.md does not mount {path}");
    let listed: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names: Vec<String> = all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, names.iter().map(String::as_str).collect(), "the table in README.md");
}
