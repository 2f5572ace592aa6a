//! Messages of remote write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use head::{Exemplar, LogValue, Metadata};
use model::{Labels, MetricKind};
use promapi::histogram_message;
use prost::Message;
use proto::prometheus as v1;
use proto::prometheus::write_v2 as v2;

use crate::config::RemoteWriteMessage;
use crate::histogram::to_v2;
use crate::item::{Content, Item, Kind};

/// A message as it is sent, compressed.
pub(crate) fn encode(message: RemoteWriteMessage, items: &[Item]) -> Bytes {
    match message {
        RemoteWriteMessage::V1 => compress(&request_v1(items).encode_to_vec()),
        RemoteWriteMessage::V2 => compress(&request_v2(items).encode_to_vec()),
    }
}

/// Removes what a message cannot contain, and returns it: in version 2.0, exemplars of series without samples.
pub(crate) fn remove_unsendable(message: RemoteWriteMessage, items: &mut Vec<Item>) -> Vec<Item> {
    if message == RemoteWriteMessage::V1 || items.iter().all(|item| item.kind() != Kind::Exemplar) {
        return Vec::new();
    }
    let with_samples: HashSet<u64> =
        items.iter().filter(|item| item.kind() != Kind::Exemplar).map(|item| item.number).collect();
    items.extract_if(.., |item| !with_samples.contains(&item.number)).collect()
}

/// Messages of version 1.0 with metadata, each with at most this many metrics.
pub(crate) fn encode_metadata(
    metadata: &BTreeMap<String, Arc<Metadata>>,
    per_send: usize,
) -> Vec<(usize, Bytes)> {
    let all: Vec<v1::MetricMetadata> = metadata
        .iter()
        .map(|(name, metadata)| v1::MetricMetadata {
            r#type: type_number(metadata.kind),
            metric_family_name: name.clone(),
            help: metadata.help.to_string(),
            unit: metadata.unit.to_string(),
        })
        .collect();
    let encode = |part: &[v1::MetricMetadata]| {
        let request = v1::WriteRequest { timeseries: Vec::new(), metadata: part.to_vec() };
        (part.len(), compress(&request.encode_to_vec()))
    };
    all.chunks(per_send.max(1)).map(encode).collect()
}

fn compress(bytes: &[u8]) -> Bytes {
    // It fails only for more than 4 GiB, which no batch has; the receiver would refuse an empty message.
    snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default().into()
}

/// The numbers are the same in both versions.
fn type_number(kind: MetricKind) -> i32 {
    use v1::metric_metadata::MetricType;
    let kind = match kind {
        MetricKind::Unknown => MetricType::Unknown,
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
        MetricKind::GaugeHistogram => MetricType::Gaugehistogram,
        MetricKind::Summary => MetricType::Summary,
        MetricKind::Info => MetricType::Info,
        MetricKind::StateSet => MetricType::Stateset,
    };
    kind.into()
}

/// The items of each series in the order of time, in the order of the first ones. The log has late samples after newer ones.
fn by_series(items: &[Item]) -> Vec<Vec<&Item>> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut groups: Vec<Vec<&Item>> = Vec::new();
    for item in items {
        let place = *places.entry(item.number).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(item);
    }
    groups.iter_mut().for_each(|group| group.sort_by_key(|item| item.time()));
    groups
}

fn request_v1(items: &[Item]) -> v1::WriteRequest {
    let labels = |labels: &Labels| {
        let pair = |label: model::Label<'_>| v1::Label { name: label.name.into(), value: label.value.into() };
        labels.iter().map(pair).collect::<Vec<_>>()
    };
    let series = |group: Vec<&Item>| {
        let mut series = v1::TimeSeries {
            labels: group.first().map(|item| labels(&item.series.labels)).unwrap_or_default(),
            ..v1::TimeSeries::default()
        };
        for item in group {
            match &item.content {
                Content::Sample(sample) => {
                    let time = sample.time.as_millis();
                    match &sample.value {
                        LogValue::Float(value) => {
                            series.samples.push(v1::Sample { value: *value, timestamp: time });
                        }
                        LogValue::Histogram { integer, histogram } => {
                            series.histograms.push(histogram_message(histogram, *integer, time));
                        }
                    }
                }
                Content::Exemplar(Exemplar { labels: own, value, time, .. }) => series
                    .exemplars
                    .push(v1::Exemplar { labels: labels(own), value: *value, timestamp: time.as_millis() }),
            }
        }
        series
    };
    v1::WriteRequest { timeseries: by_series(items).into_iter().map(series).collect(), metadata: Vec::new() }
}

/// The strings of a message, each once. The first one is empty.
struct Symbols {
    places: HashMap<String, u32>,
    all: Vec<String>,
}

impl Symbols {
    fn new() -> Self {
        Self { places: HashMap::from([(String::new(), 0)]), all: vec![String::new()] }
    }

    fn place(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.all.len() as u32;
        self.places.insert(text.to_owned(), place);
        self.all.push(text.to_owned());
        place
    }

    fn labels(&mut self, labels: &Labels) -> Vec<u32> {
        labels.iter().flat_map(|label| [self.place(label.name), self.place(label.value)]).collect()
    }
}

fn request_v2(items: &[Item]) -> v2::Request {
    let mut symbols = Symbols::new();
    let mut timeseries = Vec::new();
    for group in by_series(items) {
        let Some(first) = group.first() else { continue };
        let mut series = v2::TimeSeries {
            labels_refs: symbols.labels(&first.series.labels),
            metadata: first.series.metadata.as_ref().map(|metadata| v2::Metadata {
                r#type: type_number(metadata.kind),
                help_ref: symbols.place(&metadata.help),
                unit_ref: symbols.place(&metadata.unit),
            }),
            ..v2::TimeSeries::default()
        };
        for item in group {
            match &item.content {
                Content::Sample(sample) => {
                    let (time, start) = (sample.time.as_millis(), sample.start.as_millis());
                    match &sample.value {
                        LogValue::Float(value) => series.samples.push(v2::Sample {
                            value: *value,
                            timestamp: time,
                            start_timestamp: start,
                        }),
                        LogValue::Histogram { integer, histogram } => {
                            series.histograms.push(to_v2(histogram, *integer, time, start));
                        }
                    }
                }
                Content::Exemplar(Exemplar { labels, value, time, .. }) => {
                    let labels_refs = symbols.labels(labels);
                    let timestamp = time.as_millis();
                    series.exemplars.push(v2::Exemplar { labels_refs, value: *value, timestamp });
                }
            }
        }
        timeseries.push(series);
    }
    v2::Request { symbols: symbols.all, timeseries }
}
