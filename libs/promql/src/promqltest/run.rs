//! Runs scripts.

use std::convert::Infallible;
use std::time::Duration;

use model::{Labels, Sample, Timestamp};

use crate::promqltest::classic;
use crate::promqltest::compare::{check_annotations, check_failure, check_value};
use crate::promqltest::script::{Eval, ExpectationKind, Load, Script, ScriptCommand};
use crate::promqltest::storage::Storage;
use crate::syntax::ast::{At, Expr};
use crate::syntax::functions::FunctionId;
use crate::{
    EngineOptions, MatrixSeries, ParseOptions, Query, QueryError, QueryOutput, QueryParams, QueryValue,
    SampleValue, VectorSample, parse,
};

/// The result of running a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptReport {
    /// Number of evaluations in the script.
    pub evaluations: usize,
    /// Evaluations and loads that failed, in the order of the script.
    pub failures: Vec<ScriptFailure>,
}

/// An evaluation or a load that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFailure {
    /// Line number of the command, from 1.
    pub line: usize,
    /// The query, or `load`.
    pub query: String,
    /// Why it failed, and in which of its runs.
    pub message: String,
}

/// The engine settings that Prometheus' scripts assume: the whole language is enabled.
pub(super) fn script_engine() -> EngineOptions {
    EngineOptions {
        parse: ParseOptions::ALL,
        use_start_timestamps: true,
        delayed_name_removal: true,
        ..EngineOptions::default()
    }
}

/// Evaluates a query with the engine of this crate.
///
/// # Errors
/// The errors of the engine.
fn evaluate(
    storage: &Storage,
    query: &str,
    params: &QueryParams,
    engine: &EngineOptions,
) -> Result<QueryOutput, QueryError> {
    let query = Query::plan(query, params, engine)?;
    let mut evaluation = query.evaluation();
    while let Some(id) = evaluation.next_select() {
        let select = evaluation.select(id);
        evaluation.push(id, storage.select(&select.matchers, select.range))?;
        evaluation.end_select(id)?;
    }
    evaluation.finish()
}

impl Script {
    /// Runs the script with the engine of this crate and the whole language enabled.
    pub fn run(&self) -> ScriptReport {
        let engine = script_engine();
        self.run_with(|storage, query, params| evaluate(storage, query, params, &engine))
    }

    /// Runs the script with `evaluate`, which receives a storage and a query. Continues after failures.
    pub fn run_with(
        &self,
        mut evaluate: impl FnMut(&Storage, &str, &QueryParams) -> Result<QueryOutput, QueryError>,
    ) -> ScriptReport {
        let mut storage = Storage::new();
        let mut report = ScriptReport::default();
        for command in &self.commands {
            let (line, query, outcome) = match command {
                ScriptCommand::Clear => {
                    storage = Storage::new();
                    continue;
                }
                ScriptCommand::Store(labels, range) => {
                    storage.begin_store(labels.clone(), *range);
                    continue;
                }
                ScriptCommand::Load(load) => (load.line, "load", load.run(&mut storage)),
                ScriptCommand::Eval(eval) => {
                    report.evaluations += 1;
                    let outcome = eval.run(&mut |query, params| evaluate(&storage, query, params));
                    (eval.line, eval.query.as_str(), outcome)
                }
            };
            if let Err(message) = outcome {
                report.failures.push(ScriptFailure { line, query: query.to_owned(), message });
            }
        }
        report
    }
}

