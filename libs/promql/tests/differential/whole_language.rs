//! Properties of any expression of the whole language, which need no reference results: the result does not
//! depend on workers and batches, and a printed expression parses to the same expression.

use promql::{ParseOptions, parse};

use crate::against_oracle::params;
use crate::data::LENGTH;
use crate::engine::{ask, identical, options};
use crate::grammar::Grammar;
use crate::random::Random;
use crate::{setting, wild};

/// Number of expressions per random data set.
const PER_DATA: u64 = 100;

#[test]
fn results_are_independent_of_workers_and_printing_round_trips() {
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000), setting("ISTHMUS_SEED", 1));
    let mut answered = 0;
    for chunk in 0..count.div_ceil(PER_DATA) {
        let mut random = Random::for_case(seed, chunk);
        // A batch of a worker has 128 series, so some data sets have more.
        let series = wild::series(&mut random, if chunk % 10 == 7 { 90 } else { 3 });
        for case in 0..PER_DATA.min(count - chunk * PER_DATA) {
            let mut random = Random::for_case(random.next(), case);
            let params = params(&mut random);
            let text = Grammar::new(&mut random, (0, LENGTH)).query();
            let told = format!("seed {seed}, data {chunk}, case {case}: {text}");
            if let Ok(expr) = parse(&text, &ParseOptions::ALL) {
                for printed in [expr.to_string(), expr.pretty()] {
                    let again = parse(&printed, &ParseOptions::ALL);
                    let again = again.unwrap_or_else(|error| panic!("{told}\nprinted as {printed}\n{error}"));
                    assert_eq!(again.to_string(), expr.to_string(), "{told}");
                }
            }
            let delayed = random.percent(40);
            let mut ask = |workers| ask(&text, &params, &series, &options(delayed, workers), &mut random);
            let (one, three) = (ask(1), ask(3));
            assert!(identical(&one, &three), "{told}\none worker: {one:?}\nthree: {three:?}");
            answered += u64::from(one.is_ok());
        }
    }
    println!("seed {seed}: {count} expressions, {answered} of them answered");
    assert!(answered * 2 > count, "expected results for most expressions");
}
