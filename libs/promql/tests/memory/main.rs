//! Compares the memory that queries reserve with the memory that they allocate, for every function and
//! operator, over data that far exceeds their limit. Also checks that all memory is released however a query
//! ends.

mod counting;
mod data;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use budget::{Interrupt, LimitKind, TotalBudget};
use data::Data;
use model::Timestamp;
use promql::syntax::functions::{Function, FunctionId, ValueType};
use promql::{EngineOptions, ParseOptions, QUERIES, Query, QueryError, QueryOutput, QueryParams};

/// The lowest memory limit in these tests. The fixed costs of a query, including its threads and the batch
/// that it receives, must be small compared to it.
const LIMIT: u64 = 8 << 20;
/// Allocations beyond the reserved memory that are tolerated: half of the reserved memory, plus this
/// constant.
const BESIDE: u64 = 3 << 20;
/// Number of series per batch.
const BATCH: usize = 64;

/// Tests run one at a time, because there is only one allocation counter.
static TURN: Mutex<()> = Mutex::new(());

/// The result of a query, and the most memory that was allocated for it at one time.
struct MeasuredQuery {
    outcome: Result<QueryOutput, QueryError>,
    allocated: u64,
}

/// When a query ends.
#[derive(Clone, Copy)]
enum Until {
    TheEnd,
    /// It is dropped after this many batches.
    Batch(usize),
    /// It is interrupted after this many batches.
    Interrupt(usize),
}

struct Engine {
    limit: u64,
    total: TotalBudget,
}

impl Engine {
    fn new(limit: u64) -> Self {
        Self { limit, total: TotalBudget::unlimited(&QUERIES) }
    }

    fn run(&self, text: &str, data: &Data, params: &QueryParams, until: Until) -> MeasuredQuery {
        let options = EngineOptions {
            parse: ParseOptions::ALL,
            workers: 2,
            max_bytes: self.limit,
            total: self.total.clone(),
            ..EngineOptions::default()
        };
        let before = counting::begin();
        let outcome = evaluate(text, data, params, &options, until);
        MeasuredQuery { outcome, allocated: (counting::peak() - before) as u64 }
    }
}

fn evaluate(
    text: &str,
    data: &Data,
    params: &QueryParams,
    options: &EngineOptions,
    until: Until,
) -> Result<QueryOutput, QueryError> {
    let interrupt = Interrupt::new();
    let params = QueryParams { interrupt: interrupt.clone(), ..params.clone() };
    let query = Query::plan(text, &params, options)?;
    let selects = query.selects().to_vec();
    let mut evaluation = query.evaluation();
    let mut batches = 0;
    while let Some(id) = evaluation.next_select() {
        for batch in data.select(&selects[id.index()].matchers, BATCH) {
            match until {
                Until::Batch(end) if end == batches => return Err(QueryError::Canceled),
                Until::Interrupt(end) if end == batches => interrupt.time_out(),
                _ => {}
            }
            batches += 1;
            evaluation.push(id, batch)?;
        }
        evaluation.end_select(id)?;
    }
    evaluation.finish()
}

fn range() -> QueryParams {
    QueryParams::range(Timestamp::EPOCH, Timestamp::from_millis(600_000), Duration::from_secs(3))
}

fn instant() -> QueryParams {
    QueryParams::instant(Timestamp::from_millis(590_000))
}

/// Runs a query with a limit. Returns whether it failed because of the limit.
fn ends_at_the_limit(text: &str, data: &Data, params: &QueryParams, limit: u64) -> bool {
    let engine = Engine::new(limit);
    let MeasuredQuery { outcome, allocated } = engine.run(text, data, params, Until::TheEnd);
    let most = limit + limit / 2 + BESIDE;
    assert!(
        allocated <= most,
        "{text}: {} KiB allocated with a limit of {} KiB",
        allocated >> 10,
        limit >> 10
    );
    let ended = match &outcome {
        Ok(_) => false,
        Err(QueryError::Limit(error)) => {
            assert!(error.kind == LimitKind::Bytes && error.limit == limit, "{text}: {error}");
            true
        }
        Err(QueryError::Execution(_)) => false,
        Err(error) => panic!("{text}: {error}"),
    };
    drop(outcome);
    assert_eq!(engine.total.reserved_bytes(), 0, "{text} does not release all memory");
    ended
}

/// A call of a function with these vectors and this scalar. `None` if the function needs a string, or no
/// arguments.
fn call(function: &Function, vector: &str, range: &str) -> Option<String> {
    // The second argument of `info` is written like a vector but is not evaluated as one. It is optional.
    let args = if function.id == FunctionId::Info { &function.args[..1] } else { function.args };
    let args = args.iter().map(|arg| match arg {
        ValueType::Vector => Some(vector),
        ValueType::Matrix => Some(range),
        ValueType::Scalar => Some("0.5"),
        ValueType::String => None,
    });
    let args: Option<Vec<&str>> = args.collect();
    args.map(|args| format!("{}({})", function.name, args.join(", ")))
}

