//! Lists: rules, targets, exemplars and statistics of TSDBs.
//!
//! Requests are generated types. Answers are written as generated types, and read straight from their bytes, so that each
//! allocation is counted before it is made: a small message cannot become a large structure.

mod exemplars;
mod rules;
mod status;
mod targets;

use std::marker::PhantomData;
use std::ops::Range;

use bytes::{Buf, Bytes};
use model::Labels;
use promapi::ApiTime;
use prost::Message;
use proto::thanos as wire;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::convert::read::{FieldValue, MessageFields, SeriesFrameError, text};
use crate::{AnswerMemory, Listed, Listing, StoreError};

/// Bytes of items after which a server begins another message.
const MESSAGE_BYTES: usize = 1 << 20;

/// The messages of a list.
pub trait WireListing: Listing {
    /// The request message.
    type WireRequest: Message + Default + 'static;
    /// The message of the answer.
    type WireResponse: Message + Default + 'static;
    /// The name of the service.
    const SERVICE: &'static str;
    /// The path of its method.
    const PATH: &'static str;

    #[doc(hidden)]
    fn request_to_wire(request: &Self::Request) -> Self::WireRequest;
    #[doc(hidden)]
    fn request_from_wire(request: Self::WireRequest) -> Result<Self::Request, StoreError>;
    #[doc(hidden)]
    fn read(reader: &ListingReader<'_>, item: Range<usize>, into: &mut Vec<Self>) -> Result<(), ReadError>;
    #[doc(hidden)]
    fn to_wire(self) -> Vec<Self::WireResponse>;
    #[doc(hidden)]
    fn warning_to_wire(text: String) -> Self::WireResponse;
}

/// Why a message of a list was rejected.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[doc(hidden)]
    #[error("{0}")]
    Frame(String),
    #[doc(hidden)]
    #[error(transparent)]
    Memory(#[from] StoreError),
}

impl From<SeriesFrameError> for ReadError {
    fn from(error: SeriesFrameError) -> Self {
        Self::Frame(error.to_string())
    }
}

/// Reads one message and counts its memory.
pub struct ListingReader<'a> {
    frame: &'a Bytes,
    memory: &'a AnswerMemory,
}

impl<'a> ListingReader<'a> {
    /// The fields of a message that becomes a `T`, whose memory is counted.
    fn message<T>(&self, window: Range<usize>) -> Result<MessageFields<'a>, ReadError> {
        // Twice, because a list that grows may have twice as much room as items.
        self.memory.add(2 * size_of::<T>())?;
        Ok(MessageFields::new(self.frame, window))
    }

    fn text(&self, window: Range<usize>) -> Result<String, ReadError> {
        self.memory.add(window.len())?;
        Ok(text(self.frame, window)?.to_owned())
    }

    /// A label set.
    fn labels(&self, window: Range<usize>) -> Result<Labels, ReadError> {
        // The pairs exist only until the set is built, but they are many if the labels are short.
        let pair = size_of::<(&str, &str)>();
        self.memory.add(window.len())?;
        let mut fields = MessageFields::new(self.frame, window);
        let mut pairs = Vec::new();
        while let Some((number, value)) = fields.next()? {
            if let (1, FieldValue::Bytes(label)) = (number, value) {
                self.memory.add(pair)?;
                pairs.push(self.label(label)?);
            }
        }
        Labels::from_pairs(pairs).map_err(|cause| ReadError::Frame(cause.to_string()))
    }

    fn label(&self, window: Range<usize>) -> Result<(&'a str, &'a str), ReadError> {
        let mut fields = MessageFields::new(self.frame, window);
        let (mut name, mut content) = ("", "");
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, FieldValue::Bytes(window)) => name = text(self.frame, window)?,
                (2, FieldValue::Bytes(window)) => content = text(self.frame, window)?,
                _ => {}
            }
        }
        Ok((name, content))
    }

    fn time(&self, window: Range<usize>) -> Result<ApiTime, ReadError> {
        let mut fields = MessageFields::new(self.frame, window);
        let (mut seconds, mut nanos) = (0, 0);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, FieldValue::Number(n)) => seconds = n as i64,
                (2, FieldValue::Number(n)) => nanos = n as i32,
                _ => {}
            }
        }
        Ok(ApiTime::from_unix(seconds, nanos))
    }
}

/// A float of a field; 0 if JSON cannot express it.
fn number(bits: u64) -> f64 {
    Some(f64::from_bits(bits)).filter(|value| value.is_finite()).unwrap_or(0.0)
}

/// Reads a message of the answer: an item, or a warning. A message with neither is skipped.
fn read<L: WireListing>(frame: &Bytes, memory: &AnswerMemory) -> Result<Listed<L>, ReadError> {
    let reader = ListingReader { frame, memory };
    let mut listed = Listed::default();
    let mut fields = MessageFields::new(frame, 0..frame.len());
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, FieldValue::Bytes(item)) => L::read(&reader, item, &mut listed.items)?,
            (2, FieldValue::Bytes(warning)) => listed.warnings.push(reader.text(warning)?),
            _ => {}
        }
    }
    Ok(listed)
}

/// The client's end: generated requests out, counted items in.
pub(crate) struct ListingCodec<L> {
    memory: AnswerMemory,
    kind: PhantomData<fn() -> L>,
}

impl<L> ListingCodec<L> {
    pub(crate) fn client(memory: AnswerMemory) -> Self {
        Self { memory, kind: PhantomData }
    }
}

impl<L: WireListing> Codec for ListingCodec<L> {
    type Encode = L::WireRequest;
    type Decode = Listed<L>;
    type Encoder = ProstEncoder<L::WireRequest>;
    type Decoder = ListingDecoder<L>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<L::WireRequest, L::WireRequest>::default().encoder()
    }

    fn decoder(&mut self) -> ListingDecoder<L> {
        ListingDecoder { memory: self.memory.clone(), kind: PhantomData }
    }
}

/// Reads messages of an answer.
pub(crate) struct ListingDecoder<L> {
    memory: AnswerMemory,
    kind: PhantomData<fn() -> L>,
}

impl<L: WireListing> Decoder for ListingDecoder<L> {
    type Item = Listed<L>;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Listed<L>>, Status> {
        let frame = src.copy_to_bytes(src.remaining());
        self.memory.received();
        read(&frame, &self.memory).map(Some).map_err(|error| match error {
            ReadError::Memory(error) => error.into(),
            error => Status::data_loss(error.to_string()),
        })
    }
}

/// A label set for the wire.
fn set(labels: &Labels) -> Option<wire::LabelSet> {
    Some(crate::convert::labels_to_wire(labels))
}

fn timestamp(at: ApiTime) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = at.to_unix();
    Some(prost_types::Timestamp { seconds, nanos })
}

/// Splits items into pieces of about [`MESSAGE_BYTES`] each. There is at least one piece.
fn pieces<T>(items: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut pieces, mut size) = (vec![Vec::new()], 0);
    for item in items {
        let more = bytes(&item);
        if size > 0 && size + more > MESSAGE_BYTES {
            pieces.push(Vec::new());
            size = 0;
        }
        size += more;
        if let Some(last) = pieces.last_mut() {
            last.push(item);
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
