//! Another implementation of PromQL, in a separate process whose path is in `ISTHMUS_PEER`.
//!
//! The peer reads one JSON object per line.
//!
//! - An object with `series` sets the data for the following queries and has no answer: `{"series":
//!   [{"labels": {name: value}, "points": [[milliseconds, value, start]]}]}`. A value is either the bits of a
//!   float as a hexadecimal string, or a histogram: `{"schema": 0, "zeroThreshold": "0", "zeroCount": ..,
//!   "count": .., "sum": .., "positiveSpans": [[offset, length]], "positiveBuckets": [..], "negativeSpans":
//!   .., "negativeBuckets": .., "customValues": [..], "reset": 0}`. `reset` is 0 to 3 for unknown, reset, no
//!   reset, gauge. `start`, in milliseconds, is optional.
//! - An object with `query` is answered by one line: `{"error": ..}` or `{"kind": "vector", "series": ..,
//!   "text": .., "warnings": [..], "infos": [..]}`, with series as above and `text` for a string. The query
//!   has the fields `start`, `end`, `step` and `lookback` in milliseconds (a step of 0 for an instant query),
//!   `delayed` for delayed name removal, and `starts` if start timestamps are used.
//! - An object with `parse` is answered with `{"error": ..}`, or with the expression as `text` and, in
//!   several lines, as `pretty`. If `stable` is true, only the stable language is accepted.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use model::{BucketSpan, CounterResetHint, FloatHistogram, TimeRange};
use serde_json::{Value as Json, json};
use series::{Aggregate, DecodeOptions, Dedup, Samples, SelectedSeries};

use crate::agreement::PeerQuestion;
use crate::data::LabelMap;

