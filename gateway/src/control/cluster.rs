//! The cluster's side of control sessions: reports the targets and requests certificates.

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

use crate::control::{
    HEARTBEAT, HELLO_TIMEOUT, hello, log_hello, report::TargetReport, verdicts::TargetVerdicts,
};
use crate::{peer_text::bounded, task, transport::PeerClock, trust::held::HeldTrust};

/// Messages that may wait for a slow observability gateway; with more, the session waits.
const OUTGOING: usize = 4;

/// The open sessions of a cluster's gateway.
pub(crate) struct ClusterSessions {
    open: Mutex<BTreeMap<u64, mpsc::Sender<SessionCommand>>>,
    next: AtomicU64,
    count: watch::Sender<usize>,
    targets: watch::Receiver<Targets>,
    /// Distinguishes this gateway from others of its cluster.
    instance: String,
    /// Distinguishes this process from others with the same instance. It is never stored, so a copy of the data directory does
    /// not contain it.
    run: String,
    verdicts: Arc<TargetVerdicts>,
}

/// A command to a session from other parts of the gateway.
enum SessionCommand {
    /// Request a certificate. The answer is the certificate, or the reason of the refusal.
    Certificate { csr: Vec<u8>, answer: oneshot::Sender<Result<Certificate, String>> },
    /// Ask the observability gateway to send no new requests on this connection.
    Drain,
}

impl ClusterSessions {
    /// No sessions yet. Each session will report `targets` and every change. `instance` distinguishes this gateway from others
    /// of its cluster.
    pub(crate) fn new(
        targets: watch::Receiver<Targets>,
        instance: String,
        verdicts: Arc<TargetVerdicts>,
    ) -> Arc<Self> {
        let (count, _) = watch::channel(0);
        let run = format!("{:032x}", rand::random::<u128>());
        let (open, next) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { open, next, count, targets, instance, run, verdicts })
    }

    /// The number of open sessions, and every change.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Requests a certificate over the session that was opened last.
    ///
    /// # Errors
    /// The reason in one line: no session is open, the session ended, or the issuer refused.
    pub(crate) async fn request_certificate(&self, csr: Vec<u8>) -> Result<Certificate, String> {
        let newest = self.lock().last_key_value().map(|(_, commands)| commands.clone());
        let commands = newest.ok_or("not connected to an observability gateway")?;
        let (answer, answered) = oneshot::channel();
        let lost = || "the session ended before the certificate arrived".to_owned();
        commands.send(SessionCommand::Certificate { csr, answer }).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    /// Asks the observability gateway on every session to send no new requests.
    pub(crate) fn drain_all(&self) {
        for commands in self.lock().values() {
            // A session whose command queue is full is stuck and will end.
            let _ = commands.try_send(SessionCommand::Drain);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, mpsc::Sender<SessionCommand>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Self>) -> (OpenSession, mpsc::Receiver<SessionCommand>) {
        let (commands, receiver) = mpsc::channel(OUTGOING);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.lock();
        open.insert(id, commands);
        self.count.send_replace(open.len());
        (OpenSession { sessions: self.clone(), id }, receiver)
    }
}

/// Counts a session as open until it is dropped.
struct OpenSession {
    sessions: Arc<ClusterSessions>,
    id: u64,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.sessions.verdicts.session_ended(self.id);
        let mut open = self.sessions.lock();
        open.remove(&self.id);
        self.sessions.count.send_replace(open.len());
    }
}

/// The dialer's view of a connection's session: whether it is up, and how to drain the connection.
#[derive(Default)]
pub(crate) struct SessionHandle {
    up: watch::Sender<bool>,
    commands: Mutex<Option<mpsc::Sender<SessionCommand>>>,
}

impl SessionHandle {
    /// Waits until both hellos were received.
    pub(crate) async fn is_up(&self) {
        // The sender exists as long as `self`, so waiting ends only with the condition.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Asks the observability gateway to send no new requests on this connection.
    pub(crate) fn drain(&self) {
        if let Some(commands) = &*self.commands.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = commands.try_send(SessionCommand::Drain);
        }
    }
}

/// Serves the control session of one connection.
#[derive(Clone)]
pub(crate) struct ClusterControl {
    sessions: Arc<ClusterSessions>,
    connection: Arc<SessionHandle>,
    trust: Arc<HeldTrust>,
}

