//! Exemplars.

use std::ops::Range;

use model::{TimeRange, Timestamp};
use promapi::{Exemplar, ExemplarSeries};
use prost::Message;
use proto::thanos as wire;

use crate::convert::listing::{ListingReader, ReadError, WireListing, pieces, set};
use crate::convert::read::FieldValue::{Bytes, Fixed, Number};
use crate::convert::request::{partial_from_wire, partial_to_wire};
use crate::{ExemplarsRequest, StoreError};

impl WireListing for ExemplarSeries {
    type WireRequest = wire::ExemplarsRequest;
    type WireResponse = wire::ExemplarsResponse;
    const SERVICE: &'static str = wire::exemplars_server::SERVICE_NAME;
    const PATH: &'static str = "/thanos.Exemplars/Exemplars";

    fn request_to_wire(request: &ExemplarsRequest) -> wire::ExemplarsRequest {
        wire::ExemplarsRequest {
            query: request.query.clone(),
            start: request.range.min.as_millis(),
            end: request.range.max.as_millis(),
            partial_response_strategy: partial_to_wire(request.partial_response).1,
        }
    }

    fn request_from_wire(request: wire::ExemplarsRequest) -> Result<ExemplarsRequest, StoreError> {
        let at = Timestamp::from_millis;
        Ok(ExemplarsRequest {
            query: request.query,
            range: TimeRange::new(at(request.start), at(request.end)),
            partial_response: partial_from_wire(false, request.partial_response_strategy),
        })
    }

    fn read(reader: &ListingReader<'_>, item: Range<usize>, into: &mut Vec<Self>) -> Result<(), ReadError> {
        let mut series = Self::default();
        let mut fields = reader.message::<Self>(item)?;
        while let Some(field) = fields.next()? {
            match field {
                (1, Bytes(window)) => series.series_labels = reader.labels(window)?,
                (2, Bytes(window)) => series.exemplars.push(exemplar(reader, window)?),
                _ => {}
            }
        }
        into.push(series);
        Ok(())
    }

    fn to_wire(self) -> Vec<wire::ExemplarsResponse> {
        let labels = self.series_labels;
        let exemplar = |exemplar: Exemplar| wire::Exemplar {
            labels: set(&exemplar.labels),
            value: exemplar.value,
            ts: exemplar.timestamp.as_millis(),
        };
        let exemplars = self.exemplars.into_iter().map(exemplar).collect();
        let response = |exemplars| {
            let data = wire::ExemplarData { series_labels: set(&labels), exemplars };
            wire::ExemplarsResponse { result: Some(wire::exemplars_response::Result::Data(data)) }
        };
        pieces(exemplars, Message::encoded_len).into_iter().map(response).collect()
    }

    fn warning_to_wire(text: String) -> wire::ExemplarsResponse {
        wire::ExemplarsResponse { result: Some(wire::exemplars_response::Result::Warning(text)) }
    }
}

fn exemplar(reader: &ListingReader<'_>, window: Range<usize>) -> Result<Exemplar, ReadError> {
    let mut exemplar = Exemplar { labels: Default::default(), value: 0.0, timestamp: Timestamp::EPOCH };
    let mut fields = reader.message::<Exemplar>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => exemplar.labels = reader.labels(window)?,
            (2, Fixed(bits)) => exemplar.value = f64::from_bits(bits),
            (3, Number(millis)) => exemplar.timestamp = Timestamp::from_millis(millis as i64),
            _ => {}
        }
    }
    Ok(exemplar)
}
