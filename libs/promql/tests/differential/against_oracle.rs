//! Compares the engine with the slow evaluator.

use std::time::Duration;

use model::Timestamp;
use promql::syntax::ast::Expr;
use promql::syntax::functions::{FunctionId, ValueType};
use promql::{EngineOptions, ParseOptions, QueryParams, QueryValue, SampleValue, parse};

use crate::compare::{answer, difference, same};
use crate::data::{Data, LENGTH};
use crate::engine::{ask, identical, options};
use crate::expression::{Dialect, ExpressionWriter};
use crate::oracle::{Answer, Oracle};
use crate::random::Random;
use crate::setting;

/// Number of expressions per random data set.
const PER_DATA: u64 = 50;
/// If results differ, this many other roundings are tried.
const SHAKES: u64 = 12;

/// The result of comparing one expression.
#[derive(Clone, Debug, PartialEq)]
enum OracleVerdict {
    /// Both returned the same values, at least one.
    Same,
    /// Both returned no value.
    Empty,
    /// Both failed for the same kind of reason.
    BothFailed,
    /// They differ. But the slow evaluator's own results also differ if it rounds differently, or if it
    /// orders differently what Prometheus leaves unordered.
    Undecided,
    /// They differ.
    Different(String),
}

#[test]
fn random_queries_agree_with_the_slow_evaluator() {
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000), setting("ISTHMUS_SEED", 1));
    let mut counts = [0u64; 5];
    let mut failures = Vec::new();
    for chunk in 0..count.div_ceil(PER_DATA) {
        let mut random = Random::for_case(seed, chunk);
        // A batch of a worker has 128 series, so some data sets have more.
        let instances = if chunk % 20 == 7 { 90 } else { 3 };
        let data = Data::random(&mut random, instances);
        let series = data.selected(&mut random);
        for case in 0..PER_DATA.min(count - chunk * PER_DATA) {
            let mut random = Random::for_case(random.next(), case);
            let (text, params) = query(&mut random);
            let outcome = check(&text, &params, &data, &series, &mut random);
            counts[match &outcome {
                OracleVerdict::Same => 0,
                OracleVerdict::Empty => 1,
                OracleVerdict::BothFailed => 2,
                OracleVerdict::Undecided => 3,
                OracleVerdict::Different(_) => 4,
            }] += 1;
            if let OracleVerdict::Different(why) = outcome {
                let times = (params.start, params.end, params.step, params.lookback);
                println!("# seed {seed}, data {chunk}, case {case}: {text}\n# {times:?}: {why}");
                if failures.is_empty() {
                    println!("{}", data.notation(&text));
                }
                failures.push(text);
                assert!(failures.len() < 20, "seed {seed}: too many differences: {failures:#?}");
            }
        }
    }
    let [same, empty, rejected, undecided, different] = counts;
    println!(
        "seed {seed}: {count} expressions: {same} with equal values, {empty} both empty, {rejected} both failed, \
         {undecided} undecided, {different} different"
    );
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
    assert!(same * 2 > count, "expected values for most expressions");
    assert!(undecided * 200 <= count + 1000, "expected few expressions that depend on rounding");
}

/// A random expression and its parameters.
fn query(random: &mut Random) -> (String, QueryParams) {
    let params = params(random);
    let is_instant = params.step.is_none();
    let as_range = is_instant && random.percent(5);
    let mut writer = ExpressionWriter::new(random, Dialect::Full, (0, LENGTH));
    (if as_range { writer.range_query() } else { writer.query() }, params)
}

/// Random times for an evaluation.
pub(crate) fn params(random: &mut Random) -> QueryParams {
    let start = random.between(-60, LENGTH / 500) * 500;
    let mut params = if random.percent(40) {
        QueryParams::instant(Timestamp::from_millis(start))
    } else {
        let step = random.pick(&[1000, 7000, 15_000, 15_000, 30_000, 60_000, 60_000, 300_000]);
        // Not always a multiple of the step.
        let end = start + step * random.between(0, 9) + random.pick(&[0, 0, 500]);
        let [start, end] = [start, end].map(Timestamp::from_millis);
        QueryParams::range(start, end, Duration::from_millis(step as u64))
    };
    if random.percent(10) {
        params.lookback = Duration::from_secs(random.pick(&[17, 60, 1000]));
    }
    params
}

