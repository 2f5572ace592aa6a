//! Queries: any text is answered or rejected, over series of every kind and within the limits.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use model::Timestamp;
use promql::promqltest::{Storage, parse_series};
use promql::{EngineOptions, ParseOptions, Query, QueryError, QueryOutput, QueryParams};

/// Counters with a reset, gauges with special float values, classic and native histograms, an info metric.
const SERIES: [&str; 14] = [
    r#"c_total{job="a",instance="0"} 0+10x20 0+7x19"#,
    r#"c_total{job="a",instance="1"} 5+3x10 _x5 100+1x24"#,
    r#"c_total{job="b",instance="0"} 1 2 stale _x8 4+1x28"#,
    r#"g{job="a",instance="0"} 1 -2 NaN Inf -Inf 0 -0 1e308 5e-324 3x31"#,
    r#"g{job="b",instance="1"} 1e300x40"#,
    r#"g{job="b"} 7-1x40"#,
    r#"b_bucket{le="0.1",job="a"} 0+1x40"#,
    r#"b_bucket{le="1",job="a"} 0+3x40"#,
    r#"b_bucket{le="+Inf",job="a"} 0+4x40"#,
    r#"h{job="a"} {{schema:1 sum:4 count:8 buckets:[1 2 4 1] n_buckets:[1 0 2]}}+{{schema:1 sum:2 count:4 buckets:[1 2 1]}}x40"#,
    r#"h{job="b"} {{schema:0 sum:-3 count:5 z_bucket:2 z_bucket_w:0.5 offset:3 buckets:[3]}}x20 1x19"#,
    r#"h{job="c"} {{schema:-53 sum:1 count:5 custom_values:[1 5 10] buckets:[1 3 1]}}x40"#,
    r#"{"utf8 ü","with space"="x",job="a"} 1+1x40"#,
    r#"target_info{job="a",instance="0",data="info"} 1x40"#,
];

static STORAGE: LazyLock<Storage> = LazyLock::new(|| {
    let mut storage = Storage::new();
    for line in SERIES {
        let (labels, values) = parse_series(line).expect("a series");
        storage.append_sequence(&labels, Timestamp::EPOCH, 30_000, &values).expect("samples in order");
    }
    storage
});

fn evaluate(text: &str, params: &QueryParams, engine: &EngineOptions) -> Result<QueryOutput, QueryError> {
    let query = Query::plan(text, params, engine)?;
    let mut evaluation = query.evaluation();
    while let Some(id) = evaluation.next_select() {
        let select = evaluation.select(id);
        evaluation.push(id, STORAGE.select(&select.matchers, select.range))?;
        evaluation.end_select(id)?;
    }
    evaluation.finish()
}

fuzz_target!(|text: &str| {
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
    for (params, delayed_name_removal) in [
        (QueryParams::instant(at(600)), false),
        (QueryParams::range(at(0), at(1300), Duration::from_secs(65)), false),
        (QueryParams::range(at(300), at(900), Duration::from_secs(60)), true),
    ] {
        let engine = EngineOptions {
            parse: ParseOptions::ALL,
            delayed_name_removal,
            use_start_timestamps: true,
            propagate_matchers: true,
            max_samples: 200_000,
            max_bytes: 4 << 20,
            workers: 1,
            ..EngineOptions::default()
        };
        if let Err(error) = evaluate(text, &params, &engine) {
            // A panic of a worker only fails the query, so it must be detected here.
            assert!(!error.to_string().contains("internal error"), "{error}");
        }
    }
});
