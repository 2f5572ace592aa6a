//! Expressions: any text is parsed or refused; what is parsed prints, in one line and in several, to what parses to the
//! same; and it is planned or refused.

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
            let parsed = parse(&again, &ParseOptions::ALL).expect("what was printed parses");
            assert_eq!(parsed.to_string(), printed);
        }
    }
    let engine = EngineOptions { parse: ParseOptions::ALL, propagate_matchers: true, ..EngineOptions::default() };
    let end = Timestamp::from_millis(3_600_000);
    for params in
        [QueryParams::instant(end), QueryParams::range(Timestamp::EPOCH, end, Duration::from_secs(15))]
    {
        if let Ok(query) = Query::plan(text, &params, &engine) {
            assert!(!query.explain().to_string().is_empty());
        }
    }
});