/// Evaluates an expression with both and compares the results.
fn check(
    text: &str,
    params: &QueryParams,
    data: &Data,
    series: &[series::SelectedSeries],
    random: &mut Random,
) -> OracleVerdict {
    let expr = match parse(text, &ParseOptions::ALL) {
        Ok(expr) => expr,
        Err(error) => return OracleVerdict::Different(format!("it is rejected: {error}")),
    };
    let delayed = random.percent(40);
    let found = ask(text, params, series, &options(delayed, 1), random);
    if !identical(&found, &ask(text, params, series, &options(delayed, 3), random)) {
        return OracleVerdict::Different("it differs between one worker and three".to_owned());
    }
    let oracle = Oracle::new(data, params, delayed);
    let expected = oracle.answer(&expr);
    let found_answer = found.as_ref().map(answer).map_err(ToString::to_string);
    let propagating = EngineOptions { propagate_matchers: true, ..options(delayed, 2) };
    let carried = ask(text, params, series, &propagating, random);
    let carried = carried.as_ref().map(answer).map_err(ToString::to_string);
    let with_carried =
        |expected| disagreement(expected, &carried).map(|why| format!("with propagated matchers: {why}"));
    let why = disagreement(&expected, &found_answer).or_else(|| with_carried(&expected));
    let Some(why) = why else {
        return match (&expected, &found) {
            (Err(_), _) | (_, Err(_)) => OracleVerdict::BothFailed,
            (Ok(expected), Ok(output)) => match misplaced(&expr, params, &oracle, &output.value) {
                Some(why) => OracleVerdict::Different(why),
                None if expected.is_empty() => OracleVerdict::Empty,
                None => OracleVerdict::Same,
            },
        };
    };
    let shaken = (0..SHAKES).map(|seed| Oracle::shaken(data, params, delayed, seed).answer(&expr));
    // If an expression has several errors, either may be reported.
    let reasons = [expected.as_ref().err(), found_answer.as_ref().err()];
    let undecided = oracle.is_open()
        || reasons.iter().all(|reason| reason.is_some_and(|error| kind(error).is_some()))
        || shaken.into_iter().any(|other| match (&expected, &other) {
            (Ok(expected), Ok(other)) => difference(expected, other, same).is_some(),
            (expected, other) => expected.is_ok() != other.is_ok(),
        });
    if undecided { OracleVerdict::Undecided } else { OracleVerdict::Different(why) }
}

/// The kind of an error message. `None` if random expressions should not cause this error.
fn kind(error: &str) -> Option<&'static str> {
    // If a join has two errors, either may be reported.
    const KINDS: [(&str, &str); 6] = [
        ("same labelset", "equal labels"),
        ("duplicate series for the match group", "join"),
        ("multiple matches", "join"),
        ("is NaN", "parameter"),
        ("between floats only", "smoothed histograms"),
        ("is not supported with histograms", "smoothed histograms"),
    ];
    KINDS.iter().find(|(part, _)| error.contains(part)).map(|(_, kind)| *kind)
}

/// How a result differs from the expected one, or `None`.
fn disagreement(expected: &Result<Answer, String>, found: &Result<Answer, String>) -> Option<String> {
    match (expected, found) {
        (Ok(expected), Ok(found)) => difference(expected, found, same),
        (Err(error), Err(other)) if kind(error).is_some() && kind(error) == kind(other) => None,
        (Err(error), Err(other)) => Some(format!("expected the error {error:?}, found {other:?}")),
        (Err(error), Ok(_)) => Some(format!("expected the error {error:?}")),
        (Ok(_), Err(error)) => Some(format!("unexpected error {error:?}")),
    }
}

/// How the order of a sorted instant vector is wrong, or `None`.
fn misplaced(expr: &Expr, params: &QueryParams, oracle: &Oracle<'_>, value: &QueryValue) -> Option<String> {
    let sorted = matches!(expr, Expr::Call(call) if matches!(call.function.id, FunctionId::Sort | FunctionId::SortDesc));
    let QueryValue::Vector(samples) = value else { return None };
    if !sorted || params.step.is_some() || expr.value_type() != ValueType::Vector {
        return None;
    }
    let found: Vec<f64> = samples
        .iter()
        .filter_map(|sample| match &sample.value {
            SampleValue::Float(value) => Some(*value),
            SampleValue::Histogram(_) => None,
        })
        .collect();
    let expected = oracle.ordered(expr).ok()?;
    let in_order = found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| same(*a, *b));
    (!in_order).then(|| format!("expected the order {expected:?}, found {found:?}"))
}
