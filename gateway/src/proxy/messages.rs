//! gRPC messages on their way: the one of a request, and those of an answer, counted without decoding them.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tonic::{Status, body::Body};

/// Largest request that is read before it is forwarded, in bytes.
pub(crate) const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Time limit for a whole request to arrive. It keeps one of the requests that may run at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a whole request.
///
/// # Errors
/// `ResourceExhausted` above 1 MiB; `DeadlineExceeded` if it does not arrive in time; `Unavailable` if it is interrupted.
pub(crate) async fn whole_request(body: Body) -> Result<Bytes, Status> {
    let reading = timeout(REQUEST_TIMEOUT, Limited::new(body, MAX_REQUEST_BYTES).collect());
    let late = || format!("the request did not arrive within {} s", REQUEST_TIMEOUT.as_secs());
    match reading.await.map_err(|_| Status::deadline_exceeded(late()))? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::resource_exhausted("the request is larger than 1 MiB"))
        }
        Err(error) => Err(Status::unavailable(format!("the request was interrupted: {error}"))),
    }
}

/// Counts the series in the answers of a store, frame by frame, with a few bytes of state.
///
/// A message of `SeriesResponse` has a series (field 1), a warning, hints, or a batch of series (field 4). Only the tags are
/// looked at. Format: <https://protobuf.dev/programming-guides/encoding/>.
#[derive(Debug, Default)]
pub(crate) struct SeriesCounter {
    series: u64,
    /// The prefix of the next message, as far as it has arrived.
    prefix: [u8; 5],
    prefix_filled: usize,
    /// Bytes of the present message that have not arrived.
    message_left: u64,
    place: Place,
}

/// What the next byte of a message is.
#[derive(Debug, Default)]
enum Place {
    /// A tag, at the top of the message or in a batch.
    #[default]
    Tag,
    /// A byte of the length of a field.
    Length { is_batch: bool, value: u64, shift: u32 },
    /// The rest of a field.
    Skip(u64),
    /// Nothing that is understood: the rest of the message is not looked at.
    Opaque,
}

const TAG_SERIES: u8 = 0x0a;
const TAG_BATCH: u8 = 0x22;
/// The wire type of fields with a length.
const WIRE_LENGTH: u8 = 2;

impl SeriesCounter {
    /// Series so far.
    pub(crate) fn series(&self) -> u64 {
        self.series
    }

    /// Looks at the next bytes of an answer.
    pub(crate) fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.message_left == 0 {
                data = self.read_prefix(data);
                continue;
            }
            let most = usize::try_from(self.message_left).unwrap_or(usize::MAX).min(data.len());
            let used = self.step(&data[..most]);
            self.message_left -= used as u64;
            data.advance(used);
        }
    }

    fn read_prefix<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let used = (self.prefix.len() - self.prefix_filled).min(data.len());
        self.prefix[self.prefix_filled..self.prefix_filled + used].copy_from_slice(&data[..used]);
        self.prefix_filled += used;
        if self.prefix_filled == self.prefix.len() {
            self.prefix_filled = 0;
            let [compressed, a, b, c, d] = self.prefix;
            self.message_left = u64::from(u32::from_be_bytes([a, b, c, d]));
            self.place = Place::Tag;
            if compressed != 0 {
                // Thanos sends one series in each compressed message.
                self.series += 1;
                self.place = Place::Opaque;
            }
        }
        &data[used..]
    }

    /// Looks at bytes of one message, and returns how many; at least one of a slice that is not empty.
    fn step(&mut self, data: &[u8]) -> usize {
        match &mut self.place {
            Place::Opaque => data.len(),
            Place::Skip(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= used as u64;
                if *left == 0 {
                    self.place = Place::Tag;
                }
                used
            }
            Place::Tag => {
                let tag = data[0];
                self.series += u64::from(tag == TAG_SERIES);
                self.place = match tag & 7 {
                    WIRE_LENGTH if tag < 0x80 => {
                        Place::Length { is_batch: tag == TAG_BATCH, value: 0, shift: 0 }
                    }
                    _ => Place::Opaque,
                };
                1
            }
            Place::Length { is_batch, value, shift } => {
                *value |= u64::from(data[0] & 0x7f) << *shift;
                *shift += 7;
                if data[0] < 0x80 {
                    // The series of a batch follow as fields of the same number as a single one.
                    self.place = if *is_batch || *value == 0 { Place::Tag } else { Place::Skip(*value) };
                } else if *shift > 28 {
                    self.place = Place::Opaque;
                }
                1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::thanos::{Label, Series, SeriesBatch, SeriesResponse, series_response::Result as Answer};

    use super::*;

    fn series(length: usize) -> Series {
        let label = Label { name: "a".into(), value: "x".repeat(length) };
        Series { labels: vec![label], ..Default::default() }
    }

    fn framed(answer: Answer) -> Vec<u8> {
        let message = SeriesResponse { result: Some(answer) }.encode_to_vec();
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        framed
    }

    #[test]
    fn series_are_counted_alone_and_in_batches_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for length in [0, 1, 200, 20_000] {
            stream.extend(framed(Answer::Series(series(length))));
        }
        stream.extend(framed(Answer::Warning("a warning".into())));
        stream.extend(framed(Answer::Batch(SeriesBatch { series: vec![series(3), series(300), series(0)] })));
        stream.extend([1, 0, 0, 0, 3, 7, 7, 7]);
        stream.extend(framed(Answer::Series(series(5))));
        for piece in [1, 2, 3, 7, 100, stream.len()] {
            let mut counter = SeriesCounter::default();
            stream.chunks(piece).for_each(|data| counter.push(data));
            assert_eq!(counter.series(), 4 + 3 + 1 + 1, "in pieces of {piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_given_up() {
        let begun = http_body_util::StreamBody::new(futures::stream::pending::<
            Result<http_body::Frame<Bytes>, Status>,
        >());
        let late = whole_request(Body::new(begun)).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    }

    #[test]
    fn other_bytes_are_skipped() {
        let mut state = 1_u64;
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            for _ in 0..64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((state >> 56) as u8);
            }
            SeriesCounter::default().push(&bytes);
        }
    }
}
