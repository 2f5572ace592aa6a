use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::{exemplar_labels, series_labels};

const PROMETHEUS: TextFormat = TextFormat::Prometheus;
const OPEN_METRICS: TextFormat = TextFormat::OpenMetrics;

fn parse(text: &str, format: TextFormat) -> Result<Vec<Entry<'_>>, String> {
    TextParser::new(text.as_bytes(), format).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The samples as text: labels, value, timestamp, and labels, value and timestamp of the exemplar.
fn samples(text: &str, format: TextFormat) -> Vec<String> {
    let shown = |time: Option<i64>| time.map_or(String::new(), |time| format!(" @{time}"));
    let entries = parse(text, format).unwrap();
    let samples = entries.into_iter().filter_map(|entry| match entry {
        Entry::Sample(sample) => Some(sample),
        _ => None,
    });
    samples
        .map(|sample| {
            let labels = series_labels(sample.series, format).unwrap();
            let exemplar = sample.exemplar.map_or(String::new(), |exemplar| {
                let labels = String::from_utf8_lossy(exemplar.labels);
                format!(" # {labels} {}{}", exemplar.value, shown(exemplar.timestamp))
            });
            format!("{labels} {}{}{exemplar}", sample.value, shown(sample.timestamp))
        })
        .collect()
}

#[test]
fn lines_of_the_text_format_are_read_as_by_prometheus() {
    let text = "# HELP up The target\\n\\\\ is \\\"up\\\".\n\
        # TYPE up gauge\n\
        # a comment\n\
        \n\
        #HELP is not a comment with a meaning\n\
        \t up 1\n\
        up{} 2 1234\n\
        up { job = \"a b\" , x=\"\\\"\\\\\\n\\t\" , } NaN\n\
        up{a=\"1\"b=\"2\"} +Inf\n\
        {\"utf.8 name\",\"label name\"=\"ü\",empty=\"\"} -0.5 \t\n\
        two_lines{a=\"x\ny\"} 1\n\
        last 5";
    assert_eq!(
        samples(text, PROMETHEUS),
        [
            "up 1",
            "up 2 @1234",
            "up{job=\"a b\", x=\"\\\"\\\\\\n\\\\t\"} NaN",
            "up{a=\"1\", b=\"2\"} inf",
            "{\"utf.8 name\", \"label name\"=\"ü\"} -0.5",
            "two_lines{a=\"x\\ny\"} 1",
            "last 5",
        ]
    );
    let entries = parse(text, PROMETHEUS).unwrap();
    assert_eq!(entries[0], Entry::Help("up".into(), "The target\n\\ is \\\"up\\\".".into()));
    assert_eq!(entries[1], Entry::Type("up".into(), MetricKind::Gauge));
    assert_eq!(parse("# HELP up\n# TYPE x untyped", PROMETHEUS).unwrap().len(), 2);
}

#[test]
fn lines_of_open_metrics_are_read_as_by_prometheus() {
    let text = "# TYPE a counter\n\
        # UNIT a_seconds seconds\n\
        # HELP a text\n\
        a_total{x=\"y\"} 1 1.5 # {id=\"7\"} 0.25 1726839814.5\n\
        a_total 2 # {} 3\n\
        {\"b\"} 4 0.001\n\
        # EOF\n";
    assert_eq!(
        samples(text, OPEN_METRICS),
        ["a_total{x=\"y\"} 1 @1500 # {id=\"7\"} 0.25 @1726839814500", "a_total 2 # {} 3", "b 4 @1",]
    );
    let entries = parse(text, OPEN_METRICS).unwrap();
    assert_eq!(entries[1], Entry::Unit("a_seconds".into(), "seconds".into()));
}

