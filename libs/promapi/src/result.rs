//! Writes query results as JSON, piece by piece. The caller may send and empty the buffer between pieces.

use model::{Labels, Timestamp};

use crate::float::{write_float, write_plain_float, write_timestamp};
use crate::json::{write_labels, write_string};

/// Which boundaries of a bucket are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundaries {
    /// Upper boundary inclusive: buckets of positive values.
    OpenLeft = 0,
    /// Lower boundary inclusive: buckets of negative values.
    OpenRight = 1,
    /// No boundary inclusive.
    OpenBoth = 2,
    /// Both boundaries inclusive: the zero bucket.
    ClosedBoth = 3,
}

/// One bucket of a native histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistogramBucket {
    /// Which boundaries are inclusive.
    pub boundaries: Boundaries,
    /// Lower boundary.
    pub lower: f64,
    /// Upper boundary.
    pub upper: f64,
    /// Number of observations, not cumulative.
    pub count: f64,
}

/// A native histogram in the form in which it is printed.
#[derive(Clone, Copy, Debug)]
pub struct HistogramPoint<'a> {
    /// Number of observations.
    pub count: f64,
    /// Sum of observations.
    pub sum: f64,
    /// Buckets in ascending order, from negative over zero to positive. Empty buckets are not printed.
    pub buckets: &'a [HistogramBucket],
}

/// Writes `resultType` and `result` of a query, without the braces around `data`.
///
/// The caller opens one of the four kinds, adds the elements in their final order, and closes it. The buffer
/// is passed with each call, so that it can be sent and emptied between calls.
///
/// ```
/// use model::{Labels, Timestamp};
/// use promapi::ResultWriter;
///
/// let mut out = Vec::new();
/// let mut vector = ResultWriter::vector(&mut out);
/// let up = Labels::from_pairs([("__name__", "up")]).unwrap();
/// vector.sample(&mut out, &up, Timestamp::from_millis(1500), 1.0);
/// vector.end(&mut out);
/// assert_eq!(out, br#""resultType":"vector","result":[{"metric":{"__name__":"up"},"value":[1.500,"1"]}]"#);
/// ```
#[derive(Debug)]
#[must_use = "without end() the output is not valid JSON"]
pub struct ResultWriter {
    first: bool,
    /// The list of the current series that was started last.
    list: SampleList,
}

/// The sample lists of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleList {
    None,
    Floats,
    Histograms,
}

