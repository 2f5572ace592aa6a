//! The cluster's side of control sessions: says what can be read here, and asks for certificates.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use futures::Stream;
use mesh::Peer;
use proto::isthmus::mesh::v1::{
    Certificate, CertificateRequest, Drain, FromCluster, FromObservability, Targets, control_server::Control,
    from_cluster::Message as ToObservability, from_observability::Message as FromObservabilityMessage,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::control::{HEARTBEAT, HELLO_TIMEOUT, hello, log_hello};

/// Messages that wait for a slow observability gateway before the session waits with them.
const OUTGOING: usize = 4;

/// The open sessions of a cluster's gateway.
pub(crate) struct ClusterSessions {
    open: Mutex<BTreeMap<u64, mpsc::Sender<SessionCommand>>>,
    next: AtomicU64,
    count: watch::Sender<usize>,
    targets: watch::Receiver<Targets>,
}

/// What the rest of the gateway wants of a session.
enum SessionCommand {
    /// Ask for a certificate; the answer goes back as it came, or why it was refused.
    Certificate { csr: Vec<u8>, answer: oneshot::Sender<Result<Certificate, String>> },
    /// Ask for no new requests on this connection.
    Drain,
}

impl ClusterSessions {
    /// No sessions yet; each will report `targets` and every change of them.
    pub(crate) fn new(targets: watch::Receiver<Targets>) -> Arc<Self> {
        let (count, _) = watch::channel(0);
        Arc::new(Self { open: Mutex::default(), next: AtomicU64::new(0), count, targets })
    }

    /// How many sessions are open, and every change of it.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Asks for a certificate over the session that was opened last.
    ///
    /// # Errors
    /// Why there is none, in one line.
    pub(crate) async fn request_certificate(&self, csr: Vec<u8>) -> Result<Certificate, String> {
        let newest = self.lock().last_key_value().map(|(_, orders)| orders.clone());
        let orders = newest.ok_or("no observability gateway is connected")?;
        let (answer, answered) = oneshot::channel();
        let lost = || "the session ended before the answer".to_owned();
        orders.send(SessionCommand::Certificate { csr, answer }).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    /// Asks on every session for no new requests.
    pub(crate) fn drain_all(&self) {
        for orders in self.lock().values() {
            // A session whose orders are full is about to end anyway.
            let _ = orders.try_send(SessionCommand::Drain);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, mpsc::Sender<SessionCommand>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Self>) -> (OpenSession, mpsc::Receiver<SessionCommand>) {
        let (orders, receiver) = mpsc::channel(OUTGOING);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.lock();
        open.insert(id, orders);
        self.count.send_replace(open.len());
        (OpenSession { sessions: self.clone(), id }, receiver)
    }
}

/// Counts as open while it lives.
struct OpenSession {
    sessions: Arc<ClusterSessions>,
    id: u64,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let mut open = self.sessions.lock();
        open.remove(&self.id);
        self.sessions.count.send_replace(open.len());
    }
}

/// Whether a connection's session is up, and a handle to drain that connection.
#[derive(Default)]
pub(crate) struct SessionHandle {
    up: watch::Sender<bool>,
    orders: Mutex<Option<mpsc::Sender<SessionCommand>>>,
}

impl SessionHandle {
    /// Waits until both hellos were exchanged.
    pub(crate) async fn is_up(&self) {
        // The sender lives as long as `self`, so this ends only with the condition.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Asks the observability gateway for no new requests on this connection.
    pub(crate) fn drain(&self) {
        if let Some(orders) = &*self.orders.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = orders.try_send(SessionCommand::Drain);
        }
    }
}

/// Serves the control session of one connection.
#[derive(Clone)]
pub(crate) struct ClusterControl {
    sessions: Arc<ClusterSessions>,
    connection: Arc<SessionHandle>,
}

impl ClusterControl {
    pub(crate) fn new(sessions: Arc<ClusterSessions>, connection: Arc<SessionHandle>) -> Self {
        Self { sessions, connection }
    }
}

#[tonic::async_trait]
impl Control for ClusterControl {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<FromCluster, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromObservability>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = Peer::of(request.extensions());
        let incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let session = ClusterSession { control: self.clone(), peer, incoming, outgoing, certificate: None };
        tokio::spawn(session.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

struct ClusterSession {
    control: ClusterControl,
    peer: Peer,
    incoming: Streaming<FromObservability>,
    outgoing: mpsc::Sender<Result<FromCluster, Status>>,
    /// Who waits for the answer to the certificate request that is under way.
    certificate: Option<oneshot::Sender<Result<Certificate, String>>>,
}

impl ClusterSession {
    async fn run(mut self) {
        let why = match self.converse().await {
            Ok(()) => "closed by the observability gateway".to_owned(),
            Err(status) => {
                let why = status.message().to_owned();
                // Nobody may be left to hear it.
                let _ = self.outgoing.try_send(Err(status));
                why
            }
        };
        tracing::info!(peer = %self.peer, why, "session closed");
    }

    async fn converse(&mut self) -> Result<(), Status> {
        self.send(ToObservability::Hello(hello(SystemTime::now()))).await?;
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        match first.and_then(|first| first.message) {
            Some(FromObservabilityMessage::Hello(hello)) => log_hello(&hello, &self.peer, SystemTime::now()),
            _ => return Err(Status::failed_precondition("the first message must be a hello")),
        }
        let mut targets = self.control.sessions.targets.clone();
        let present = targets.borrow_and_update().clone();
        self.send(ToObservability::Targets(present)).await?;

        let (_open, mut orders) = self.control.sessions.open();
        let handle = self.control.sessions.lock().get(&_open.id).cloned();
        *self.control.connection.orders.lock().unwrap_or_else(PoisonError::into_inner) = handle;
        self.control.connection.up.send_replace(true);
        loop {
            tokio::select! {
                message = self.incoming.message() => match message?.map(|message| message.message) {
                    None => return Ok(()),
                    Some(message) => self.receive(message),
                },
                Some(order) = orders.recv() => self.obey(order).await?,
                // The same again when nothing changed: it is what shows that this gateway lives.
                changed = tokio::time::timeout(HEARTBEAT, targets.changed()) => {
                    if let Ok(Err(_)) = changed {
                        // Nobody polls the targets any more: this gateway stops.
                        return Ok(());
                    }
                    let present = targets.borrow_and_update().clone();
                    self.send(ToObservability::Targets(present)).await?;
                }
            }
        }
    }

    fn receive(&mut self, message: Option<FromObservabilityMessage>) {
        let answer = match message {
            Some(FromObservabilityMessage::Certificate(certificate)) => Ok(certificate),
            Some(FromObservabilityMessage::Refused(why)) => Err(crate::peer_text::bounded(&why)),
            // A second hello, or a message of a later version: not for us.
            Some(FromObservabilityMessage::Hello(_)) | None => return,
        };
        if let Some(waiting) = self.certificate.take() {
            // Whoever asked may have given up.
            let _ = waiting.send(answer);
        }
    }

    async fn obey(&mut self, order: SessionCommand) -> Result<(), Status> {
        match order {
            SessionCommand::Certificate { csr, answer } => {
                self.certificate = Some(answer);
                self.send(ToObservability::CertificateRequest(CertificateRequest { csr: csr.into() })).await
            }
            SessionCommand::Drain => self.send(ToObservability::Drain(Drain {})).await,
        }
    }

    async fn send(&self, message: ToObservability) -> Result<(), Status> {
        let message = FromCluster { message: Some(message) };
        self.outgoing.send(Ok(message)).await.map_err(|_| Status::cancelled("the connection was lost"))
    }
}
