//! What an evaluated query gives back.

use std::sync::Arc;

use budget::Reservation;
use model::{FloatHistogram, Labels, Sample, Timestamp};

use crate::explain::PlanNode;
use crate::value::annotations::Annotations;

/// An answer, what the engine had to say about it, and what it cost.
#[derive(Clone, Debug)]
pub struct QueryOutput {
    /// The answer.
    pub value: QueryValue,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// What it cost.
    pub stats: Stats,
    /// What each operator did, where that was asked for.
    pub analysis: Option<PlanNode>,
    /// What the memory of the answer is held by: to be kept as long as the answer, or what is made of it, takes memory.
    pub memory: AnswerMemory,
}

/// Holds the memory of an answer, until the last clone of it is dropped.
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
    /// One sample a series, in the order the expression gave them (a `sort` keeps its order); only from an
    /// instant query.
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
    /// Memory in bytes. A histogram that neighbours share counts once, and also where others share it.
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
    /// Samples that were decoded; a histogram counts as one for every 16 bytes it takes.
    pub samples: u64,
    /// Most bytes that all operators held at one time.
    pub peak_bytes: u64,
}
