//! Compares evaluations over series without the labels that a query does not need with evaluations over whole
//! series.

use std::time::Duration;

use model::{Labels, Timestamp};
use promql::syntax::functions::ValueType;
use promql::{ParseOptions, QueryParams, parse};
use series::SelectedSeries;

use crate::data::{Data, LENGTH};
use crate::engine::{Offer, ask, identical, offer, options};
use crate::expression::{Dialect, ExpressionWriter};
use crate::random::Random;
use crate::setting;

/// Number of expressions per random data set.
const PER_DATA: u64 = 50;

/// Half of the expressions are put in the place of `X` here, so that labels are not needed.
const AROUND: [&str; 8] = [
    "sum by (job) (X)",
    "count without (instance) (X)",
    "max by (code, instance) (X)",
    "quantile by (le) (0.5, X)",
    "count(topk by (job) (2, X))",
    "absent(X)",
    "sum by (job) (sort(X)) / on (job) count by (job) (X)",
    "max_over_time(sum by (code) (X)[5m:1m])",
];

#[test]
fn omitting_labels_that_are_not_needed_keeps_the_result() {
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000), setting("ISTHMUS_SEED", 1));
    let (mut trimmed, mut rejected) = (0, 0);
    for chunk in 0..count.div_ceil(PER_DATA) {
        let mut random = Random::for_case(seed.wrapping_add(1 << 32), chunk);
        let instances = if chunk % 20 == 7 { 90 } else { 3 };
        let mut series = Data::random(&mut random, instances).selected(&mut random);
        if chunk % 3 == 0 {
            add_types(&mut series, &mut random);
        }
        for case in 0..PER_DATA.min(count - chunk * PER_DATA) {
            let mut random = Random::for_case(random.next(), case);
            let start = Timestamp::from_millis(random.between(0, LENGTH / 1000) * 1000);
            let params = match random.percent(40) {
                true => QueryParams::instant(start),
                false => QueryParams::range(start, start.offset_millis(300_000), Duration::from_secs(60)),
            };
            let mut text = ExpressionWriter::new(&mut random, Dialect::Full, (0, LENGTH)).query();
            let vector = parse(&text, &ParseOptions::ALL).is_ok_and(|e| e.value_type() == ValueType::Vector);
            if vector && random.percent(50) {
                text = random.pick(&AROUND).replace('X', &text);
            }
            let options = options(random.percent(40), random.pick(&[1, 2]));
            let whole = ask(&text, &params, &series, &options, &mut random);
            let mut left_out = 0;
            let fewer = offer(&text, &params, &series, &options, &mut random, Offer::Needed(&mut left_out));
            trimmed += u64::from(left_out > 0);
            rejected += u64::from(whole.is_err());
            assert!(
                identical(&whole, &fewer),
                "seed {seed}, data {chunk}, case {case}: {text}\n{params:?}\nwhole: {whole:?}\nfewer: {fewer:?}"
            );
        }
    }
    println!("seed {seed}: {count} expressions, {trimmed} over fewer labels, {rejected} rejected");
    assert!(trimmed * 4 > count, "expected more expressions that do not need all labels");
}

/// Adds a type label to some series, and to others a copy that has one. An additional label that sorts before
/// all others makes series with a type sort after those without.
fn add_types(series: &mut Vec<SelectedSeries>, random: &mut Random) {
    for series in series.iter_mut() {
        if random.percent(50) {
            continue;
        }
        series.labels = series.labels.to_builder().set("Zone", random.pick(&["a", "b"])).build();
    }
    let typed = |labels: &Labels| labels.to_builder().set("__type__", "gauge").build();
    for at in 0..series.len() {
        if random.percent(10) {
            let mut twin = series[at].clone();
            twin.labels = typed(&twin.labels);
            series.push(twin);
        } else if random.percent(5) {
            series[at].labels = typed(&series[at].labels);
        }
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
}
