//! Expressions: any text is parsed or rejected. An accepted text can be printed, in one line and in several,
//! and the result parses to the same tree. Planning succeeds or returns an error.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use model::Timestamp;
use promql::syntax::MAX_LENGTH_BYTES;
use promql::{EngineOptions, ParseOptions, Query, QueryParams, parse, parse_selector};

fuzz_target!(|text: &str| {
    let _ = parse_selector(text);
    let _ = parse(text, &ParseOptions::default());
    let Ok(expr) = parse(text, &ParseOptions::ALL) else { return };
    let printed = expr.to_string();
    for again in [printed.clone(), expr.pretty()] {
        if again.len() <= MAX_LENGTH_BYTES {
            let parsed = parse(&again, &ParseOptions::ALL).expect("a printed expression parses");
            assert_eq!(parsed.to_string(), printed);
        }
    }
    let engine =
        EngineOptions { parse: ParseOptions::ALL, propagate_matchers: true, ..EngineOptions::default() };
    let end = Timestamp::from_millis(3_600_000);
    for params in
        [QueryParams::instant(end), QueryParams::range(Timestamp::EPOCH, end, Duration::from_secs(15))]
    {
        if let Ok(query) = Query::plan(text, &params, &engine) {
            assert!(!query.explain().to_string().is_empty());
        }
    }
});
