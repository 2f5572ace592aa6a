//! Runs the scripts of Prometheus and Thanos with the engine of this crate.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Script;

/// The folders of scripts, and the least number of evaluations in each.
const FOLDERS: [(&str, usize); 2] = [("promql", 2_214), ("promql-thanos", 41)];

/// All conformance scripts. Prints a line and returns `None` if they are absent.
fn scripts() -> Option<Vec<PathBuf>> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    if !root.exists() {
        println!("skipped: {} is absent", root.display());
        return None;
    }
    let mut scripts = Vec::new();
    for (folder, _) in FOLDERS {
        let folder = root.join(folder);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        scripts.extend(
            entries.map(|entry| entry.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "test")),
        );
    }
    scripts.sort();
    Some(scripts)
}

/// The name of a script. Thanos' scripts include their folder, because the names occur twice.
fn name(path: &std::path::Path) -> String {
    let file = path.file_name().unwrap().to_string_lossy();
    match path.parent().and_then(|p| p.file_name()) {
        Some(folder) if folder == "promql-thanos" => format!("promql-thanos/{file}"),
        _ => file.into_owned(),
    }
}

/// Set `PROMQLTEST` to a part of a script's name to run only this script and print all its failures.
#[test]
fn conformance_scripts_pass() {
    let only = std::env::var("PROMQLTEST").ok();
    let Some(scripts) = scripts() else { return };
    let (mut passed, mut total, mut wrong) = (0, [0; FOLDERS.len()], Vec::new());
    for path in scripts {
        let name = name(&path);
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let report = script.run();
        let failures: BTreeMap<usize, String> =
            report.failures.iter().map(|f| (f.line, format!("{}: {}", f.query, f.message))).collect();
        let good = report.evaluations - failures.len().min(report.evaluations);
        println!("{name:32} {good:4} of {:4}", report.evaluations);
        passed += good;
        total[usize::from(name.contains('/'))] += report.evaluations;
        wrong.extend(failures.iter().map(|(line, message)| format!("{name}:{line}: {message}")));
    }
    println!("{passed} of {} evaluations pass", total.iter().sum::<usize>());
    for ((folder, least), found) in FOLDERS.iter().zip(total) {
        assert!(only.is_some() || found >= *least, "{folder} has {found} evaluations, fewer than {least}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn histograms_in_info_series_are_ignored_at_other_times() {
    let script = |expectation: &str| {
        format!(
            "load 1m\n m{{job=\"a\"}} 1 2\n target_info{{job=\"a\", v=\"x\"}} {{{{count:1}}}} 1\n\n\
             eval range from 1m to 1m step 1m info(m)\n m{{job=\"a\", v=\"x\"}} 2\n\n\
             eval instant at 0 info(m)\n {expectation}\n"
        )
    };
    let failures = |text: &str| Script::parse(text).unwrap().run().failures.len();
    assert_eq!(failures(&script("expect fail")), 0);
    assert_eq!(failures(&script("m 1")), 1);
}

#[test]
fn failures_are_reported_with_line_and_reason() {
    let run = |text: &str| -> Vec<String> {
        let report = Script::parse(text).unwrap().run();
        report.failures.iter().map(|f| format!("{}: {}: {}", f.line, f.query, f.message)).collect()
    };
    assert_eq!(run("load 1m\n m 1 2\n\neval instant at 1m m\n m 2\n"), Vec::<String>::new());
    assert_eq!(run("load 1m\n m 1 2\n\neval instant at 1m m\n m 3\n"), ["4: m: expected 3 for m but got 2"]);
    assert_eq!(run("eval instant at 1m m\n m 3\n"), ["1: m: expected metric m not found"]);
    assert_eq!(run("eval instant at 0 1\n expect fail\n"), ["1: 1: expected error but got none"]);
    assert_eq!(
        run("load 1m\n m 1 2\n\nload 1m\n m _ 3\n"),
        ["4: load: sample of m at 60000: duplicate sample for timestamp"]
    );
}

#[test]
fn invalid_scripts_are_rejected_with_the_line() {
    let check = |text: &str, expected: &str| {
        assert_eq!(Script::parse(text).unwrap_err().to_string(), expected);
    };
    check("clear\n\nfoo", "line 3: invalid command \"foo\"");
    check("load soon\n", "line 1: invalid step definition \"soon\": not a valid duration string: \"soon\"");
    check("eval instant at 0 sum(\n", "line 1: sum(: 1:5: parse error: unclosed left parenthesis");
    check(
        "eval instant at 0 1\n expect maybe\n",
        "line 2: invalid expect statement, must match `expect <type> \
           <match_type>: <string>` format",
    );
}
