//! Compares the engine and the slow evaluator with Prometheus 2.42, for expressions that Prometheus 3
//! computes in the same way.
//!
//! The queries avoid the difference between left-open and left-closed windows: samples are a quarter of a
//! second after full seconds, queries are evaluated at half seconds, and subqueries at full seconds. No
//! window begins before the data.

use std::time::Duration;

use model::Timestamp;
use promql::{ParseOptions, QueryParams, parse};

use crate::compare::{answer, difference, same_number};
use crate::data::{Data, LENGTH};
use crate::engine::{ask, options};
use crate::expression::{Dialect, ExpressionWriter};
use crate::oracle::{Answer, Oracle};
use crate::prometheus::Prometheus;
use crate::random::Random;
use crate::setting;

/// Time of the first sample: at a boundary between blocks.
const BEGIN: i64 = 1_790_000_000 / 7200 * 7200 * 1000;
/// Evaluations start this long after the first sample, which is more than windows and offsets reach back.
const REACH: i64 = 30 * 60_000;
/// If results differ, this many other roundings are tried.
const SHAKES: u64 = 12;

#[test]
fn random_queries_agree_with_a_real_prometheus() {
    // A query against a process takes several times as long.
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000) / 5, setting("ISTHMUS_SEED", 1));
    let mut random = Random::new(seed);
    let data = Data::old(&mut random, BEGIN);
    let Some(prometheus) = Prometheus::start(&data.exposition()) else {
        println!("skipped: random queries of a real Prometheus (no prometheus on the PATH)");
        return;
    };
    let series = data.selected(&mut random);
    let (mut same, mut rejected, mut undecided) = (0, 0, 0);
    let mut failures = Vec::new();
    for case in 0..count {
        let mut random = Random::for_case(seed, case);
        let (text, params) = query(&mut random);
        let Ok(expected) = prometheus.ask(&text, &params) else {
            // Prometheus also checks for equal labels in intermediate results.
            rejected += 1;
            continue;
        };
        let found =
            ask(&text, &params, &series, &options(false, 2), &mut random).map(|output| answer(&output));
        let expr = parse(&text, &ParseOptions::ALL).expect("it has been evaluated");
        let oracle = Oracle::new(&data, &params, false);
        let slow = oracle.answer(&expr);
        let why = match (&found, &slow) {
            (Err(_), Err(_)) => {
                // Prometheus 3 also rejects repeated matches for which the comparison is false.
                rejected += 1;
                continue;
            }
            (Err(error), _) => Some(format!("unexpected error {error}")),
            (_, Err(error)) => Some(format!("unexpected error of the slow evaluator: {error}")),
            (Ok(found), Ok(slow)) => differs(&expected, found)
                .or_else(|| differs(&expected, slow).map(|why| format!("the slow evaluator: {why}"))),
        };
        let Some(why) = why else {
            same += 1;
            continue;
        };
        let shaken = |seed| Oracle::shaken(&data, &params, false, seed).answer(&expr).ok();
        let moves = |other: Answer| slow.as_ref().is_ok_and(|slow| differs(slow, &other).is_some());
        if oracle.is_open() || (0..SHAKES).filter_map(shaken).any(moves) {
            undecided += 1;
            continue;
        }
        println!(
            "# seed {seed}, case {case}: {text}\n# {:?} to {:?}, {:?}: {why}",
            params.start, params.end, params.step
        );
        failures.push(text);
        assert!(failures.len() < 20, "seed {seed}: too many differences: {failures:#?}");
    }
    println!(
        "seed {seed}: {count} expressions asked of Prometheus: {same} the same, {rejected} rejected, \
         {undecided} undecided, {} different",
        failures.len()
    );
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
    assert!(same * 10 >= count * 8, "expected to compare most expressions");
}

/// How results differ, or `None`. Ignores the sign of zeros, which 2.42 sometimes computes differently.
fn differs(expected: &Answer, found: &Answer) -> Option<String> {
    difference(expected, found, same_number)
}

/// A random expression and its parameters.
fn query(random: &mut Random) -> (String, QueryParams) {
    let start = BEGIN + random.between(REACH / 1000, LENGTH / 1000 - 300) * 1000 + 500;
    let step = random.pick(&[15_000, 30_000, 60_000, 37_000]);
    let end = start + step * random.between(0, 4);
    let [from, to] = [start, end].map(Timestamp::from_millis);
    let params = if random.percent(50) {
        QueryParams::instant(from)
    } else {
        QueryParams::range(from, to, Duration::from_millis(step as u64))
    };
    let pins = (BEGIN + REACH, BEGIN + LENGTH - 60_000);
    (ExpressionWriter::new(random, Dialect::Old, pins).query(), params)
}