#[test]
fn every_function_stays_within_the_limit_and_fails_at_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (floats, histograms) = (Data::floats(6000), Data::histograms(60, 1000));
    let mut unlimited = BTreeSet::new();
    for function in Function::all() {
        let mut ended = false;
        for (name, data) in [("f", &floats), ("h", &histograms)] {
            for vector in [name.to_owned(), format!("{name} * 1"), format!("{name} or {name}")] {
                let matrix = format!("{name}[1m]");
                let Some(text) = call(function, &vector, &matrix) else { continue };
                ended |= ends_at_the_limit(&text, data, &range(), LIMIT);
                if vector == name {
                    ends_at_the_limit(&text, data, &instant(), LIMIT / 2);
                }
            }
            if function.args.contains(&ValueType::Matrix) {
                let Some(text) = call(function, "", &format!("({name} * 1)[1m:5s]")) else { continue };
                ended |= ends_at_the_limit(&text, data, &range(), LIMIT);
            }
        }
        if !ended {
            unlimited.insert(function.name);
        }
    }
    // These functions take no vector, or a string; the next test covers them.
    let expected = [
        "end",
        "histogram_quantiles",
        "label_join",
        "label_replace",
        "max_of",
        "min_of",
        "pi",
        "range",
        "sort_by_label",
        "sort_by_label_desc",
        "start",
        "step",
        "time",
        "vector",
    ];
    assert_eq!(unlimited.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn every_operator_stays_within_the_limit_and_fails_at_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (floats, histograms) = (Data::floats(6000), Data::histograms(60, 1000));
    let long = Data::long_labels(1000, 16 << 10);
    let everything = "$1".repeat(5000);
    let expand = format!("label_replace(l, 'b', '{everything}', 'a', '(.*)')");
    let join = format!("label_join(l, 'b', ''{})", ", 'a'".repeat(2000));
    let mut endless = Vec::new();
    for (text, data) in [
        ("f", &floats),
        ("-f", &floats),
        ("f + f", &floats),
        ("f > bool f", &floats),
        ("f * on (instance) group_left (job) f", &floats),
        ("f * on (instance) group_right (job) f", &floats),
        ("f + fill (0) (f > 1e9)", &floats),
        ("(f > 1e9) + fill (0) f", &floats),
        ("f and f", &floats),
        ("f or f", &floats),
        ("f unless (f > 1e9)", &floats),
        ("info(f)", &floats),
        ("sum by (instance) (f)", &floats),
        ("avg by (instance) (f)", &floats),
        ("stddev by (instance) (f)", &floats),
        ("min by (instance) (f)", &floats),
        ("count by (instance) (f)", &floats),
        ("group by (instance) (f + f)", &floats),
        ("topk(4000, f)", &floats),
        ("topk by (instance) (1, f)", &floats),
        ("bottomk by (instance) (2, f)", &floats),
        ("limitk(4000, f)", &floats),
        ("limit_ratio(0.9, f)", &floats),
        ("quantile(0.5, f)", &floats),
        ("quantile by (instance) (0.5, f)", &floats),
        ("count_values by (instance) ('v', f)", &floats),
        ("histogram_quantile(0.9, f)", &floats),
        ("histogram_quantiles(f, 'q', 0.5, 0.9, time() / 1000)", &floats),
        ("label_replace(f, 'b', '$1-$1-$1-$1', 'instance', '(.*)')", &floats),
        ("label_join(f, 'b', '-', 'instance', 'job', 'instance')", &floats),
        ("sort_by_label(f, 'instance')", &floats),
        ("sort_by_label_desc(f or f, 'instance')", &floats),
        ("max_over_time((f or f)[1m:1s])", &floats),
        ("sum_over_time(max_over_time((f * 1)[1m:1s])[2m:1s])", &floats),
        ("f @ 300", &floats),
        ("-h", &histograms),
        ("h * 2", &histograms),
        ("h + h", &histograms),
        ("h / on (instance) group_left () h", &histograms),
        ("h smoothed", &histograms),
        ("sum by (instance) (h)", &histograms),
        ("avg by (instance) (h)", &histograms),
        ("sum by (instance) (rate(h[1m]))", &histograms),
        ("sum(h + h) by (instance)", &histograms),
        ("limitk(50, h)", &histograms),
        ("count_values('v', h)", &histograms),
        ("count_values by (instance) ('v', rate(h[1m]))", &histograms),
        ("histogram_quantiles(rate(h[1m]), 'q', 0.5, 0.9)", &histograms),
        ("last_over_time((h * 2)[1m:1s])", &histograms),
        ("l", &long),
        ("l + l", &long),
        ("l and l", &long),
        ("sum by (a) (l)", &long),
        ("topk by (a) (1, l)", &long),
        ("count_values by (a) ('v', l)", &long),
        ("info(l)", &long),
        ("rate(l[1m])", &long),
        (&expand, &long),
        (&join, &long),
    ] {
        if !ends_at_the_limit(text, data, &range(), LIMIT) {
            endless.push(text);
        }
    }
    for (text, data) in [
        ("f", &floats),
        ("f[10m]", &floats),
        ("h[10m]", &histograms),
        ("sort(f)", &floats),
        ("topk(5000, f)", &floats),
        ("quantile by (instance) (0.5, f)", &floats),
        ("count_values by (instance) ('v', f)", &floats),
        ("f + f", &floats),
        ("f + on (instance) group_left f", &floats),
        ("f or f", &floats),
        ("info(f)", &floats),
        ("sum by (instance) (f)", &floats),
    ] {
        if !ends_at_the_limit(text, data, &instant(), LIMIT / 8) {
            endless.push(text);
        }
    }
    assert!(endless.is_empty(), "these do not fail at the limit: {endless:?}");
    // Aggregations use memory only for their groups.
    for text in ["sum by (job) (rate(f[1m]))", "absent(f)", "scalar(f)", "quantile(0.5, f @ 300)"] {
        assert!(!ends_at_the_limit(text, &floats, &range(), LIMIT), "{text}");
    }
}

