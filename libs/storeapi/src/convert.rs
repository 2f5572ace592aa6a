//! Converts between protobuf and domain types. No other module of this crate reads or builds a protobuf message by hand.
//!
//! Requests and Info use the generated types. Series frames, which carry most of the data, are read from and written to
//! bytes directly, in [`read`] and [`write`]. Lists are read from bytes, too ([`listing`]).

mod answers;
mod hints;
mod info;
mod listing;
mod matchers;
mod read;
mod request;
mod write;

use bytes::Buf;
use proto::thanos as wire;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

pub(crate) use answers::{LabelsCodec, LabelsKind, MetadataCodec};
pub(crate) use hints::{HintsOf, answer_to_wire};
pub use info::{info_from_wire, info_to_wire, labels_from_wire, labels_to_wire};
pub(crate) use listing::ListingCodec;
pub use listing::WireListing;
pub(crate) use request::{
    AcceptedEncodings, add_metadata, label_names_from_wire, label_names_to_wire, label_values_from_wire,
    label_values_to_wire, metadata_request_from_wire, metadata_request_to_wire, metadata_to_wire,
    series_request_from_wire, series_request_to_wire,
};

use crate::{AnswerLimits, SeriesFrame, WireLimits};
pub(crate) use read::{DroppedSeries, ReadFrame};

/// The client's end of Series: generated requests out, frames in.
pub(crate) struct SeriesCodec {
    limits: WireLimits,
    memory: AnswerLimits,
}

impl SeriesCodec {
    pub(crate) fn client(limits: WireLimits, memory: AnswerLimits) -> Self {
        Self { limits, memory }
    }
}

impl Codec for SeriesCodec {
    type Encode = wire::SeriesRequest;
    type Decode = ReadFrame;
    type Encoder = ProstEncoder<wire::SeriesRequest>;
    type Decoder = SeriesFrameDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<wire::SeriesRequest, wire::SeriesRequest>::default().encoder()
    }

    fn decoder(&mut self) -> SeriesFrameDecoder {
        SeriesFrameDecoder { limits: self.limits, memory: self.memory.clone() }
    }
}

/// Reads frames within limits.
pub(crate) struct SeriesFrameDecoder {
    limits: WireLimits,
    memory: AnswerLimits,
}

impl Decoder for SeriesFrameDecoder {
    type Item = ReadFrame;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<ReadFrame>, Status> {
        // One message is one buffer: this takes it without copying.
        let frame = src.copy_to_bytes(src.remaining());
        self.memory.received();
        read::frame(&frame, &self.limits, &self.memory).map(Some).map_err(Status::from)
    }
}

/// The server's end of Series: generated requests in, frames out.
#[derive(Default)]
pub(crate) struct ServerCodec;

impl Codec for ServerCodec {
    type Encode = SeriesFrame;
    type Decode = wire::SeriesRequest;
    type Encoder = SeriesFrameEncoder;
    type Decoder = ProstDecoder<wire::SeriesRequest>;

    fn encoder(&mut self) -> SeriesFrameEncoder {
        SeriesFrameEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<wire::SeriesRequest, wire::SeriesRequest>::default().decoder()
    }
}

/// Writes frames; keeps the memory of what it measures between them.
#[derive(Default)]
pub(crate) struct SeriesFrameEncoder {
    measured: write::Measured,
}

impl Encoder for SeriesFrameEncoder {
    type Item = SeriesFrame;
    type Error = Status;

    fn encode(&mut self, frame: SeriesFrame, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(self.measured.measure(&frame));
        self.measured.write(&frame, dst);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

#[cfg(test)]
mod tests;
