//! Lists of a remote store.

use http::uri::PathAndQuery;
use mesh::ChannelError;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};

use crate::client::metered::MeteredChannel;
use crate::client::{StoreClient, error_line};
use crate::convert::{ListingCodec, WireListing};
use crate::{AnswerMemory, Listed, ListingStore, StoreError};

/// Largest message, whatever the memory is. Thanos sends all targets of a Prometheus in one message.
const MESSAGE_BYTES: u64 = 1 << 30;

/// The memory's limit is also that of one message.
#[tonic::async_trait]
impl<L: WireListing> ListingStore<L> for StoreClient {
    async fn list(&self, request: L::Request, memory: AnswerMemory) -> Result<Listed<L>, StoreError> {
        let message_bytes = usize::try_from(memory.limit().min(MESSAGE_BYTES)).unwrap_or(usize::MAX);
        let channel = MeteredChannel::new(self.channel.clone(), memory.message_memory(message_bytes));
        let mut grpc = Grpc::new(channel).max_decoding_message_size(message_bytes);
        grpc.ready().await.map_err(|cause| StoreError::unavailable(error_line(&cause)))?;
        let request = Request::new(L::request_to_wire(&request));
        let codec = ListingCodec::<L>::client(memory.clone());
        // gRPC rejects a message that is too large before it is decoded.
        let error = |status: Status| match status.code() {
            Code::OutOfRange if !ChannelError::is_cause_of(&status) => memory.too_large(),
            _ => StoreError::from(status),
        };
        let path = PathAndQuery::from_static(L::PATH);
        let answer = grpc.server_streaming(request, path, codec).await.map_err(error)?;
        let (mut frames, mut all) = (answer.into_inner(), Listed::default());
        while let Some(frame) = frames.message().await.map_err(error)? {
            all.items.extend(frame.items);
            all.warnings.extend(frame.warnings);
        }
        Ok(all)
    }
}
