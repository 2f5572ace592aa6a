//! A control session of the observability side from its first message on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use http::{Response, Uri};
use identity::Name;
use proto::isthmus::mesh::v1::{
    FromCluster, FromObservability, control_client::ControlClient,
    from_cluster::Message as FromClusterMessage, from_observability::Message as ToCluster,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, body::Body};
use tower::ServiceExt;

use crate::control::{MAX_MESSAGE_BYTES, hello, log_hello, scanned::ScannedBody};
use crate::{
    directory::TargetVerdict,
    peer_text::bounded,
    transport::{self, MeshClient},
};

/// A session on which both hellos were received.
pub(super) struct ObservabilitySession {
    outgoing: mpsc::Sender<FromObservability>,
    pub(super) incoming: Streaming<FromCluster>,
    /// Distinguishes the gateways of the cluster.
    pub(super) instance: String,
    /// Distinguishes the processes of a gateway. Empty from earlier versions.
    pub(super) run: String,
    /// Whether the peer understands denylists and bundles.
    pub(super) trusts: bool,
    /// Time until the first answer, an upper bound of the round-trip time.
    pub(super) round_trip: Duration,
    /// Targets that are not read although they are reported as healthy, with the reason that the cluster was told.
    refused: BTreeMap<Name, String>,
}

impl ObservabilitySession {
    /// Sends messages. Returns `false` if the session was lost.
    pub(super) async fn send(&self, messages: impl IntoIterator<Item = ToCluster>) -> bool {
        for message in messages {
            if self.outgoing.send(FromObservability { message: Some(message) }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// What the cluster has to be told about a target; `None` if it knows.
    pub(super) fn changed(&mut self, verdict: TargetVerdict) -> Option<ToCluster> {
        let TargetVerdict { name, refused } = verdict;
        let before = match refused.as_str() {
            "" => self.refused.remove(&name),
            _ => self.refused.insert(name.clone(), refused.clone()),
        };
        (before.unwrap_or_default() != refused).then(|| {
            ToCluster::TargetVerdict(proto::isthmus::mesh::v1::TargetVerdict {
                name: name.to_string(),
                refused,
            })
        })
    }
}

pub(super) async fn open(cluster: &Name, client: &MeshClient) -> Result<ObservabilitySession, String> {
    let link = client.link();
    let (outgoing, messages) = mpsc::channel(4);
    let first = FromObservability { message: Some(ToCluster::Hello(hello(SystemTime::now(), "", ""))) };
    outgoing.try_send(first).map_err(|error| error.to_string())?;
    let channel = transport::channel(cluster.as_str(), client.clone());
    let scanned = |body| Body::new(ScannedBody::new(body, MAX_MESSAGE_BYTES));
    let channel = channel.map_response(move |response: Response<Body>| response.map(scanned));
    let mut control = ControlClient::with_origin(channel, Uri::from_static("https://control/"))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let began = Instant::now();
    let answer = control.session(ReceiverStream::new(messages)).await;
    let mut incoming = answer.map_err(|status| bounded(status.message()))?.into_inner();
    let round_trip = began.elapsed();
    let first = incoming.message().await.map_err(|status| bounded(status.message()))?;
    let Some(FromClusterMessage::Hello(theirs)) = first.and_then(|first| first.message) else {
        return Err("the first message is not a hello".to_owned());
    };
    log_hello(&theirs, &link.peer(), link.clock(), SystemTime::now());
    let (instance, run, trusts) = (theirs.instance, bounded(&theirs.run), theirs.trust);
    let refused = BTreeMap::new();
    Ok(ObservabilitySession { outgoing, incoming, instance, run, trusts, round_trip, refused })
}
