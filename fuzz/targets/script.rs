//! Test scripts: any text runs or is rejected.

#![no_main]

use libfuzzer_sys::fuzz_target;
use promql::promqltest::Script;
use promql::{EngineOptions, ParseOptions, Query};

fuzz_target!(|text: &str| {
    let Ok(script) = Script::parse(text) else { return };
    let engine = EngineOptions {
        parse: ParseOptions::ALL,
        max_samples: 100_000,
        max_bytes: 4 << 20,
        workers: 1,
        ..EngineOptions::default()
    };
    script.run_with(|storage, text, params| {
        let query = Query::plan(text, params, &engine)?;
        let mut evaluation = query.evaluation();
        while let Some(id) = evaluation.next_select() {
            let select = evaluation.select(id);
            evaluation.push(id, storage.select(&select.matchers, select.range))?;
            evaluation.end_select(id)?;
        }
        let output = evaluation.finish();
        if let Err(error) = &output {
            assert!(!error.to_string().contains("internal error"), "{error}");
        }
        output
    });
});
