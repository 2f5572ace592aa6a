//! Info series: which series are selected, and when.

use super::*;
use crate::promqltest::Storage;
use crate::select::Select;

fn storage(lines: &[&str]) -> Storage {
    let mut storage = Storage::new();
    for line in lines {
        let (labels, values) = crate::promqltest::parse_series(line).unwrap();
        storage.append_sequence(&labels, Timestamp::EPOCH, 60_000, &values).unwrap();
    }
    storage
}

/// Evaluates a query from 0 to 4 minutes. Returns the result as lines of a script, or the error, and all
/// selects.
fn ask(storage: &Storage, text: &str) -> (Result<Vec<String>, String>, Vec<Select>) {
    let (end, step) = (Timestamp::from_millis(240_000), Duration::from_secs(60));
    let query = Query::plan(text, &QueryParams::range(Timestamp::EPOCH, end, step), &engine()).unwrap();
    let mut evaluation = query.evaluation();
    let mut asked = Vec::new();
    let run = || -> Result<QueryOutput, QueryError> {
        while let Some(id) = evaluation.next_select() {
            let select = evaluation.select(id).clone();
            assert!(!select.late, "{text}: the next select is known");
            evaluation.push(id, storage.select(&select.matchers, select.range))?;
            evaluation.end_select(id)?;
            asked.push(select);
        }
        evaluation.finish()
    };
    let value = run().map_err(|error| error.to_string()).map(|output| {
        let QueryValue::Matrix(rows) = output.value else { panic!("{text} does not return a matrix") };
        let line = |row: &crate::MatrixSeries| {
            let value = |minute: i64| {
                let at = Timestamp::from_millis(minute * 60_000);
                row.floats.iter().find(|s| s.timestamp == at).map_or("_".to_owned(), |s| s.value.to_string())
            };
            format!("{} {}", row.labels, (0..5).map(value).collect::<Vec<_>>().join(" "))
        };
        rows.iter().map(line).collect()
    });
    (value, asked)
}

/// The matchers of the last select.
fn last(asked: &[Select]) -> Vec<String> {
    asked.last().unwrap().matchers.iter().map(ToString::to_string).collect()
}

