//! Values: wrong ones are refused by name, and sections that are off ask nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::charts::objects::{kind, parse};
use crate::charts::render::{CHARTS, chart_folder, helm};
use crate::charts::tools::{VERSIONS, folder, run};

const CLIENT: [&str; 4] = ["--set", "cluster=eu-1", "--set", "environment=production"];
const OBSERVABILITY: [&str; 2] = ["--set", "trustDomain=prod.example"];

#[test]
fn wrong_values_are_refused_with_their_name() {
    let Some(tools) = folder() else { return };
    let check = |chart: &str, args: &[&str], expected: &str| {
        for version in VERSIONS {
            let error = helm(&tools, version, chart, args).expect_err(expected);
            // Helm 3 writes a.b, Helm 4 /a/b.
            let error = error.replace('/', ".");
            assert!(error.contains(expected), "{version} {args:?}: {error}");
        }
    };
    let client =
        |value: &str, expected: &str| check(CHARTS[0], &[&CLIENT[..], &["--set", value]].concat(), expected);
    check(CHARTS[0], &[], "environment");
    check(CHARTS[1], &[], "trustDomain");
    client("cluster=EU_1", "cluster");
    client("scraper.replicas=two", "scraper.replicas");
    client("scraper.replicas=0", "scraper.replicas");
    client("scraper.replica=2", "replica");
    client("scraping=true", "scraping");
    client("model=forever", "model");
    client("model=long-term", "objectStorage.existingSecret");
    client("gateway.policy.max_age=soon", "gateway.policy.max_age");
    client("gateway.policy.maxAge=30d", "maxAge");
    client("gateway.dial={gateway.example}", "gateway.dial.0");
    client("scraper.persistence.size=12 gigs", "scraper.persistence.size");
    client("scraper.resources.limits.memory=12 gigs", "scraper.resources.limits.memory");
    client("gateway.podDisruptionBudget.maxUnavailable=most", "gateway.podDisruptionBudget.maxUnavailable");
    client("gateway.extraArgs={verbose}", "gateway.extraArgs.0");
    client("image.digest=abc", "image.digest");
    client("security.runAsUser=root", "security.runAsUser");
    client("security=null", "security");
    // Each would be ignored without a word.
    let embedded = |value: &str, expected: &str| client(&format!("scraper.kind=embedded,{value}"), expected);
    embedded("scraper.kubernetes.enabled=true", "scraper.kubernetes.enabled");
    embedded(r"scraper.rules.a\.yaml=b", "scraper.rules");
    client("scraper.rules.a=b", "scraper.rules");
    let obs = |value: &str, expected: &str| {
        check(CHARTS[1], &[&OBSERVABILITY[..], &["--set", value]].concat(), expected)
    };
    obs("objectStorage.existingSecret=", "objectStorage.existingSecret");
    obs("store.maxMemory=half", "store.maxMemory");
    obs("store.timePartitions[0].minTime=-6w", "store.timePartitions.0");
    obs("ruler.alertmanagers={alertmanager:9093}", "ruler.alertmanagers.0");
    obs("gateway.replicas=2", "replicas");
}

/// What Kubernetes or a pod would refuse only after the installation, because templates put values together.
#[test]
fn values_that_contradict_the_chart_are_refused() {
    let Some(tools) = folder() else { return };
    let check = |chart: &str, name: &str, value: &str, expected: &str| {
        for version in VERSIONS {
            let needed = if chart == CHARTS[0] { &CLIENT[..] } else { &OBSERVABILITY[..] };
            let mut helm = Command::new(tools.join(version).join("helm"));
            let helm = helm.args(["template", name]).arg(chart_folder(chart)).args(needed);
            let error = run(helm.args(["--set", value])).expect_err(expected);
            assert!(error.contains(expected), "{version} {value}: {error}");
        }
    };
    let client = |value: &str, expected: &str| check(CHARTS[0], "isthmus", value, expected);
    for label in ["cluster", "environment", "replica"] {
        client(
            &format!("scraper.externalLabels.{label}=x"),
            &format!("scraper.externalLabels.{label}: the "),
        );
    }
    let own = r"app\.kubernetes\.io/component=x";
    client(
        &format!("commonLabels.{own}"),
        "commonLabels: the chart sets the label app.kubernetes.io/component",
    );
    client(&format!("gateway.podLabels.{own}"), "podLabels of gateway: the chart sets the label");
    let target = "gateway.extraTargets[0].name=scraper-1,gateway.extraTargets[0].address=a:1";
    client(target, "gateway.extraTargets: the name scraper-1 is used twice");
    client("gateway.persistence.enabled=false", "gateway.persistence.enabled: must be true");
    client("fullnameOverride=A_b", "\"A_b\" cannot be the name of Services");
    check(CHARTS[0], "1eu", "log.level=info", "\"1eu-isthmus-client\" cannot be the name of Services");
    // The last variable of a name would win.
    let variable = |section: &str, name: &str| {
        let expected = format!("{section}.extraEnv: the chart sets the variable {name} itself; remove it");
        (format!("{section}.extraEnv[0].name={name},{section}.extraEnv[0].value=x"), expected)
    };
    for (section, name) in [("gateway", "POD_INDEX"), ("scraper", "POD_NAME")] {
        let (value, expected) = variable(section, name);
        client(&value, &expected);
        client(&format!("{value},scraper.kind=embedded"), &expected);
    }
    let obs = |value: &str, expected: &str| check(CHARTS[1], "isthmus", value, expected);
    for section in ["store", "compactor", "ruler"] {
        let (value, expected) = variable(section, "POD_NAME");
        obs(&value, &expected);
    }
    obs("ruler.externalLabels.replica=x", "ruler.externalLabels.replica: the name of the pod decides it");
    obs("gateway.persistence.enabled=false", "gateway.persistence.enabled: must be true");
    let parts = "store.timePartitions[0].name=a,store.timePartitions[0].maxTime=-6w,\
                 store.timePartitions[1].name=a,store.timePartitions[1].minTime=-6w";
    obs(parts, "store.timePartitions: the name a is used twice");
}