#[test]
fn mistakes_are_refused_with_their_line() {
    let check = |text: &str, format: TextFormat, expected: &str| {
        assert_eq!(parse(text, format).unwrap_err(), expected, "{text:?}");
    };
    check("up 1\nup\n", PROMETHEUS, "line 2: expected a value, found \"\"");
    check("up one\n", PROMETHEUS, "line 1: \"one\" is not a number");
    check("up 1 x\n", PROMETHEUS, "line 1: \"x\" is not a timestamp");
    check("up 1 -5\n", PROMETHEUS, "line 1: \"-5\" is not a timestamp");
    check("up 1 2 3\n", PROMETHEUS, "line 1: expected the end of the line, found \"3\"");
    check("a{b=\"x\ny\"} 1\nup{job} 1\n", PROMETHEUS, "line 3: expected \"=\", found \"} 1\"");
    check("up{job=api} 1\n", PROMETHEUS, "line 1: expected a quoted value, found \"api} 1\"");
    check("up{job=\"api} 1\n", PROMETHEUS, "line 1: expected a quoted value, found \"\\\"api} 1\"");
    check("{job=\"api\"} 1\n", PROMETHEUS, "line 1: a series has no name");
    check("up{\"down\"} 1\n", PROMETHEUS, "line 1: a series has two names");
    check("1up 1\n", PROMETHEUS, "line 1: expected a series, found \"1up 1\"");
    check("# TYPE up info\n", PROMETHEUS, "line 1: \"info\" is not a type of metrics");
    check("<html>\n", PROMETHEUS, "line 1: expected a series, found \"<html>\"");
    check("up 1\n", OPEN_METRICS, "line 2: the exposition does not end with # EOF");
    check("up 1\n# EOF\nup 1\n", OPEN_METRICS, "line 2: there is more after # EOF");
    check("\n# EOF\n", OPEN_METRICS, "line 1: expected a series, found \"\"");
    check("up  1\n# EOF\n", OPEN_METRICS, "line 1: expected a value, found \" 1\"");
    check(
        "# a comment\n# EOF\n",
        OPEN_METRICS,
        "line 1: expected HELP, TYPE, UNIT or EOF, found \"# a comment\"",
    );
    check(
        "up{a=\"1\"b=\"2\"} 1\n# EOF\n",
        OPEN_METRICS,
        "line 1: expected \",\" or \"}\", found \"b=\\\"2\\\"} 1\"",
    );
    check("# HELP up\n# EOF\n", OPEN_METRICS, "line 1: expected a space and a text, found \"\"");
    check("# UNIT up s\n# EOF\n", OPEN_METRICS, "line 1: unit \"s\" is not a suffix of metric \"up\"");
    check("up 1 NaN\n# EOF\n", OPEN_METRICS, "line 1: \"NaN\" is not a timestamp");
    let twice = series_labels(b"up{a=\"1\",a=\"2\"}", PROMETHEUS).unwrap_err().to_string();
    assert_eq!(twice, "line 1: label \"a\" occurs twice in one label set");
    let bytes = series_labels(b"up{a=\"\xff\"}", PROMETHEUS).unwrap_err().to_string();
    assert_eq!(bytes, "line 1: the value of a label is not valid UTF-8");
}