#[test]
fn all_memory_is_released_however_a_query_ends() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (floats, damaged) = (Data::floats(1000), Data::damaged(1000));
    for text in [
        "f",
        "f + on (instance) group_left f",
        "f + fill (0) f",
        "f or f",
        "info(f)",
        "sum by (instance) (rate(f[1m]))",
        "topk(10, f)",
        "quantile(0.5, f)",
        "count_values('v', f)",
        "sort_by_label(f, 'instance')",
        "histogram_quantile(0.5, f)",
        "max_over_time((f or f)[1m:15s])",
        "label_replace(f, 'a', '$1', 'job', '(.*)')",
    ] {
        let engine = Engine::new(1 << 30);
        for until in [Until::TheEnd, Until::Batch(0), Until::Batch(9), Until::Interrupt(5)] {
            let measured = engine.run(text, &floats, &range(), until);
            match (until, &measured.outcome) {
                (Until::TheEnd, Ok(output)) => {
                    assert!(engine.total.reserved_bytes() > 0 || output.stats.series == 0, "{text}");
                }
                (Until::TheEnd, Err(error)) => panic!("{text}: {error}"),
                (Until::Batch(_), Err(QueryError::Canceled)) => {}
                (Until::Interrupt(_), Err(QueryError::Timeout)) => {}
                (_, outcome) => panic!("{text}: {outcome:?}"),
            }
            drop(measured);
            assert_eq!(engine.total.reserved_bytes(), 0, "{text}");
        }
        let outcome = engine.run(text, &damaged, &range(), Until::TheEnd).outcome;
        assert!(matches!(outcome, Err(QueryError::Decode(_))), "{text}: {outcome:?}");
        assert_eq!(engine.total.reserved_bytes(), 0, "{text}");
    }
}

#[test]
fn scalars_and_subqueries_over_many_steps_stay_within_the_limit() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let floats = Data::floats(200);
    // With this many steps, a column takes 1.6 MB.
    let range =
        QueryParams::range(Timestamp::EPOCH, Timestamp::from_millis(600_000), Duration::from_millis(3));
    let chain = |operand: &str, count: usize| vec![operand; count].join(" + ");
    for text in [
        chain("(time() * 2)", 100),
        chain("scalar(f)", 100),
        chain("scalar(vector(time()))", 100),
        "sum_over_time((topk(20, f @ 300) + 1)[10000s:10ms])".to_owned(),
        "sum_over_time((f @ 300)[10000s:10ms])".to_owned(),
        "sum_over_time((f or f)[10000s:10ms])".to_owned(),
        chain("absent(g)", 100),
    ] {
        let params = if text.starts_with("sum_over_time") { instant() } else { range.clone() };
        assert!(ends_at_the_limit(&text, &floats, &params, LIMIT), "{text} does not fail at the limit");
    }
    // The columns of the last query use the whole limit. The times of its steps would use as much again.
    for (text, limit) in [("f @ 300", 10 << 20), ("vector(1)", 10 << 20), ("topk(1, f @ 300)", 10 << 20)] {
        let text = format!("count_over_time(({text})[1000000s:1s])");
        assert!(ends_at_the_limit(&text, &floats, &instant(), limit), "{text} does not fail at the limit");
    }
    // One group, and the samples of one series, which take twice as much as its column of 4.8 MB.
    let fine =
        QueryParams::range(Timestamp::EPOCH, Timestamp::from_millis(600_000), Duration::from_millis(1));
    for (text, limit) in [("stddev(f)", LIMIT), ("avg(f)", LIMIT), ("time()", 5 << 20)] {
        assert!(ends_at_the_limit(text, &floats, &fine, limit), "{text} does not fail at the limit");
    }
    // Times and numbers are not stored as columns.
    for text in [chain("time()", 100), chain("2", 100), format!("f * {}", chain("time()", 2))] {
        let params = if text.starts_with('f') { instant() } else { range.clone() };
        assert!(!ends_at_the_limit(&text, &floats, &params, LIMIT), "{text} fails at the limit");
    }
}