impl ClusterControl {
    pub(crate) fn new(
        sessions: Arc<ClusterSessions>,
        connection: Arc<SessionHandle>,
        trust: Arc<HeldTrust>,
    ) -> Self {
        Self { sessions, connection, trust }
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
        let clock = request.extensions().get::<PeerClock>().cloned().unwrap_or_default();
        let incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let session =
            ClusterSession { control: self.clone(), peer, clock, incoming, outgoing, certificate: None };
        task::spawn(session.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

struct ClusterSession {
    control: ClusterControl,
    peer: Peer,
    clock: PeerClock,
    incoming: Streaming<FromObservability>,
    outgoing: mpsc::Sender<Result<FromCluster, Status>>,
    /// Receives the answer to the certificate request that is pending.
    certificate: Option<oneshot::Sender<Result<Certificate, String>>>,
}

impl ClusterSession {
    async fn run(mut self) {
        let why = match self.exchange().await {
            Ok(()) => "the observability gateway closed the session".to_owned(),
            Err(status) => {
                let why = status.message().to_owned();
                // Fails if the observability gateway has closed the session.
                let _ = self.outgoing.try_send(Err(status));
                why
            }
        };
        tracing::info!(peer = %self.peer, why, "a session has ended");
    }

    async fn exchange(&mut self) -> Result<(), Status> {
        let sessions = &self.control.sessions;
        let hello = hello(SystemTime::now(), &sessions.instance, &sessions.run);
        self.send(ToObservability::Hello(hello)).await?;
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the peer sent no hello in time"))??;
        let Some(FromObservabilityMessage::Hello(theirs)) = first.and_then(|first| first.message) else {
            return Err(Status::failed_precondition("the first message must be a hello"));
        };
        log_hello(&theirs, &self.peer, &self.clock, SystemTime::now());
        let mut targets = self.control.sessions.targets.clone();
        if theirs.trust {
            self.send(ToObservability::Trust(self.control.trust.report(""))).await?;
        }
        let mut replacements = self.control.trust.replacements();
        let mut report = TargetReport::new(theirs.single_targets);
        self.report(&mut report, &mut targets).await?;

        let (open, mut commands) = self.control.sessions.open();
        let handle = self.control.sessions.lock().get(&open.id).cloned();
        *self.control.connection.commands.lock().unwrap_or_else(PoisonError::into_inner) = handle;
        self.control.connection.up.send_replace(true);
        loop {
            tokio::select! {
                message = self.incoming.message() => match message?.map(|message| message.message) {
                    None => return Ok(()),
                    Some(message) => self.receive(open.id, message).await?,
                },
                Some(command) = commands.recv() => self.execute(command).await?,
                Ok(()) = replacements.changed(), if theirs.trust => {
                    replacements.borrow_and_update();
                    self.send(ToObservability::Trust(self.control.trust.report(""))).await?;
                }
                changed = targets.changed() => {
                    if changed.is_err() {
                        // The poller was dropped: this gateway stops.
                        return Ok(());
                    }
                    self.report(&mut report, &mut targets).await?;
                }
                () = tokio::time::sleep(HEARTBEAT), if report.must_repeat() => {
                    self.report(&mut report, &mut targets).await?;
                }
            }
        }
    }

    async fn receive(
        &mut self,
        session: u64,
        message: Option<FromObservabilityMessage>,
    ) -> Result<(), Status> {
        let trust = self.control.trust.clone();
        let answer = match message {
            Some(FromObservabilityMessage::Denylist(bytes)) => {
                return self.taken(trust.take_denylist(bytes.to_vec()).await).await;
            }
            Some(FromObservabilityMessage::Bundle(bundle)) => {
                return self.taken(trust.take_bundle(bundle).await).await;
            }
            Some(FromObservabilityMessage::AuditHead(head)) => {
                return match trust.take_audit_head(head).await {
                    Ok(false) => Ok(()),
                    taken => self.taken(taken.map(drop)).await,
                };
            }
            Some(FromObservabilityMessage::Certificate(certificate)) => Ok(certificate),
            Some(FromObservabilityMessage::Refused(why)) => Err(bounded(&why)),
            Some(FromObservabilityMessage::TargetVerdict(verdict)) => {
                self.control.sessions.verdicts.judged(session, &verdict);
                return Ok(());
            }
            // A second hello, or a message of a later version, is ignored.
            Some(FromObservabilityMessage::Hello(_)) | None => return Ok(()),
        };
        match (self.certificate.take(), answer) {
            // Fails if the request for the certificate was dropped.
            (Some(waiting), answer) => drop(waiting.send(answer)),
            // Without a request, it is the session that is refused.
            (None, Err(why)) => {
                tracing::error!(peer = %self.peer, why, "the observability gateway refuses this gateway");
                return Err(Status::permission_denied(why));
            }
            (None, Ok(_)) => {}
        }
        Ok(())
    }

    /// Reports what is in use after a denylist, a bundle or a head of the audit log was received.
    async fn taken(&self, outcome: Result<(), String>) -> Result<(), Status> {
        let refused = outcome.err().unwrap_or_default();
        if !refused.is_empty() {
            tracing::error!(peer = %self.peer, error = refused, "a denylist, a trust bundle or an audit head was refused");
        }
        self.send(ToObservability::Trust(self.control.trust.report(&refused))).await
    }

    async fn execute(&mut self, command: SessionCommand) -> Result<(), Status> {
        match command {
            SessionCommand::Certificate { csr, answer } => {
                self.certificate = Some(answer);
                self.send(ToObservability::CertificateRequest(CertificateRequest { csr: csr.into() })).await
            }
            SessionCommand::Drain => self.send(ToObservability::Drain(Drain {})).await,
        }
    }

    /// Sends what is new about the targets.
    async fn report(
        &self,
        report: &mut TargetReport,
        targets: &mut watch::Receiver<Targets>,
    ) -> Result<(), Status> {
        let present = targets.borrow_and_update().clone();
        for message in report.messages(present) {
            self.send(message).await?;
        }
        Ok(())
    }

    async fn send(&self, message: ToObservability) -> Result<(), Status> {
        let message = FromCluster { message: Some(message) };
        self.outgoing.send(Ok(message)).await.map_err(|_| Status::cancelled("the connection was lost"))
    }
}
