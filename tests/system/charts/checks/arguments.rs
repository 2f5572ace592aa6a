//! The program accepts the arguments of its containers and the files that they name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::isthmus;

use crate::charts::objects::{containers, list, of_kind, text, title, workloads};
use crate::charts::tools::run;

pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for (workload, container) in
        workloads(objects).flat_map(|it| containers(it).map(move |container| (it, container)))
    {
        let args: Vec<String> = list(container, "args")
            .iter()
            .map(|arg| {
                arg.as_str().unwrap_or_default().replace("$(POD_NAME)", "pod-0").replace("$(POD_INDEX)", "0")
            })
            .collect();
        let image = text(container, "image").rsplit('/').next().unwrap_or_default();
        if let Some(fault) = match image.split([':', '@']).next() {
            Some("isthmus") => refused(objects, &args),
            Some("prometheus") => unknown_flags("prometheus", &args),
            Some("pushgateway") => unknown_flags("prometheus-pushgateway", &args),
            _ => Some(format!("image {image} is not known")),
        } {
            faults.push(format!("{}: {fault}", title(workload)));
        }
        if let Some(fault) = args.iter().find(|arg| arg.contains("$(")) {
            faults.push(format!("{}: {fault}: the variable is not known", title(workload)));
        }
    }
    for map in of_kind(objects, "ConfigMap") {
        for (file, content) in map["data"].as_object().into_iter().flatten() {
            let fault = wrong_file(file, content.as_str().unwrap_or_default());
            faults.extend(fault.map(|fault| format!("{}: {fault}", title(map))));
        }
    }
    faults
}

/// An address that no machine has (RFC 5737).
const NOWHERE: &str = "203.0.113.1:1";

/// Files that users put into Secrets.
const OF_THE_USER: [(&str, &str); 3] = [
    ("objstore.yml", "type: FILESYSTEM\nconfig: {directory: /nonexistent}\n"),
    ("cache.yml", "type: MEMCACHED\nconfig: {addresses: ['cache:11211']}\n"),
    ("alertmanagers.yml", "alertmanagers: [{static_configs: ['alertmanager:9093']}]\n"),
];

/// Why the program refuses its arguments. It is started with an HTTP address that it cannot get: it checks all arguments and the files that
/// they name, and ends before it does anything else.
fn refused(objects: &[Value], args: &[String]) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    // Without the file of a token, which need not be there.
    let args = args.iter().filter(|arg| !arg.starts_with("--join-file="));
    let args = args.map(|arg| match arg.split_once('=') {
        Some(("--http-address", _)) => format!("--http-address={NOWHERE}"),
        Some((flag, path)) if path.starts_with('/') && !path.contains('*') => {
            format!("{flag}={}", stand_in(objects, path, folder.path()).display())
        }
        _ => arg.clone(),
    });
    let output = Command::new(isthmus()).args(args).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let accepted = output.status.code() == Some(1) && said.contains(&format!("--http-address={NOWHERE}"));
    (!accepted).then_some(said)
}

/// What replaces a file or folder of a pod: the file of a ConfigMap, an example of a file of the user, or an empty folder.
fn stand_in(objects: &[Value], path: &str, folder: &Path) -> PathBuf {
    let name = path.rsplit('/').next().expect("the last part");
    let of_a_map = of_kind(objects, "ConfigMap").find_map(|map| map["data"][name].as_str());
    let of_the_user = OF_THE_USER.iter().find(|(known, _)| *known == name).map(|(_, content)| *content);
    let stand_in = folder.join(name);
    match of_a_map.or(of_the_user) {
        Some(content) => fs::write(&stand_in, content).expect("a file"),
        None => fs::create_dir_all(&stand_in).expect("a folder"),
    }
    stand_in
}

/// Flags that Prometheus has and does not list.
const HIDDEN: [&str; 2] = ["--storage.tsdb.min-block-duration", "--storage.tsdb.max-block-duration"];

/// The flags that a program does not know. Nothing is known without the program.
fn unknown_flags(program: &str, args: &[String]) -> Option<String> {
    let help = Command::new(program).arg("--help").output().ok()?;
    let help = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).into_owned();
    let unknown: Vec<&str> = args
        .iter()
        .filter_map(|arg| arg.split('=').next())
        .filter(|flag| {
            !HIDDEN.contains(flag)
                && !help.contains(flag)
                && !help.contains(&flag.replacen("--", "--[no-]", 1))
        })
        .collect();
    (!unknown.is_empty()).then(|| format!("{program} does not know {unknown:?}"))
}

/// A `prometheus.yml` without discovery by Kubernetes, which Debian's promtool is built without.
fn without_kubernetes(content: &str) -> String {
    match (content.find("    kubernetes_sd_configs:"), content.find("    relabel_configs:")) {
        (Some(from), Some(to)) => format!("{}{}", &content[..from], &content[to..]),
        _ => content.to_owned(),
    }
}

/// What is wrong with a file of a ConfigMap.
fn wrong_file(name: &str, content: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, without_kubernetes(content)).expect("a file");
    let checked = match name {
        "gateway.yaml" => run(Command::new(isthmus()).args(["gateway", "check-config"]).arg(&path)),
        "prometheus.yml" => match Command::new("promtool").arg("--version").output() {
            // It looks for the folder of rules, which is not here.
            Ok(_) => run(Command::new("promtool").args(["check", "config", "--syntax-only"]).arg(&path)),
            Err(_) => return None,
        },
        _ => run(Command::new(isthmus()).args(["tools", "rules", "check"]).arg(&path)),
    };
    checked.err()
}