/// A running peer. It is killed when dropped.
pub(crate) struct PeerProcess {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A value of the peer, or of the engine in the same form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PeerValue {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// A series with its samples.
pub(crate) type PeerSeries = (LabelMap, Vec<(i64, PeerValue)>);

/// The answer to a query.
#[derive(Clone, Debug)]
pub(crate) struct PeerAnswer {
    /// `scalar`, `string`, `vector` or `matrix`.
    pub(crate) kind: String,
    /// The text of a string.
    pub(crate) text: Option<String>,
    /// In the order of the answer.
    pub(crate) series: Vec<PeerSeries>,
    pub(crate) warnings: BTreeSet<String>,
    pub(crate) infos: BTreeSet<String>,
}

impl PeerProcess {
    /// Starts the peer. Returns `None` if `ISTHMUS_PEER` is not set.
    ///
    /// # Panics
    /// If the peer does not start.
    pub(crate) fn start() -> Option<Self> {
        let path = std::env::var_os("ISTHMUS_PEER")?;
        let mut process = Command::new(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Some(Self { process, input, output })
    }

    fn send(&mut self, message: &Json) {
        writeln!(self.input, "{message}").and_then(|()| self.input.flush()).expect("the peer reads");
    }

    fn receive(&mut self) -> Json {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the peer answers {line:?}: {error}"))
    }

    /// Sends the data for the following queries.
    pub(crate) fn load(&mut self, series: &[SelectedSeries]) {
        let series: Vec<Json> = series.iter().map(written_series).collect();
        self.send(&json!({ "series": series }));
    }

    /// Evaluates a query.
    ///
    /// # Errors
    /// The error of the peer.
    pub(crate) fn ask(&mut self, question: &PeerQuestion<'_>) -> Result<PeerAnswer, String> {
        let PeerQuestion { text, params, delayed, starts } = *question;
        self.send(&json!({
            "query": text,
            "start": params.start.as_millis(),
            "end": params.end.as_millis(),
            "step": params.step.map_or(0, |step| step.as_millis() as u64),
            "lookback": params.lookback.as_millis() as u64,
            "delayed": delayed,
            "starts": starts,
        }));
        let answer = self.receive();
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let lines = |name: &str| -> BTreeSet<String> {
            let lines = answer[name].as_array().into_iter().flatten();
            lines.map(|line| line.as_str().expect("a line").to_owned()).collect()
        };
        Ok(PeerAnswer {
            kind: answer["kind"].as_str().expect("a kind").to_owned(),
            text: answer["text"].as_str().map(str::to_owned),
            series: answer["series"].as_array().into_iter().flatten().map(read_series).collect(),
            warnings: lines("warnings"),
            infos: lines("infos"),
        })
    }

    /// The expression as the peer prints it, in one line and in several.
    ///
    /// # Errors
    /// The error of the peer if the text is not an expression.
    pub(crate) fn parse(&mut self, text: &str, stable: bool) -> Result<(String, String), String> {
        self.send(&json!({ "parse": text, "stable": stable }));
        let answer = self.receive();
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => {
                let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
                Ok((text("text"), text("pretty")))
            }
        }
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Both fail only if the process has already exited.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bits(value: f64) -> Json {
    Json::String(format!("{:x}", value.to_bits()))
}

fn all_bits(values: &[f64]) -> Json {
    values.iter().map(|value| bits(*value)).collect()
}

fn written_series(series: &SelectedSeries) -> Json {
    let options = DecodeOptions {
        range: TimeRange::ALL,
        dedup: Dedup::Off,
        counter: false,
        aggregate: Aggregate::Raw,
        starts: true,
        window: 0,
    };
    let mut samples = Samples::new();
    series.decode(&options, &mut samples).expect("chunks that were just made");
    let start = |starts: &[i64], at: usize| starts.get(at).copied().unwrap_or(0);
    let floats = samples.timestamps.iter().zip(&samples.values).enumerate();
    let floats = floats.map(|(i, (at, value))| (*at, bits(*value), start(&samples.starts, i)));
    let histograms = samples.histograms.iter().enumerate();
    let histograms =
        histograms.map(|(i, (at, value))| (*at, written(value), start(&samples.histogram_starts, i)));
    let mut points: Vec<(i64, Json, i64)> = floats.chain(histograms).collect();
    points.sort_by_key(|(at, _, _)| *at);
    let labels: LabelMap = series.labels.iter().map(|l| (l.name.to_owned(), l.value.to_owned())).collect();
    json!({ "labels": labels, "points": points })
}

fn written(histogram: &FloatHistogram) -> Json {
    let spans =
        |spans: &[BucketSpan]| spans.iter().map(|span| json!([span.offset, span.length])).collect::<Json>();
    json!({
        "schema": histogram.schema,
        "zeroThreshold": bits(histogram.zero_threshold),
        "zeroCount": bits(histogram.zero_count),
        "count": bits(histogram.count),
        "sum": bits(histogram.sum),
        "positiveSpans": spans(&histogram.positive_spans),
        "negativeSpans": spans(&histogram.negative_spans),
        "positiveBuckets": all_bits(&histogram.positive_buckets),
        "negativeBuckets": all_bits(&histogram.negative_buckets),
        "customValues": all_bits(&histogram.custom_values),
        "reset": match histogram.counter_reset_hint {
            CounterResetHint::Unknown => 0,
            CounterResetHint::Reset => 1,
            CounterResetHint::NotReset => 2,
            CounterResetHint::Gauge => 3,
        },
    })
}

fn float(value: &Json) -> f64 {
    let text = value.as_str().expect("bits of a float");
    f64::from_bits(u64::from_str_radix(text, 16).expect("hexadecimal"))
}

/// Parses a list, which the peer may omit if it is empty.
fn list<T>(values: &Json, read: impl Fn(&Json) -> T) -> Vec<T> {
    values.as_array().into_iter().flatten().map(read).collect()
}

fn read_series(series: &Json) -> PeerSeries {
    let labels = series["labels"].as_object().expect("labels").iter();
    let labels = labels.map(|(n, v)| (n.clone(), v.as_str().expect("a text").to_owned())).collect();
    let point = |point: &Json| {
        let value = match &point[1] {
            text @ Json::String(_) => PeerValue::Float(float(text)),
            histogram => PeerValue::Histogram(Arc::new(read(histogram))),
        };
        (point[0].as_i64().expect("a time"), value)
    };
    let mut points = list(&series["points"], point);
    points.sort_by_key(|(at, _)| *at);
    (labels, points)
}

fn read(histogram: &Json) -> FloatHistogram {
    let number = |name: &str| float(&histogram[name]);
    let spans = |name: &str| {
        list(&histogram[name], |span| BucketSpan {
            offset: span[0].as_i64().expect("an offset") as i32,
            length: span[1].as_u64().expect("a length") as u32,
        })
    };
    FloatHistogram {
        counter_reset_hint: match histogram["reset"].as_u64() {
            Some(1) => CounterResetHint::Reset,
            Some(2) => CounterResetHint::NotReset,
            Some(3) => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        },
        schema: histogram["schema"].as_i64().expect("a schema") as i32,
        zero_threshold: number("zeroThreshold"),
        zero_count: number("zeroCount"),
        count: number("count"),
        sum: number("sum"),
        positive_spans: spans("positiveSpans"),
        negative_spans: spans("negativeSpans"),
        positive_buckets: list(&histogram["positiveBuckets"], float),
        negative_buckets: list(&histogram["negativeBuckets"], float),
        custom_values: list(&histogram["customValues"], float),
    }
}
