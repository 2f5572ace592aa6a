//! Reads the answers with label names, label values and metadata. They are scanned before they are decoded, as series are.

use std::marker::PhantomData;
use std::mem::size_of;

use bytes::{Buf, Bytes};
use prost::Message;
use proto::thanos as wire;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::convert::read::{ALLOCATION, FieldValue, MessageFields, SeriesFrameError, text};
use crate::limits::LabelLimits;
use crate::{AnswerLimits, LabelsAnswer, MetricMetadata};

/// Most warnings that are kept of an answer, and most names or values over a limit that it describes.
const WARNINGS: usize = 100;
const DESCRIBED: usize = 10;

/// What a labels answer contains.
#[derive(Clone, Debug)]
pub(crate) enum LabelsKind {
    /// Label names.
    Names,
    /// Values of this label.
    Values(String),
}

/// The client's end of LabelNames and LabelValues, whose answers have the same form: generated requests out, answers in.
pub(crate) struct LabelsCodec<R> {
    pub(crate) kind: LabelsKind,
    pub(crate) labels: LabelLimits,
    pub(crate) memory: AnswerLimits,
    pub(crate) request: PhantomData<R>,
}

impl<R: Message + Default + 'static> Codec for LabelsCodec<R> {
    type Encode = R;
    type Decode = LabelsAnswer;
    type Encoder = ProstEncoder<R>;
    type Decoder = LabelsDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<R, R>::default().encoder()
    }

    fn decoder(&mut self) -> LabelsDecoder {
        LabelsDecoder { kind: self.kind.clone(), labels: self.labels, memory: self.memory.clone() }
    }
}

/// Reads labels answers within limits.
pub(crate) struct LabelsDecoder {
    kind: LabelsKind,
    labels: LabelLimits,
    memory: AnswerLimits,
}

impl Decoder for LabelsDecoder {
    type Item = LabelsAnswer;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<LabelsAnswer>, Status> {
        let message = src.copy_to_bytes(src.remaining());
        self.memory.received();
        labels_answer(&message, &self.kind, &self.labels, &self.memory).map(Some).map_err(Status::from)
    }
}

/// Reads `LabelNamesResponse` and `LabelValuesResponse`: the names or values in field 1, warnings in field 2.
///
/// A name or value over a limit is left out with a warning. An empty value means "no such label" and is left out too.
pub(super) fn labels_answer(
    message: &Bytes,
    kind: &LabelsKind,
    limits: &LabelLimits,
    memory: &AnswerLimits,
) -> Result<LabelsAnswer, SeriesFrameError> {
    let (mut bytes, mut count) = (message.len(), 0);
    let mut fields = MessageFields::new(message, 0..message.len());
    while let Some((number, value)) = fields.next()? {
        if let (1 | 2, FieldValue::Bytes(window)) = (number, value) {
            bytes += size_of::<String>() + ALLOCATION + window.len();
            count += usize::from(number == 1);
        }
    }
    memory.admit(bytes)?;
    let mut answer = LabelsAnswer { values: Vec::with_capacity(count), ..LabelsAnswer::default() };
    let mut dropped = 0;
    let mut fields = MessageFields::new(message, 0..message.len());
    while let Some((number, value)) = fields.next()? {
        let (1 | 2, FieldValue::Bytes(window)) = (number, value) else { continue };
        let found = text(message, window)?;
        if number == 2 {
            if answer.warnings.len() < WARNINGS {
                answer.warnings.push(found.to_owned());
            }
            continue;
        }
        let problem = match kind {
            LabelsKind::Names if found.is_empty() => {
                return Err(SeriesFrameError::Malformed("empty label name"));
            }
            LabelsKind::Names => limits.name_problem(found),
            LabelsKind::Values(_) if found.is_empty() => continue,
            LabelsKind::Values(label) => limits.value_problem(label, found),
        };
        let Some(problem) = problem else {
            answer.values.push(found.to_owned());
            continue;
        };
        dropped += 1;
        if dropped <= DESCRIBED {
            answer.warnings.push(format!("{problem}; it is dropped"));
        }
    }
    if dropped > DESCRIBED {
        let rest = dropped - DESCRIBED;
        answer.warnings.push(format!("{rest} more of them are dropped, because they are too long"));
    }
    Ok(answer)
}

/// The client's end of MetricMetadata.
pub(crate) struct MetadataCodec {
    pub(crate) memory: AnswerLimits,
}

impl Codec for MetadataCodec {
    type Encode = wire::MetricMetadataRequest;
    type Decode = wire::MetricMetadataResponse;
    type Encoder = ProstEncoder<wire::MetricMetadataRequest>;
    type Decoder = MetadataDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<wire::MetricMetadataRequest, wire::MetricMetadataRequest>::default().encoder()
    }

    fn decoder(&mut self) -> MetadataDecoder {
        MetadataDecoder { memory: self.memory.clone(), used: 0 }
    }
}

/// Reads the messages of one metadata answer, as long as they are within the limits together.
pub(crate) struct MetadataDecoder {
    memory: AnswerLimits,
    used: usize,
}

impl Decoder for MetadataDecoder {
    type Item = wire::MetricMetadataResponse;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let message = src.copy_to_bytes(src.remaining());
        self.memory.received();
        self.used = self.used.saturating_add(metadata_size(&message).map_err(Status::from)?);
        self.memory.admit(self.used).map_err(|error| Status::from(SeriesFrameError::from(error)))?;
        let decoded = wire::MetricMetadataResponse::decode(message);
        decoded.map(Some).map_err(|cause| Status::data_loss(cause.to_string()))
    }
}

/// Estimates the memory of a decoded `MetricMetadataResponse`: a map from metric names to lists of entries, or a warning.
pub(super) fn metadata_size(message: &Bytes) -> Result<usize, SeriesFrameError> {
    /// A metric in both maps that it passes through, and an entry as it is received and as it is kept.
    const METRIC: usize = 2 * (size_of::<String>() + size_of::<Vec<MetricMetadata>>() + 2 * ALLOCATION);
    const ENTRY: usize = size_of::<wire::Meta>() + size_of::<MetricMetadata>() + 4 * ALLOCATION;
    // The texts exist twice for a moment: in the message and decoded.
    let mut bytes = size_of::<wire::MetricMetadataResponse>() + 2 * message.len();
    let mut response = MessageFields::new(message, 0..message.len());
    while let Some((number, value)) = response.next()? {
        let (1, FieldValue::Bytes(window)) = (number, value) else { continue };
        let mut map = MessageFields::new(message, window);
        while let Some((_, value)) = map.next()? {
            let FieldValue::Bytes(window) = value else { continue };
            bytes += METRIC;
            let mut metric = MessageFields::new(message, window);
            while let Some((number, value)) = metric.next()? {
                let (2, FieldValue::Bytes(window)) = (number, value) else { continue };
                let mut entries = MessageFields::new(message, window);
                while entries.next()?.is_some() {
                    bytes += ENTRY;
                }
            }
        }
    }
    Ok(bytes)
}
