//! What is sent: samples and exemplars with the labels that they are sent with.

use std::sync::Arc;

use head::{Exemplar, LogSample, LogValue, Metadata};
use model::{Labels, Timestamp};

/// A series as it is sent.
#[derive(Debug)]
pub(crate) struct SentSeries {
    pub(crate) labels: Labels,
    /// A hash of the labels, which decides the shard.
    pub(crate) hash: u64,
    pub(crate) metadata: Option<Arc<Metadata>>,
}

/// A sample or an exemplar.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The number of the series in the log.
    pub(crate) number: u64,
    pub(crate) series: Arc<SentSeries>,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Sample(LogSample),
    Exemplar(Exemplar),
}

/// The kinds of what is sent, which metrics count apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sample,
    Histogram,
    Exemplar,
}

impl Item {
    pub(crate) fn kind(&self) -> Kind {
        match &self.content {
            Content::Sample(LogSample { value: LogValue::Float(_), .. }) => Kind::Sample,
            Content::Sample(_) => Kind::Histogram,
            Content::Exemplar(_) => Kind::Exemplar,
        }
    }

    pub(crate) fn time(&self) -> Timestamp {
        match &self.content {
            Content::Sample(sample) => sample.time,
            Content::Exemplar(exemplar) => exemplar.time,
        }
    }
}

/// Numbers of samples, histograms and exemplars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
}

impl Counts {
    pub(crate) fn of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut counts = Self::default();
        items.into_iter().for_each(|item| counts.add(item.kind()));
        counts
    }

    pub(crate) fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::Sample => &mut self.samples,
            Kind::Histogram => &mut self.histograms,
            Kind::Exemplar => &mut self.exemplars,
        } += 1;
    }

    pub(crate) fn all(&self) -> u64 {
        self.samples + self.histograms + self.exemplars
    }
}
