//! Joins of series that are present at different times, and the errors if their times overlap.

use super::*;
use crate::promqltest::Script;

fn check(script: &str) {
    let report = Script::parse(script).unwrap().run();
    let failures: Vec<String> =
        report.failures.iter().map(|f| format!("{}: {}", f.query, f.message)).collect();
    assert!(failures.is_empty() && report.evaluations > 0, "{failures:#?}");
}

/// Three series of one group, each present after the other has ended.
const IN_TURN: &str = "
load 1m
  many{x=\"a\"} 1+1x5
  many{x=\"b\"} _ 7 7 stale
  one{n=\"1\"} 10 10 stale
  one{n=\"2\"} _ _ 20 20 stale
  one{n=\"3\"} _ _ _ _ 30 stale
";

#[test]
fn matching_series_may_alternate_over_time() {
    check(&format!(
        "{IN_TURN}
eval range from 0 to 5m step 1m many * on () group_left () one
  {{x=\"a\"}} 10 20 60 80 150 _
  {{x=\"b\"}} _ 70 140 _ _ _

eval range from 0 to 5m step 1m many * on () group_left (n) one
  {{n=\"1\", x=\"a\"}} 10 20 _ _ _ _
  {{n=\"2\", x=\"a\"}} _ _ 60 80 _ _
  {{n=\"3\", x=\"a\"}} _ _ _ _ 150 _
  {{n=\"1\", x=\"b\"}} _ 70 _ _ _ _
  {{n=\"2\", x=\"b\"}} _ _ 140 _ _ _

eval range from 0 to 5m step 1m many{{x=\"a\"}} - on () one
  {{}} -9 -8 -17 -16 -25 _
"
    ));
}

#[test]
fn fill_values_are_used_between_matching_series() {
    check(
        "
load 1m
  many{x=\"a\"} 1+1x3
  one{n=\"1\"} 10 stale
  one{n=\"2\"} _ _ 20 stale
  one{n=\"3\", other=\"y\"} _ 30 stale

eval range from 0 to 3m step 1m many * on (other) group_left (n) fill_right (100) one
  {n=\"1\", x=\"a\"} 10 _ _ _
  {n=\"2\", x=\"a\"} _ _ 60 _
  {x=\"a\"} _ 200 _ 400

eval range from 0 to 3m step 1m many * on (other) group_left (n) fill_left (5) one
  {n=\"1\", x=\"a\"} 10 _ _ _
  {n=\"2\", x=\"a\"} _ _ 60 _
  {n=\"3\", other=\"y\"} _ 150 _ _
",
    );
}

#[test]
fn the_error_of_the_first_step_is_reported() {
    let text = "many * on () group_left () one";
    let load = "
load 1m
  many{x=\"a\"} _ _ _ 1 1
  many{x=\"b\"} _ 1 1 1 1
  one{n=\"1\"} 1 1 1 1 1
  one{n=\"2\"} _ _ _ 1 1
  one{n=\"3\"} _ 1 stale
";
    check(&format!(
        "{load}
eval range from 0 to 4m step 1m {text}
  expect fail msg: found duplicate series for the match group {{}} on the right hand-side of the operation: [{{__name__=\"one\", n=\"1\"}}, {{__name__=\"one\", n=\"3\"}}];many-to-many matching not allowed: matching labels must be unique on one side

eval range from 2m to 4m step 1m {text}
  expect fail msg: found duplicate series for the match group {{}} on the right hand-side of the operation: [{{__name__=\"one\", n=\"1\"}}, {{__name__=\"one\", n=\"2\"}}];many-to-many matching not allowed: matching labels must be unique on one side

eval range from 1m to 4m step 1m many{{x=\"b\"}} + on () many
  expect fail msg: found duplicate series for the match group {{}} on the right hand-side of the operation: [{{__name__=\"many\", x=\"a\"}}, {{__name__=\"many\", x=\"b\"}}];many-to-many matching not allowed: matching labels must be unique on one side

eval range from 1m to 4m step 1m many + on () one{{n=\"1\"}}
  expect fail msg: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)

eval range from 1m to 4m step 1m many + on () one{{n!=\"3\"}}
  expect fail msg: found duplicate series for the match group {{}} on the right hand-side of the operation: [{{__name__=\"one\", n=\"1\"}}, {{__name__=\"one\", n=\"2\"}}];many-to-many matching not allowed: matching labels must be unique on one side
"
    ));
}

/// `count` series of a metric. Each has a single sample, all at different times.
fn in_turn(count: i64) -> Vec<SelectedSeries> {
    let series = |n: i64| {
        let mut encoder = XorEncoder::new();
        encoder.append(Sample::new(n * STEP, 1.0)).unwrap();
        encoder.append(Sample::new((n + 1) * STEP, model::stale_nan())).unwrap();
        let name = format!("{n:05}");
        let labels = Labels::from_pairs([("__name__", "leader"), ("name", name.as_str())]).unwrap();
        SelectedSeries { labels, replicas: vec![vec![AggrChunk::raw(encoder.finish().unwrap())]] }
    };
    (0..count).map(series).collect()
}

#[test]
fn joins_of_alternating_series_take_linear_time() {
    let (many, ones) = (counters(300), in_turn(300));
    let end = Timestamp::from_millis(299 * STEP);
    let interrupt = Interrupt::counting();
    let params = QueryParams {
        interrupt: interrupt.clone(),
        ..QueryParams::range(Timestamp::EPOCH, end, Duration::from_secs(15))
    };
    let query = Query::plan("requests_total * on () group_left () leader", &params, &engine()).unwrap();
    let selects = query.selects().to_vec();
    let mut evaluation = query.evaluation();
    while let Some(id) = evaluation.next_select() {
        let leaders = selects[id.index()].matchers.iter().any(|m| m.value() == "leader");
        evaluation.push(id, if leaders { ones.clone() } else { many.clone() }).unwrap();
        evaluation.end_select(id).unwrap();
    }
    let output = evaluation.finish().unwrap();
    let QueryValue::Matrix(rows) = &output.value else { panic!("not a matrix") };
    assert_eq!(rows.len(), 300);
    assert!(interrupt.checks() < 20 * 600, "{} checks for cancellation", interrupt.checks());
    // The columns of the result, with their samples. The other side is a single column.
    let columns = 300 * 300 * 24;
    assert!(output.stats.peak_bytes < 3 * columns, "{} bytes", output.stats.peak_bytes);
}

#[test]
fn fill_values_on_both_sides_do_not_match_each_other() {
    check(
        "
load 1m
  many{x=\"a\"} 1 stale
  many{x=\"b\"} _ _ 3 stale
  one{n=\"1\"} 10 10 stale
  one{n=\"2\", other=\"y\"} _ 20 stale

eval range from 0 to 3m step 1m many * on (other) fill (100) one
  {} 10 1000 300 _
  {other=\"y\"} _ 2000 _ _

eval range from 0 to 3m step 1m many * on (x) fill_right (100) one{n=\"1\"}
  {x=\"a\"} 100 _ _ _
  {x=\"b\"} _ _ 300 _
",
    );
}

/// Evaluates a query with `many` counters and `ones` alternating series of a metric. Returns the number of
/// rows and the peak memory.
fn evaluate_in_turn(text: &str, many: usize, ones: i64, engine: &EngineOptions) -> (usize, u64) {
    let end = Timestamp::from_millis((ones - 1) * STEP);
    let range = QueryParams::range(Timestamp::EPOCH, end, Duration::from_secs(15));
    let mut evaluation = Query::plan(text, &range, engine).unwrap().evaluation();
    while let Some(id) = evaluation.next_select() {
        let leaders = evaluation.select(id).matchers.iter().any(|m| m.value() == "leader");
        evaluation.push(id, if leaders { in_turn(ones) } else { counters(many) }).unwrap();
        evaluation.end_select(id).unwrap();
    }
    let output = evaluation.finish().unwrap();
    let QueryValue::Matrix(rows) = &output.value else { panic!("not a matrix") };
    (rows.len(), output.stats.peak_bytes)
}

#[test]
fn empty_results_are_released_when_their_series_end() {
    let text = "requests_total < on () group_left (name) (leader - 10)";
    let (rows, peak) = evaluate_in_turn(text, 120, 300, &engine());
    // Each of the 120 series begins a result for each of its 80 partners.
    let (begun, steps) = (80 * 300 * 8, 300 * 8);
    assert!(rows == 0 && peak < 12 * begun + 300 * steps, "{rows} series, {peak} bytes");
}

#[test]
fn memory_for_fill_values_is_reserved() {
    let peak = |fill: &str| {
        evaluate_in_turn(
            &format!("count by (job) (requests_total) * on (name) {fill} leader"),
            1,
            3000,
            &engine(),
        )
        .1
    };
    let column = 3000 * 8;
    assert!(peak("fill_right (0)") >= peak("") + column);
}