#[test]
fn info_series_are_selected_by_instance_and_job_of_the_vector() {
    let storage = storage(&[
        r#"m{instance="a.b:1",job="x"} 1x4"#,
        r#"m{instance="c",job="x"} 2x4"#,
        r#"m{pod="p"} 3x4"#,
        r#"target_info{instance="a.b:1",job="x",v="1"} 1x4"#,
        r#"target_info{instance="a-b:1",job="x",v="no"} 1x4"#,
        // These histograms and duplicates do not match any series of the vector.
        r#"target_info{instance="other",job="x",v="3"} {{count:1}}x4"#,
        r#"target_info{instance="other",job="y",v="4"} 1x4"#,
        r#"target_info{instance="other",job="y",v="5"} 1x4"#,
    ]);
    let (value, asked) = ask(&storage, r#"info(m, {v=~".+"}) or info(m)"#);
    assert_eq!(
        value.unwrap(),
        [
            r#"m{instance="a.b:1", job="x", v="1"} 1 1 1 1 1"#,
            r#"m{instance="c", job="x"} 2 2 2 2 2"#,
            r#"m{pod="p"} 3 3 3 3 3"#,
        ]
    );
    assert_eq!(asked.len(), 3, "the vectors share a select, each info metric has its own");
    let identity = [r#"instance=~"a\\.b:1|c""#, r#"job=~"x""#];
    assert_eq!(last(&asked), [&[r#"__name__="target_info""#], &identity[..]].concat());
    let with_data = [&[r#"__name__="target_info""#, r#"v=~".+""#], &identity[..]].concat();
    assert_eq!(asked[1].matchers.iter().map(ToString::to_string).collect::<Vec<_>>(), with_data);
}

#[test]
fn vectors_without_identifying_labels_select_no_info_series() {
    let storage = storage(&[
        r#"m{pod="p"} 1x4"#,
        r#"target_info{instance="a"} 1x4"#,
        r#"target_info{pod="p",v="1"} 1x4"#,
    ]);
    for (text, expected) in [
        ("info(m)", &[r#"m{pod="p"} 1 1 1 1 1"#][..]),
        ("info(none)", &[]),
        (r#"info(m, {v=~".+"})"#, &[]),
        (r#"info(m, {v!~"2"})"#, &[r#"m{pod="p"} 1 1 1 1 1"#]),
        // An info series is returned unchanged.
        (r#"info(target_info{instance="a"})"#, &[r#"target_info{instance="a"} 1 1 1 1 1"#]),
        ("sum(info(m)) + on () info(vector(1))", &["{} 2 2 2 2 2"]),
        ("max_over_time(info(m)[2m:1m])", &[r#"{pod="p"} 1 1 1 1 1"#]),
        ("info(info(m))", &[r#"m{pod="p"} 1 1 1 1 1"#]),
    ] {
        let (value, asked) = ask(&storage, text);
        assert_eq!(value.unwrap(), expected, "{text}");
        assert!(asked.len() <= 1, "{text} selects {asked:?}");
    }
}

#[test]
fn late_selects_reject_series_that_are_pushed_early() {
    let query = Query::plan("info(m)", &params(), &engine()).unwrap();
    assert_eq!(query.selects().iter().map(|select| select.late).collect::<Vec<_>>(), [false, true]);
    let mut evaluation = query.evaluation();
    let [base, infos] = [SelectId(0), SelectId(1)];
    assert!(evaluation.select(infos).late);
    evaluation.push(base, counters(1)).unwrap();
    evaluation.end_select(base).unwrap();
    assert!(!evaluation.select(infos).late);
    evaluation.end_select(infos).unwrap();
    evaluation.finish().unwrap();

    for early in [
        |e: &mut Evaluation| e.push(SelectId(1), counters(1)),
        |e: &mut Evaluation| e.end_select(SelectId(1)),
    ] {
        let mut evaluation = Query::plan("info(m)", &params(), &engine()).unwrap().evaluation();
        assert!(early(&mut evaluation).is_err());
    }
}

#[test]
fn duplicate_info_series_fail_even_without_a_matching_series() {
    // Prometheus selects by instances and by jobs separately, so it also receives the combination of a and y.
    let series = [
        r#"m{instance="a",job="x"} 1 1 _ _ _"#,
        r#"m{instance="b",job="y"} 1 1 _ _ _"#,
        r#"target_info{instance="a",job="y",v="1"} 1x4"#,
    ];
    let duplicate = r#"target_info{instance="a",job="y",v="2"} 1x4"#;
    let (value, _) = ask(&storage(&[&series[..], &[duplicate]].concat()), "info(m)");
    assert_eq!(
        value.unwrap_err(),
        r#"found duplicate series for info metric: existing target_info{instance="a", job="y", v="1"} @ 0, new target_info{instance="a", job="y", v="2"} @ 0"#
    );
    // The newer series wins, and duplicates are ignored at times at which the vector has no sample.
    let later = r#"target_info{instance="a",job="y",v="2"} _ 1 1 1 1"#;
    let [newer, ended] = [r#"target_info{instance="a",job="y",v="1"} 1 stale"#, later];
    assert!(ask(&storage(&[series[0], series[1], newer, ended]), "info(m)").0.is_ok());
    let silent = storage(&[r#"m{instance="a",job="x"} stale"#, series[2], duplicate]);
    assert_eq!(ask(&silent, "info(m)").0.unwrap(), Vec::<String>::new());
}

#[test]
fn a_single_identifying_label_is_enough_if_no_series_has_the_other() {
    let infos = [r#"target_info{job="x",v="1"} 1x4"#, r#"target_info{job="x",instance="a",v="2"} 1x4"#];
    let alone = storage(&[&[r#"m{job="x"} 1x4"#], &infos[..]].concat());
    let (value, asked) = ask(&alone, "info(m)");
    assert_eq!(value.unwrap(), [r#"m{job="x", v="1"} 1 1 1 1 1"#]);
    assert_eq!(last(&asked), [r#"__name__="target_info""#, r#"job=~"x""#]);
    // If another series has an instance, info series without one are not selected, as in Prometheus.
    let both = storage(&[&[r#"m{job="x"} 1x4"#, r#"m{job="x",instance="b"} 2x4"#], &infos[..]].concat());
    assert_eq!(
        ask(&both, "info(m)").0.unwrap(),
        [r#"m{instance="b", job="x"} 2 2 2 2 2"#, r#"m{job="x"} 1 1 1 1 1"#]
    );
}

#[test]
fn info_series_use_the_offset_of_the_first_selector() {
    let storage = storage(&[
        r#"m{job="x"} 1 2 3 4 5"#,
        r#"n{job="x"} 1 1 1 1 1"#,
        r#"target_info{job="x",v="old"} 1 1 stale"#,
        r#"target_info{job="x",v="new"} _ _ 1 1 1"#,
    ]);
    let versions = |text: &str| {
        let rows = ask(&storage, text).0.unwrap();
        rows.iter().map(|row| row.trim_start_matches("m").to_owned()).collect::<Vec<_>>()
    };
    let old = |values| format!(r#"{{job="x", v="old"}} {values}"#);
    let new = |values| format!(r#"{{job="x", v="new"}} {values}"#);
    assert_eq!(versions("info(m)"), [new("_ _ 3 4 5"), old("1 2 _ _ _")]);
    assert_eq!(versions("info(m @ 60)"), [old("2 2 2 2 2")]);
    assert_eq!(versions("info(m offset 1m)"), [new("_ _ _ 3 4"), old("_ 1 2 _ _")]);
    assert_eq!(versions("info(m * on (job) n @ 0)"), [new("_ _ 3 4 5"), old("1 2 _ _ _")]);
    // The first selector of an aggregation is the one in its vector, not the one in its parameter.
    assert_eq!(versions("info(topk(scalar(n @ 0), m))"), [new("_ _ 3 4 5"), old("1 2 _ _ _")]);
    assert_eq!(versions("max_over_time(info(m)[3m:1m])"), [new("_ _ 3 4 5"), old("1 2 2 2 _")]);
    assert_eq!(versions("info(last_over_time(m[1m:1m] offset 1m))"), [new("_ _ _ 3 4"), old("_ 1 2 _ _")]);
    assert_eq!(versions("sum by (v) (info(m)) * 2").len(), 2);
}

#[test]
fn memory_for_info_series_is_released_when_they_end() {
    let storage =
        storage(&[r#"m{instance="a",job="x"} 1x4"#, r#"target_info{instance="a",job="x",v="1"} 1x4"#]);
    let query = Query::plan("info(m)", &QueryParams::instant(Timestamp::EPOCH), &engine()).unwrap();
    let mut evaluation = query.evaluation();
    let known =
        |evaluation: &Evaluation| evaluation.readings.iter().filter(|r| r.identities.is_some()).count();
    let mut found = Vec::new();
    while let Some(id) = evaluation.next_select() {
        found.push(known(&evaluation));
        let select = evaluation.select(id).clone();
        evaluation.push(id, storage.select(&select.matchers, select.range)).unwrap();
        evaluation.end_select(id).unwrap();
    }
    assert_eq!((found, known(&evaluation)), (vec![0, 1], 0));
}