impl ResultWriter {
    /// Writes a complete scalar result. Its timestamp is a plain float, `1.5` and not `1.500`; its value never has an
    /// exponent.
    pub fn scalar(out: &mut Vec<u8>, at: Timestamp, value: f64) {
        out.extend_from_slice(br#""resultType":"scalar","result":["#);
        write_float(out, at.as_secs_f64());
        out.extend_from_slice(b",\"");
        write_plain_float(out, value);
        out.extend_from_slice(b"\"]");
    }

    /// Writes a complete string result.
    pub fn string(out: &mut Vec<u8>, at: Timestamp, value: &str) {
        out.extend_from_slice(br#""resultType":"string","result":["#);
        write_float(out, at.as_secs_f64());
        out.push(b',');
        write_string(out, value);
        out.push(b']');
    }

    /// Opens a vector. Add elements with [`ResultWriter::sample`] and [`ResultWriter::histogram_sample`].
    pub fn vector(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(br#""resultType":"vector","result":["#);
        Self { first: true, list: SampleList::None }
    }

    /// Opens a matrix. For each series call [`begin_series`](Self::begin_series), add its samples, and call
    /// [`end_series`](Self::end_series).
    pub fn matrix(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(br#""resultType":"matrix","result":["#);
        Self { first: true, list: SampleList::None }
    }

    /// Adds a float element to a vector.
    pub fn sample(&mut self, out: &mut Vec<u8>, metric: &Labels, at: Timestamp, value: f64) {
        self.open_element(out, metric);
        out.extend_from_slice(br#","value":"#);
        write_point(out, at, value);
        out.push(b'}');
    }

    /// Adds a histogram element to a vector.
    pub fn histogram_sample(
        &mut self,
        out: &mut Vec<u8>,
        metric: &Labels,
        at: Timestamp,
        histogram: HistogramPoint<'_>,
    ) {
        self.open_element(out, metric);
        out.extend_from_slice(br#","histogram":"#);
        write_histogram_point(out, at, histogram);
        out.push(b'}');
    }

    /// Opens a series of a matrix. Add its floats in time order, then its histograms.
    pub fn begin_series(&mut self, out: &mut Vec<u8>, metric: &Labels) {
        self.open_element(out, metric);
    }

    /// Adds a float to the current series.
    pub fn float(&mut self, out: &mut Vec<u8>, at: Timestamp, value: f64) {
        self.item_of(out, SampleList::Floats, br#","values":["#);
        write_point(out, at, value);
    }

    /// Adds a histogram to the current series.
    pub fn histogram(&mut self, out: &mut Vec<u8>, at: Timestamp, histogram: HistogramPoint<'_>) {
        self.item_of(out, SampleList::Histograms, br#","histograms":["#);
        write_histogram_point(out, at, histogram);
    }

    /// Closes the current series.
    pub fn end_series(&mut self, out: &mut Vec<u8>) {
        self.end_list(out);
        out.push(b'}');
    }

    /// Writes the text before a list item: `head` for the first one, a comma for others.
    fn item_of(&mut self, out: &mut Vec<u8>, list: SampleList, head: &[u8]) {
        if self.list == list {
            out.push(b',');
        } else {
            self.end_list(out);
            out.extend_from_slice(head);
            self.list = list;
        }
    }

    fn end_list(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.list, SampleList::None) != SampleList::None {
            out.push(b']');
        }
    }

    /// Closes the vector or matrix.
    pub fn end(self, out: &mut Vec<u8>) {
        out.push(b']');
    }

    fn open_element(&mut self, out: &mut Vec<u8>, metric: &Labels) {
        if !std::mem::take(&mut self.first) {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"metric":"#);
        write_labels(out, metric);
    }
}

/// Writes `head`, the items separated by commas, and `]`. Writes nothing if there are no items.
fn write_list<T>(
    out: &mut Vec<u8>,
    head: &[u8],
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    let mut any = false;
    for item in items {
        out.extend_from_slice(if any { b"," } else { head });
        any = true;
        write(out, item);
    }
    if any {
        out.push(b']');
    }
}

fn write_quoted(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    write_float(out, value);
    out.push(b'"');
}

fn write_point(out: &mut Vec<u8>, at: Timestamp, value: f64) {
    out.push(b'[');
    write_timestamp(out, at);
    out.push(b',');
    write_quoted(out, value);
    out.push(b']');
}

fn write_histogram_point(out: &mut Vec<u8>, at: Timestamp, histogram: HistogramPoint<'_>) {
    out.push(b'[');
    write_timestamp(out, at);
    out.extend_from_slice(br#",{"count":"#);
    write_quoted(out, histogram.count);
    out.extend_from_slice(br#","sum":"#);
    write_quoted(out, histogram.sum);
    let filled = histogram.buckets.iter().filter(|bucket| bucket.count != 0.0);
    write_list(out, b",\"buckets\":[", filled, |out, bucket| {
        out.extend_from_slice(&[b'[', b'0' + bucket.boundaries as u8]);
        for value in [bucket.lower, bucket.upper, bucket.count] {
            out.push(b',');
            write_quoted(out, value);
        }
        out.push(b']');
    });
    out.extend_from_slice(b"}]");
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1500);

    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = vec![b'{'];
        write(&mut out);
        out.push(b'}');
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, format!("{{{expected}}}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    fn histogram() -> [HistogramBucket; 4] {
        let bucket = |boundaries, lower, upper, count| HistogramBucket { boundaries, lower, upper, count };
        [
            bucket(Boundaries::OpenRight, -2.0, -1.0, 1.0),
            bucket(Boundaries::ClosedBoth, -0.001, 0.001, 2.0),
            bucket(Boundaries::OpenLeft, 0.5, 1.0, 0.0),
            bucket(Boundaries::OpenLeft, 1.0, 2.0, 0.5),
        ]
    }

    #[test]
    fn scalar_and_string_results_have_plain_timestamps() {
        check(|out| ResultWriter::scalar(out, AT, 1.0), r#""resultType":"scalar","result":[1.5,"1"]"#);
        check(
            |out| ResultWriter::string(out, AT, "<a>"),
            r#""resultType":"string","result":[1.5,"\u003ca\u003e"]"#,
        );
    }

    #[test]
    fn empty_results_are_empty_lists() {
        check(|out| ResultWriter::vector(out).end(out), r#""resultType":"vector","result":[]"#);
        check(|out| ResultWriter::matrix(out).end(out), r#""resultType":"matrix","result":[]"#);
    }

    #[test]
    fn vectors_contain_floats_and_histograms() {
        let labels = Labels::from_pairs([("job", "a")]).unwrap();
        check(
            |out| {
                let mut vector = ResultWriter::vector(out);
                vector.sample(out, &labels, AT, f64::INFINITY);
                let point = HistogramPoint { count: 3.5, sum: -0.25, buckets: &histogram() };
                vector.histogram_sample(out, &Labels::empty(), AT, point);
                vector.end(out);
            },
            concat!(
                r#""resultType":"vector","result":[{"metric":{"job":"a"},"value":[1.500,"+Inf"]},"#,
                r#"{"metric":{},"histogram":[1.500,{"count":"3.5","sum":"-0.25","buckets":["#,
                r#"[1,"-2","-1","1"],[3,"-0.001","0.001","2"],[0,"1","2","0.5"]]}]}]"#
            ),
        );
    }

    #[test]
    fn matrices_omit_empty_lists_and_buckets() {
        let labels = Labels::from_pairs([("job", "a")]).unwrap();
        let point = HistogramPoint { count: 0.0, sum: 0.0, buckets: &histogram()[2..3] };
        check(
            |out| {
                let mut matrix = ResultWriter::matrix(out);
                matrix.begin_series(out, &labels);
                matrix.float(out, AT, 1.0);
                matrix.float(out, Timestamp::from_millis(2000), 2.0);
                matrix.end_series(out);
                matrix.begin_series(out, &labels);
                matrix.histogram(out, AT, point);
                matrix.end_series(out);
                matrix.begin_series(out, &labels);
                matrix.float(out, AT, 1.0);
                matrix.histogram(out, AT, point);
                matrix.histogram(out, AT, point);
                matrix.end_series(out);
                matrix.end(out);
            },
            concat!(
                r#""resultType":"matrix","result":[{"metric":{"job":"a"},"values":[[1.500,"1"],[2,"2"]]},"#,
                r#"{"metric":{"job":"a"},"histograms":[[1.500,{"count":"0","sum":"0"}]]},"#,
                r#"{"metric":{"job":"a"},"values":[[1.500,"1"]],"#,
                r#""histograms":[[1.500,{"count":"0","sum":"0"}],[1.500,{"count":"0","sum":"0"}]]}]"#
            ),
        );
    }
}
