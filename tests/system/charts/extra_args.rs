//! `extraArgs`: a flag that the chart sets is refused by Helm with its value and a remedy, and not by the program when the pod starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::isthmus;

use crate::charts::objects::{at, committed, containers, list, parse, workloads};
use crate::charts::render::{CHARTS, chart_folder, helm};
use crate::charts::tools::{VERSIONS, folder, run};

/// Sets of values that together render every argument of the charts.
const RENDERED: [(&str, &str); 3] = [(CHARTS[0], "small"), (CHARTS[0], "large"), (CHARTS[1], "large")];

/// Flags of Prometheus 3 and of the Pushgateway that their documentation calls repeatable.
const REPEATABLE_OF_PROMETHEUS: [&str; 2] = ["--enable-feature", "--web.listen-address"];

/// A container of a chart, and the value that adds arguments to it.
struct Container {
    chart: &'static str,
    set: &'static str,
    value: String,
    args: Vec<String>,
}

/// The containers of the charts, each once.
fn all_containers() -> Vec<Container> {
    let mut found = BTreeMap::new();
    for (chart, set) in RENDERED {
        for container in workloads(&committed(chart, set)).flat_map(containers) {
            let container_name = container["name"].as_str().expect("a name");
            let section = match container_name {
                "prometheus" => "scraper.prometheus",
                "sidecar" | "scraper" => "scraper",
                name => name,
            };
            let value = format!("{section}.extraArgs");
            let args = list(container, "args").iter().map(|arg| arg.as_str().expect("a text").to_owned());
            let container = Container { chart, set, value, args: args.collect() };
            found.insert((chart, container_name.to_owned()), container);
        }
    }
    found.into_values().collect()
}

impl Container {
    /// Renders the chart with these further arguments.
    fn render(&self, tools: &Path, version: &str, extra: &[&str]) -> Result<String, String> {
        let values = chart_folder(self.chart).join("ci").join(format!("{}.yaml", self.set));
        let extra = format!("{}={}", self.value, json!(extra));
        let values = values.display().to_string();
        helm(tools, version, self.chart, &["--values", &values, "--set-json", &extra])
    }

    /// Whether the program of the container accepts an argument twice.
    fn may_repeat(&self, arg: &str) -> bool {
        let role = &self.args[0];
        if role.starts_with("--") {
            return REPEATABLE_OF_PROMETHEUS.contains(&flag(arg));
        }
        // The last argument keeps the program from starting.
        let error = run(Command::new(isthmus()).args([role, arg, arg, "--unknown"])).expect_err("a mistake");
        let (twice, unknown) = ("cannot be used multiple times", "unexpected argument '--unknown'");
        assert!(error.contains(twice) != error.contains(unknown), "{role} {arg}: {error}");
        error.contains(unknown)
    }
}

fn flag(arg: &str) -> &str {
    arg.split('=').next().unwrap_or(arg)
}

#[test]
fn flags_of_the_chart_are_refused_unless_they_can_be_repeated() {
    let Some(tools) = folder() else { return };
    let containers = all_containers();
    assert_eq!(containers.len(), 10, "those that have extraArgs");
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        for container in &containers {
            // Each rendering takes time: a flag that all roles have is tried with one of them, and one flag with every container.
            let flags = container.args.iter().map(String::as_str).filter(|arg| arg.starts_with("--"));
            let flags = flags.enumerate().filter(|(at, arg)| seen.insert(flag(arg)) || *at == 0);
            let flags: Vec<&str> = flags.map(|(_, arg)| arg).collect();
            let tools = &tools;
            scope.spawn(move || flags_are_refused(tools, container, flags));
        }
    });
}

fn flags_are_refused(tools: &Path, container: &Container, flags: Vec<&str>) {
    let values = fs::read_to_string(chart_folder(container.chart).join("values.yaml")).expect("values");
    let values = parse(&values).remove(0);
    let (repeatable, single): (Vec<&str>, Vec<&str>) =
        flags.into_iter().partition(|arg| container.may_repeat(arg));
    for (at, arg) in single.iter().enumerate() {
        // Both versions for one flag of each container.
        for version in VERSIONS.iter().skip(usize::from(at > 0)) {
            let error = container
                .render(tools, version, &["--other=1", arg])
                .expect_err(&format!("{} {}: {arg}", container.chart, container.value));
            let expected =
                format!("{}: {arg:?}: the chart sets {} itself; remove it", container.value, flag(arg));
            let (_, remedy) = error.split_once(&expected).unwrap_or_else(|| panic!("{expected}: {error}"));
            names_a_value(&values, remedy);
        }
    }
    let text = container.render(tools, VERSIONS[1], &repeatable).unwrap_or_else(|error| panic!("{error}"));
    for arg in repeatable {
        assert!(text.contains(&json!(arg).to_string()), "{} {arg}: {text}", container.value);
    }
}

/// What sets the same as a flag of the chart is refused, too.
#[test]
fn other_spellings_of_flags_are_refused() {
    let Some(tools) = folder() else { return };
    let check = |chart: &str, set: &str, value: &str, expected: &str| {
        let values = chart_folder(chart).join("ci").join(format!("{set}.yaml")).display().to_string();
        for version in VERSIONS {
            let error =
                helm(&tools, version, chart, &["--values", &values, "--set", value]).expect_err(value);
            assert!(error.contains(expected), "{version} {value}: {error}");
        }
    };
    let usual = |value: &str, expected: &str| check(CHARTS[1], "usual", value, expected);
    usual(
        "query.extraArgs={--log.level=debug}",
        "query.extraArgs: \"--log.level=debug\": the chart sets --log.level itself; remove it, and use the value log.level\n",
    );
    usual(
        "query.extraArgs={--grpc-address}",
        "query.extraArgs: \"--grpc-address\": the chart sets --grpc-address itself; remove it\n",
    );
    usual("store.extraArgs={--objstore.config=x}", "the chart sets --objstore.config-file itself; remove it");
    usual("compactor.extraArgs={--no-wait}", "the chart sets --wait itself; remove it");
    let path = "scraper.extraArgs={--storage.tsdb.path=x}";
    check(CHARTS[0], "small", path, "the chart sets --data-dir itself; remove it");
}

/// If a remedy names a value, the chart has it.
fn names_a_value(values: &Value, remedy: &str) {
    if let Some((_, rest)) = remedy.split_once(", and use the value ") {
        let path = rest.lines().next().expect("a line");
        assert!(!at(values, path).is_null(), "{path}: {remedy}");
    }
}
