//! Compares the engine with a peer ([`crate::peer`]) over the whole language: values, labels, order, errors,
//! annotations and printed expressions.
//!
//! `ISTHMUS_CASE=3:17` runs only the 17th query on the third data set and prints both results.
//! `ISTHMUS_QUERY` replaces that query.

use std::collections::BTreeMap;

use promql::{EngineOptions, ParseOptions, parse};

use crate::against_oracle::params;
use crate::agreement::{PeerQuestion, disagreement, is_open};
use crate::data::LENGTH;
use crate::engine::{ask, options};
use crate::expression::{Dialect, ExpressionWriter};
use crate::grammar::Grammar;
use crate::peer::PeerProcess;
use crate::random::Random;
use crate::{setting, wild};

/// Number of expressions per random data set.
const PER_DATA: u64 = 100;
/// The test stops after this many differences.
const MOST_FAILURES: u64 = 40;
/// If results differ, the peer is asked this many times: results that depend on the order of an unordered map
/// change each time.
const MOST_ASKED: u64 = 12;

#[test]
fn random_queries_agree_with_a_peer() {
    let Some(mut peer) = PeerProcess::start() else {
        println!("skipped: random queries of a peer (ISTHMUS_PEER is not set)");
        return;
    };
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000), setting("ISTHMUS_SEED", 1));
    let most = setting("ISTHMUS_FAILURES", MOST_FAILURES);
    let only = std::env::var("ISTHMUS_CASE").ok();
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut failures = 0;
    'data: for chunk in 0..count.div_ceil(PER_DATA) {
        if only.as_ref().is_some_and(|only| !only.starts_with(&format!("{chunk}:"))) {
            continue;
        }
        let mut random = Random::for_case(seed, chunk);
        let series = wild::series(&mut random, if chunk % 20 == 7 { 90 } else { 3 });
        peer.load(&series);
        for case in 0..PER_DATA.min(count - chunk * PER_DATA) {
            let mut random = Random::for_case(random.next(), case);
            let params = params(&mut random);
            let text = if random.percent(40) {
                ExpressionWriter::new(&mut random, Dialect::Full, (0, LENGTH)).query()
            } else {
                Grammar::new(&mut random, (0, LENGTH)).query()
            };
            let (delayed, starts) = (random.percent(40), random.percent(20));
            let settings = EngineOptions {
                use_start_timestamps: starts,
                parse: ParseOptions { extended_functions: false, ..ParseOptions::ALL },
                ..options(delayed, 2)
            };
            if only.as_ref().is_some_and(|only| *only != format!("{chunk}:{case}")) {
                continue;
            }
            let text = std::env::var("ISTHMUS_QUERY").unwrap_or(text);
            let found = ask(&text, &params, &series, &settings, &mut random);
            let question = PeerQuestion { text: &text, params: &params, delayed, starts };
            let mut expected = peer.ask(&question);
            if only.is_some() {
                println!("{text}\nexpected {expected:#?}\nfound {found:#?}");
            }
            let mut why = disagreement(&question, &expected, &found);
            let mut outcome = match (&expected, &found) {
                (Err(_), Err(_)) => "both failed",
                (Ok(answer), Ok(_)) if answer.series.is_empty() => "both empty",
                _ => "the same",
            };
            for _ in 1..MOST_ASKED {
                if why.is_some() {
                    outcome = "the same when asked again";
                    expected = peer.ask(&question);
                    why = why.and(disagreement(&question, &expected, &found));
                }
            }
            let open = why.is_some() && is_open(&question);
            let outcome = match &why {
                Some(_) if open => "undecided",
                Some(_) => "different",
                None => outcome,
            };
            *counts.entry(outcome).or_default() += 1;
            let Some(why) = why else { continue };
            println!(
                "# {}seed {seed}, data {chunk}, case {case}, delayed {delayed}, starts {starts}, {} to {} by {:?}, \
                 lookback {:?}:\n{text}\n  {why}\n",
                if open { "undecided: " } else { "" },
                params.start.as_millis(),
                params.end.as_millis(),
                params.step,
                params.lookback
            );
            failures += u64::from(!open);
            if failures >= most {
                break 'data;
            }
        }
    }
    println!("seed {seed}: {counts:?}");
    assert!(failures == 0, "seed {seed}: {failures} differences");
}

#[test]
fn random_texts_are_parsed_and_printed_as_by_a_peer() {
    let Some(mut peer) = PeerProcess::start() else {
        println!("skipped: random texts (ISTHMUS_PEER is not set)");
        return;
    };
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 3000), setting("ISTHMUS_SEED", 1));
    let most = setting("ISTHMUS_FAILURES", MOST_FAILURES);
    let (mut failures, mut accepted) = (0, 0);
    for case in 0..count {
        let mut random = Random::for_case(seed, case);
        let mut text = if random.percent(30) {
            ExpressionWriter::new(&mut random, Dialect::Full, (0, LENGTH)).query()
        } else {
            Grammar::new(&mut random, (0, LENGTH)).query()
        };
        for _ in 0..random.between(0, 2) {
            text = mutated(&text, &mut random);
        }
        let stable = random.percent(20);
        let whole = ParseOptions { extended_functions: false, ..ParseOptions::ALL };
        let expected = peer.parse(&text, stable);
        let found = parse(&text, &if stable { ParseOptions::default() } else { whole })
            .map(|expr| (expr.to_string(), expr.pretty()))
            .map_err(|error| error.to_string());
        accepted += u64::from(found.is_ok());
        // Prometheus prints these texts in a form that parses to something else.
        let known =
            |text: &String| text.replace("+Inf ", "Inf ").replace("+Inf\n", "Inf\n").replace("-0s", "0s");
        let texts = |result: &Result<(String, String), String>| {
            result.as_ref().map(|(line, lines)| (known(line), known(lines))).map_err(Clone::clone)
        };
        if texts(&expected) != texts(&found) {
            println!("# seed {seed}, case {case}, stable {stable}: {text}\n  {expected:?}\n  {found:?}\n");
            failures += 1;
            if failures >= most {
                break;
            }
        }
    }
    println!("seed {seed}: {count} texts, {accepted} of them expressions, {failures} different");
    assert!(failures == 0, "seed {seed}: {failures} differences");
    assert!(accepted * 4 > count, "expected more valid expressions");
}

/// The text with a random part removed, duplicated, inserted or replaced.
fn mutated(text: &str, random: &mut Random) -> String {
    const PIECES: [&str; 46] = [
        " ",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "5m",
        "offset",
        "@",
        "by",
        "on",
        "ignoring",
        "bool",
        "-",
        "+",
        "==",
        "=~",
        "!=",
        "!~",
        "</",
        ">/",
        "^",
        "atan2",
        "group_left",
        "fill",
        "smoothed",
        "anchored",
        "\"",
        "'",
        "`",
        "\\",
        "1",
        "0x",
        "1e",
        "Inf",
        "start()",
        "step",
        "é",
        "\n",
        "#",
        "sum",
        "=",
        "1d2h",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    let at = random.below(chars.len() as u64 + 1) as usize;
    let end = (at + random.between(1, 6) as usize).min(chars.len());
    match random.below(4) {
        0 => drop(chars.drain(at..end)),
        1 => {
            let again: Vec<char> = chars[at..end].to_vec();
            chars.splice(at..at, again);
        }
        2 => drop(chars.splice(at..at, random.pick(&PIECES).chars())),
        _ => drop(chars.splice(at..end, random.pick(&PIECES).chars())),
    }
    chars.into_iter().collect()
}