/// Other projects' expositions; none if the folder does not exist.
fn recorded() -> Vec<(String, String)> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(root.join("scrape")) else {
        println!("skipped: there is no folder scrape in {}", root.display());
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Each line of the recorded expositions is read as it stands: label by label, and number by number.
#[test]
fn recorded_expositions_are_read_line_by_line() {
    for (path, text) in recorded() {
        let format = if path.ends_with(".om.txt") { OPEN_METRICS } else { PROMETHEUS };
        // A recorded file may be the beginning of an exposition, and may end without a line feed.
        let cut = format == OPEN_METRICS && !text.trim_end().ends_with("# EOF");
        let whole = if cut { text.clone() + "# EOF\n" } else { text.clone() };
        let entries = parse(&whole, format).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut lines = text.lines().filter(|line| !line.is_empty() && *line != "# EOF");
        let mut kinds = BTreeMap::new();
        for entry in entries {
            let line = lines.next().unwrap();
            match entry {
                Entry::Help(metric, help) => {
                    let shown = help.replace('\\', "\\\\").replace('\n', "\\n");
                    assert_eq!(format!("# HELP {metric} {shown}"), line, "{path}");
                }
                Entry::Type(metric, kind) => {
                    assert!(line.starts_with(&format!("# TYPE {metric} ")), "{path}: {line}");
                    *kinds.entry(format!("{kind:?}")).or_insert(0) += 1;
                }
                Entry::Unit(metric, unit) => assert_eq!(format!("# UNIT {metric} {unit}"), line, "{path}"),
                Entry::Sample(sample) => {
                    let series = std::str::from_utf8(sample.series).unwrap();
                    let rest = line.strip_prefix(series).unwrap();
                    let mut parts = rest.split_whitespace();
                    let value: f64 = parts.next().unwrap().parse().unwrap();
                    assert!(
                        value == sample.value || value.is_nan() && sample.value.is_nan(),
                        "{path}: {line}"
                    );
                    assert_eq!(sample.exemplar.is_some(), rest.contains(" # {"), "{path}: {line}");
                    let labels = series_labels(sample.series, format).unwrap();
                    let name = series.split('{').next().unwrap();
                    assert_eq!(labels.metric_name(), name, "{path}: {line}");
                    let shown: usize =
                        labels.iter().map(|label| label.name.len() + label.value.len() + 4).sum();
                    let empty = series.matches("=\"\"").count();
                    assert!(empty > 0 || series.contains('\\') || shown >= series.len(), "{path}: {line}");
                }
            }
        }
        assert_eq!(lines.next(), None, "{path}");
        println!("{path}: {kinds:?}");
    }
}

#[test]
fn random_bytes_are_read_or_refused_and_the_parser_ends() {
    let mut state = 3u64;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % bound
    };
    let lines = [
        "# HELP up text\n",
        "# TYPE up gauge\n",
        "up{job=\"a\\\"b\",x=\"\"} 1.5 123\n",
        "{\"a b\",c=\"d\"} NaN\n",
        "a_total 2 1.5 # {id=\"7\"} 3 4\n",
        "# EOF\n",
    ];
    let alphabet = b"{}\"\\=, \t\n#aT1.eE+-:_\xff\0";
    for round in 0..20_000 {
        let mut text: Vec<u8> = (0..next(5)).flat_map(|_| lines[next(lines.len())].bytes()).collect();
        for _ in 0..next(6) {
            let byte = alphabet[next(alphabet.len())];
            match text.len() {
                0 => text.push(byte),
                length if next(2) == 0 => text.insert(next(length + 1), byte),
                length => text[next(length)] = byte,
            }
        }
        for format in [PROMETHEUS, OPEN_METRICS] {
            let entries = TextParser::new(&text, format).take(1_000).collect::<Vec<_>>();
            assert!(entries.len() < 100, "round {round}");
            for entry in entries.into_iter().flatten() {
                if let Entry::Sample(sample) = entry {
                    let _ = series_labels(sample.series, format);
                    if let Some(exemplar) = sample.exemplar {
                        let _ = exemplar_labels(exemplar.labels, format);
                    }
                    let _ = exemplar_labels(sample.series, format);
                }
            }
        }
    }
}

#[test]
fn labels_of_exemplars_have_no_name() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let read = exemplar_labels(text.as_bytes(), OPEN_METRICS);
        let read = read.map(|labels| labels.to_string()).map_err(|error| error.problem.to_string());
        assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text}");
    };
    check("{}", Ok("{}"));
    check(r#"{trace="a",span="\"b\""}"#, Ok(r#"{span="\"b\"", trace="a"}"#));
    check(r#"{"a"}"#, Err("a series has two names"));
    check(r#"{a="1"} 5"#, Err("expected the end of the labels, found \" 5\""));
    check("a", Err("expected the labels of an exemplar, found \"a\""));
}
