//! What an evaluated query returns.

use std::sync::Arc;

use budget::Reservation;
use model::{FloatHistogram, Labels, Sample, Timestamp};

use crate::explain::PlanNode;
use crate::value::annotations::Annotations;

/// An answer, its annotations, and what it cost.
#[derive(Clone, Debug)]
pub struct QueryOutput {
    /// The answer.
    pub value: QueryValue,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// What it cost.
    pub stats: Stats,
    /// What each operator did; `Some` if the evaluation was measured.
    pub analysis: Option<PlanNode>,
    /// The reservation of the answer's memory. Keep it as long as the answer, or what is computed from it, uses memory.
    pub memory: AnswerMemory,
}

/// Keeps the memory of an answer reserved until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct AnswerMemory {
    _reserved: Arc<Reservation>,
}

impl AnswerMemory {
    pub(crate) fn new(reserved: Reservation) -> Self {
        Self { _reserved: Arc::new(reserved) }
    }
}

/// The value of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// One number; only from an instant query.
    Scalar(Sample),
    /// A string; only from an instant query.
    String {
        /// The query's instant.
        timestamp: Timestamp,
        /// The string.
        value: String,
    },
    /// One sample for each series, in the order of the expression (that of a `sort` is kept); only from an instant query.
    Vector(Vec<VectorSample>),
    /// Series sorted by labels: from a range query, or from an instant query for a range.
    Matrix(Vec<MatrixSeries>),
}

/// A float or a histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One series of an instant vector. Its timestamp is the query's instant.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// The series.
    pub labels: Labels,
    /// The query's instant.
    pub timestamp: Timestamp,
    /// Its value.
    pub value: SampleValue,
}

/// One series of a matrix. At each instant it has a float, a histogram or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixSeries {
    /// The series.
    pub labels: Labels,
    /// Its floats in time order.
    pub floats: Vec<Sample>,
    /// Its histograms in time order.
    pub histograms: Vec<(Timestamp, Arc<FloatHistogram>)>,
}

impl MatrixSeries {
    /// Memory in bytes. A histogram that consecutive samples share counts once; one that other series share counts in each.
    pub(crate) fn size_bytes(&self) -> u64 {
        let mut histograms = 0;
        let mut last: Option<&Arc<FloatHistogram>> = None;
        for (_, histogram) in &self.histograms {
            if last.is_none_or(|last| !Arc::ptr_eq(last, histogram)) {
                histograms += histogram.size_bytes();
            }
            last = Some(histogram);
        }
        let samples = self.floats.len() * size_of::<Sample>()
            + self.histograms.len() * size_of::<(Timestamp, Arc<FloatHistogram>)>();
        (size_of::<Self>() + self.labels.size_bytes() + samples + histograms) as u64
    }
}

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series that were offered.
    pub series: u64,
    /// Samples that were decoded. A histogram counts as one sample for every 16 bytes that it takes.
    pub samples: u64,
    /// Most bytes that all operators had reserved at one time.
    pub peak_bytes: u64,
}