/// The kinds that are rendered with these values, by both versions of Helm.
fn kinds(chart: &str, args: &[&str]) -> Option<Vec<String>> {
    let tools = folder()?;
    let [one, other] = VERSIONS.map(|version| {
        let text = helm(&tools, version, chart, args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        parse(&text).iter().map(|object| kind(object).to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(one, other, "{args:?}");
    Some(one)
}

#[test]
fn sections_that_are_off_ask_nothing() {
    let off = "store.enabled=false,compactor.enabled=false,ruler.enabled=false,objectStorage.existingSecret=";
    let Some(found) = kinds(CHARTS[1], &[&OBSERVABILITY[..], &["--set", off]].concat()) else { return };
    assert_eq!(found.iter().filter(|kind| *kind == "StatefulSet").count(), 1, "{found:?}");
    let null = "store=null,compactor=null,ruler=null,networkPolicy=null,serviceMonitor=null";
    assert_eq!(kinds(CHARTS[1], &[&OBSERVABILITY[..], &["--set", null]].concat()), Some(found));
    let null = "pushgateway=null,networkPolicy=null,serviceMonitor=null";
    let plain = kinds(CHARTS[0], &CLIENT);
    assert_eq!(kinds(CHARTS[0], &[&CLIENT[..], &["--set", null]].concat()), plain);
    assert_eq!(kinds(CHARTS[0], &[&CLIENT[..], &["--set", "global.registry=x"]].concat()), plain);
}

#[test]
fn the_user_may_be_left_to_the_platform() {
    let Some(tools) = folder() else { return };
    let null = "security.runAsUser=null,security.runAsGroup=null,security.fsGroup=null";
    for version in VERSIONS {
        let text =
            helm(&tools, version, CHARTS[0], &[&CLIENT[..], &["--set", null]].concat()).expect("objects");
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(!text.contains(field), "{version}: {field}");
        }
        assert!(text.contains("runAsNonRoot: true"));
    }
}

/// A value that YAML would read as a map or as a comment stays the text of an argument.
#[test]
fn external_labels_of_the_ruler_may_have_any_text() {
    let Some(tools) = folder() else { return };
    for (value, expected) in [
        ("eu-1", r#"- --label=region="eu-1""#),
        ("a: b", r#"- '--label=region="a: b"'"#),
        ("a #b", r#"- '--label=region="a #b"'"#),
    ] {
        for version in VERSIONS {
            let value = format!("ruler.externalLabels.region={value}");
            let text = helm(&tools, version, CHARTS[1], &[&OBSERVABILITY[..], &["--set", &value]].concat());
            let text = text.unwrap_or_else(|error| panic!("{version} {value}: {error}"));
            assert!(text.contains(expected), "{version} {value}: {text}");
        }
    }
}

/// Both charts below another one, which passes `global` and turns one of them off.
#[test]
fn the_charts_can_be_parts_of_another_chart() {
    let Some(tools) = folder() else { return };
    let umbrella = tempfile::tempdir().expect("a folder");
    let dependencies: String = CHARTS
        .iter()
        .map(|chart| format!("  - {{name: {chart}, version: 0.1.0, condition: {chart}.enabled}}\n"))
        .collect();
    let chart = format!("apiVersion: v2\nname: fleet\nversion: 0.1.0\ndependencies:\n{dependencies}");
    fs::write(umbrella.path().join("Chart.yaml"), chart).expect("a file");
    let values = "global: {registry: x}\nisthmus-client: {enabled: true, cluster: eu-1, environment: test}\nisthmus-observability: {enabled: false}\n";
    fs::write(umbrella.path().join("values.yaml"), values).expect("a file");
    fs::create_dir(umbrella.path().join("charts")).expect("a folder");
    for chart in CHARTS {
        symlink(chart_folder(chart), umbrella.path().join("charts").join(chart)).expect("a link");
    }
    for version in VERSIONS {
        let mut helm = Command::new(tools.join(version).join("helm"));
        let text = run(helm.args(["template", "fleet"]).arg(umbrella.path()))
            .unwrap_or_else(|error| panic!("{version}: {error}"));
        assert!(text.contains("name: fleet-isthmus-client-gateway"), "{version}");
        assert!(!text.contains("observability-query"), "{version}");
    }
}