impl Load {
    fn run(&self, storage: &mut Storage) -> Result<(), String> {
        let native = if self.with_nhcb { classic::convert(&self.series)? } else { Vec::new() };
        for (labels, values) in self.series.iter().chain(&native) {
            let starts = self.starts.get(labels).map_or(&[][..], Vec::as_slice);
            storage
                .append_sequence_with_starts(labels, Timestamp::EPOCH, self.step, values, starts)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Evaluates a query with the given parameters.
type Evaluate<'a> = dyn FnMut(&str, &QueryParams) -> Result<QueryOutput, QueryError> + 'a;

/// The range query around an instant starts and ends this far from it. It must give the same result at the
/// instant.
const MINUTE: Duration = Duration::from_secs(60);

impl Eval {
    fn run(&self, evaluate: &mut Evaluate<'_>) -> Result<(), String> {
        if self.is_range {
            let [start, end] = [self.at.start, self.at.end].map(Timestamp::from_millis);
            let step = Duration::from_millis(self.at.step.unsigned_abs());
            let params = QueryParams::range(start, end, step);
            self.check(&self.query, &params, evaluate).map(|_| ())
        } else {
            let at = self.at.start;
            self.run_instant(&self.query, at, evaluate)?;
            let Some(pinned) = self.pinned(at)? else { return Ok(()) };
            let instants =
                if at == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] };
            instants.into_iter().try_for_each(|at| {
                self.run_instant(&pinned, at, evaluate)
                    .map_err(|why| format!("as {pinned} at {at} ms: {why}"))
            })
        }
    }

    /// Runs `query` at one instant, and as the middle of a range.
    fn run_instant(&self, query: &str, at: i64, evaluate: &mut Evaluate<'_>) -> Result<(), String> {
        let at = Timestamp::from_millis(at);
        let Some(value) = self.check(query, &QueryParams::instant(at), evaluate)? else {
            return Ok(());
        };
        let excluded = self.range_vector.is_some() || matches!(value, QueryValue::String { .. });
        if excluded || ["start()", "end()", "range()", "step()"].iter().any(|call| query.contains(call)) {
            return Ok(());
        }
        let in_range = |why: String| format!("in range mode: {why}");
        let params = QueryParams::range(at - MINUTE, at + MINUTE, MINUTE);
        let output = evaluate(query, &params).map_err(|error| in_range(error.to_string()))?;
        // Range results are always sorted by labels, even if the query sorts differently.
        if self.expects(ExpectationKind::Ordered) {
            return Ok(());
        }
        let QueryValue::Matrix(matrix) = output.value else {
            return Err(in_range("the result is not a matrix".to_owned()));
        };
        if !matrix.is_sorted_by(|a, b| a.labels < b.labels) {
            return Err(in_range("the result is not sorted by labels".to_owned()));
        }
        let mut samples = matrix.into_iter().filter_map(|series| point(series, at));
        let value = match (value, samples.next()) {
            (QueryValue::Scalar(_), Some(VectorSample { value: SampleValue::Float(value), .. })) => {
                QueryValue::Scalar(Sample { timestamp: at, value })
            }
            (QueryValue::Scalar(_), _) => return Err(in_range("the result has no point".to_owned())),
            (_, first) => QueryValue::Vector(first.into_iter().chain(samples).collect()),
        };
        check_value(self, &value).map_err(in_range)
    }

    /// Runs `query` and checks the result. Returns the value, or `None` if an error was expected and
    /// occurred.
    fn check(
        &self,
        query: &str,
        params: &QueryParams,
        evaluate: &mut Evaluate<'_>,
    ) -> Result<Option<QueryValue>, String> {
        let output = match (evaluate(query, params), self.expects(ExpectationKind::Fail)) {
            (Ok(output), false) => output,
            (Ok(_), true) => return Err("expected error but got none".to_owned()),
            (Err(error), false) => return Err(format!("error: {error}")),
            (Err(error), true) => return check_failure(self, &error.to_string()).map(|()| None),
        };
        check_annotations(self, &output.annotations)?;
        check_value(self, &output.value)?;
        Ok(Some(output.value))
    }

    /// The query with all selectors pinned to `at`. `None` if its value still depends on the time of the
    /// evaluation.
    fn pinned(&self, at: i64) -> Result<Option<String>, String> {
        let mut expr = parse(&self.query, &ParseOptions::ALL).map_err(|error| error.to_string())?;
        Ok(pin(&mut expr, At::Time(Timestamp::from_millis(at))).then(|| expr.to_string()))
    }
}

/// The sample of a series at one instant.
fn point(series: MatrixSeries, at: Timestamp) -> Option<VectorSample> {
    let labels: Labels = series.labels;
    let float = series.floats.iter().find(|s| s.timestamp == at).map(|s| SampleValue::Float(s.value));
    let value = float.or_else(|| {
        let histogram = series.histograms.into_iter().find(|(t, _)| *t == at);
        histogram.map(|(_, histogram)| SampleValue::Histogram(histogram))
    })?;
    Some(VectorSample { labels, timestamp: at, value })
}

/// Pins all selectors and subqueries that are not pinned to an instant yet, except inside pinned subqueries.
/// Returns whether the value is then independent of the time of the evaluation.
fn pin(expr: &mut Expr, at: At) -> bool {
    let mut invariant = true;
    let Ok(()) = expr.change_chain::<Infallible>(|expr| {
        invariant &= match expr {
            Expr::Binary(binary) => pin(&mut binary.rhs, at),
            _ => pin_operand(expr, at),
        };
        Ok(())
    });
    invariant
}

/// Like [`pin`], for an expression that is not a binary operator.
fn pin_operand(expr: &mut Expr, at: At) -> bool {
    let pin_one = |place: &mut Option<At>| {
        if !matches!(place, Some(At::Time(_))) {
            *place = Some(at);
        }
    };
    match expr {
        Expr::Vector(selector) => pin_one(&mut selector.at),
        Expr::Matrix(matrix) => pin_one(&mut matrix.selector.at),
        Expr::Subquery(subquery) => {
            pin_one(&mut subquery.at);
            return true;
        }
        Expr::Call(call) if depends_on_evaluation_time(call.function.id) => return false,
        _ => {}
    }
    let mut invariant = true;
    expr.for_each_child_mut(|child| invariant &= pin(child, at));
    invariant
}

fn depends_on_evaluation_time(function: FunctionId) -> bool {
    use FunctionId::{
        DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, End, Hour, Minute, Month, PredictLinear, Range, Start,
        Step, Time, Timestamp, Year,
    };
    matches!(
        function,
        DaysInMonth
            | DayOfMonth
            | DayOfWeek
            | DayOfYear
            | End
            | Hour
            | Minute
            | Month
            | Year
            | PredictLinear
            | Range
            | Start
            | Step
            | Time
            | Timestamp
    )
}
