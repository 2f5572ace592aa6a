//! The engine, and the slow evaluator, against Prometheus 2.42 where that computes as Prometheus 3 does.
//!
//! Nothing is asked that tells left-open from left-closed windows: samples lie a quarter of a second behind full seconds,
//! queries are evaluated at half seconds, and subqueries at full ones. No window begins before the data.

use std::time::Duration;

use model::Timestamp;
use promql::{ParseOptions, QueryParams, parse};

use crate::compare::{answer, difference, same_number};
use crate::data::{Data, LENGTH};
use crate::engine::{ask, options};
use crate::expression::{Dialect, Writer};
use crate::oracle::{Answer, Oracle};
use crate::prometheus::Prometheus;
use crate::random::Random;
use crate::setting;

/// First sample: at a border of blocks.
const BEGIN: i64 = 1_790_000_000 / 7200 * 7200 * 1000;
/// Evaluations begin this long after the data, further than windows and offsets reach back.
const REACH: i64 = 30 * 60_000;
/// Other ways of rounding that are tried where answers differ.
const SHAKES: u64 = 12;

#[test]
fn random_queries_agree_with_a_real_prometheus() {
    // A query takes several times as long here.
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000) / 5, setting("ISTHMUS_SEED", 1));
    let mut random = Random::new(seed);
    let data = Data::old(&mut random, BEGIN);
    let Some(prometheus) = Prometheus::start(&data.exposition()) else {
        println!("skipped: random queries of a real Prometheus (no prometheus on the PATH)");
        return;
    };
    let series = data.selected(&mut random);
    let (mut same, mut refused, mut undecided) = (0, 0, 0);
    let mut failures = Vec::new();
    for case in 0..count {
        let mut random = Random::for_case(seed, case);
        let (text, params) = query(&mut random);
        let Ok(expected) = prometheus.ask(&text, &params) else {
            // It looks for equal labels also where the answer is not yet made.
            refused += 1;
            continue;
        };
        let found =
            ask(&text, &params, &series, &options(false, 2), &mut random).map(|output| answer(&output));
        let expr = parse(&text, &ParseOptions::ALL).expect("it has been evaluated");
        let oracle = Oracle::new(&data, &params, false);
        let slow = oracle.answer(&expr);
        let why = match (&found, &slow) {
            (Err(_), Err(_)) => {
                // Prometheus 3 also refuses repeated matches whose comparison does not hold.
                refused += 1;
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
        "seed {seed}: {count} expressions asked of Prometheus: {same} the same, {refused} refused, \
         {undecided} undecided, {} different",
        failures.len()
    );
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
    assert!(same * 10 >= count * 8, "most expressions are compared");
}

/// What differs; 2.42 gives some zeros another sign.
fn differs(expected: &Answer, found: &Answer) -> Option<String> {
    difference(expected, found, same_number)
}

/// A random expression, and when it is evaluated.
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
    (Writer::new(random, Dialect::Old, pins).query(), params)
}
