//! Looks at the messages of a cluster before they are decoded.
//!
//! A message of 4 MiB may have two million empty fields, and each of them is dozens of bytes of memory once it is decoded. So the
//! fields are counted first, at all depths, without memory of their own.
//! Format: <https://protobuf.dev/programming-guides/encoding/>.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tonic::{Status, body::Body};

/// Most fields of a message, at all depths together: a store of 20,000 blocks with five labels each.
const MAX_FIELDS: usize = 400_000;
/// Deepest nesting that is looked at. The messages of a session have five levels; deeper ones are not decoded.
const MAX_DEPTH: usize = 8;
/// Length of the prefix of a gRPC message: a flag and the length.
const PREFIX_BYTES: usize = 5;

/// Passes on whole messages that are within the limits, and ends with an error at the first one that is not.
pub(super) struct ScannedBody {
    body: Body,
    max_message_bytes: usize,
    received: BytesMut,
    scanned: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl ScannedBody {
    pub(super) fn new(body: Body, max_message_bytes: usize) -> Self {
        Self {
            body,
            max_message_bytes,
            received: BytesMut::new(),
            scanned: VecDeque::new(),
            trailers: None,
            ended: false,
        }
    }

    /// Moves the whole messages that were received.
    fn scan(&mut self) -> Result<(), Status> {
        while let Some(prefix) = self.received.first_chunk::<PREFIX_BYTES>() {
            let [flag, length @ ..] = *prefix;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if flag != 0 || length > self.max_message_bytes {
                let most = self.max_message_bytes;
                return Err(Status::resource_exhausted(format!(
                    "a message of the control session is compressed or larger than {most} bytes"
                )));
            }
            if self.received.len() < PREFIX_BYTES + length {
                break;
            }
            let message = self.received.split_to(PREFIX_BYTES + length).freeze();
            if fields(&message[PREFIX_BYTES..], 0).is_none_or(|fields| fields > MAX_FIELDS) {
                return Err(Status::resource_exhausted(format!(
                    "a message of the control session is malformed or has more than {MAX_FIELDS} fields"
                )));
            }
            self.scanned.push_back(message);
        }
        Ok(())
    }
}

impl http_body::Body for ScannedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(message) = this.scanned.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.received.extend_from_slice(&data);
                        if let Err(refused) = this.scan() {
                            this.ended = true;
                            return Poll::Ready(Some(Err(refused)));
                        }
                    }
                    Err(other) => this.trailers = other.into_trailers().ok(),
                },
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.ended = true,
            }
        }
    }
}

/// The fields of a message and of those inside it; `None` if it is not a message. Text that looks like a message is counted, too.
fn fields(mut message: &[u8], depth: usize) -> Option<usize> {
    let mut count = 0_usize;
    while message.has_remaining() {
        let tag = varint(&mut message)?;
        count += 1;
        let skipped = match tag & 7 {
            0 => varint(&mut message).map(|_| 0)?,
            1 => 8,
            5 => 4,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (inside, _) = message.split_at_checked(length)?;
                if depth < MAX_DEPTH {
                    count += fields(inside, depth + 1).unwrap_or(0);
                }
                length
            }
            // Groups are not used since proto3.
            _ => return None,
        };
        message = message.get(skipped..)?;
        if count > MAX_FIELDS {
            break;
        }
    }
    Some(count)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use proptest::prelude::*;
    use prost::Message;
    use proto::isthmus::mesh::v1::{FromCluster, Target, from_cluster};
    use proto::thanos::{Label, LabelSet, info::InfoResponse};

    use super::*;

    fn target(label_sets: usize, labels: usize, length: usize) -> Vec<u8> {
        let label = Label { name: "n".repeat(length), value: "v".repeat(length) };
        let set = LabelSet { labels: vec![label; labels] };
        let info = InfoResponse { label_sets: vec![set; label_sets], ..Default::default() };
        let target = Target { name: "scraper-0".into(), info: Some(info), ..Default::default() };
        FromCluster { message: Some(from_cluster::Message::Target(target)) }.encode_to_vec()
    }

    fn framed(message: &[u8]) -> Bytes {
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(message);
        framed.into()
    }

    async fn passes(bytes: Bytes) -> Result<Bytes, Status> {
        let body = ScannedBody::new(Body::new(Full::new(bytes)), 4 << 20);
        body.collect().await.map(|whole| whole.to_bytes())
    }

    #[tokio::test]
    async fn usual_messages_pass_unchanged_and_bombs_do_not() {
        let usual: Bytes = [target(1, 3, 10), target(20_000, 5, 6), target(0, 0, 0)]
            .iter()
            .flat_map(|message| framed(message))
            .collect();
        assert_eq!(passes(usual.clone()).await.unwrap(), usual);
        for bomb in [target(1_000_000, 0, 0), target(1, 1_000_000, 0)] {
            assert!(bomb.len() < 4 << 20);
            let refused = passes(framed(&bomb)).await.unwrap_err();
            assert!(refused.message().contains("more than 400000 fields"), "{refused}");
        }
        let large = passes(framed(&vec![0; (4 << 20) + 1])).await.unwrap_err();
        assert!(large.message().contains("larger than"), "{large}");
        let compressed = passes(Bytes::from_static(&[1, 0, 0, 0, 0])).await.unwrap_err();
        assert!(compressed.message().contains("compressed"), "{compressed}");
    }

    proptest! {
        #[test]
        fn fields_of_any_bytes_are_counted_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(fields(&bytes, 0).is_none_or(|fields| fields <= bytes.len() * (MAX_DEPTH + 1)));
        }
    }
}
