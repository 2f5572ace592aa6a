//! Queries at a fixed rate, each of which must be answered as before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::get;

use crate::rolling_restarts::scene::Question;

/// Clients that ask at the same time.
const CLIENTS: usize = 24;

/// What became of the queries.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) asked: usize,
    /// Queries for which the first querier was not ready or did not answer, so that the second one was asked, as a load balancer
    /// does.
    pub(super) second: usize,
    /// Complete answers with a warning, such as that one of two replicas was not read.
    pub(super) warned: usize,
    pub(super) slowest: Duration,
    pub(super) failed: Vec<String>,
}

/// Clients that ask until they are stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    begun: Instant,
}

struct Shared {
    queriers: Vec<SocketAddr>,
    questions: Vec<Question>,
    interval: Duration,
    next: AtomicUsize,
    is_over: AtomicBool,
    outcome: Mutex<Outcome>,
}

impl Load {
    /// Asks the questions in turn, `rate` a second if the machine is fast enough.
    pub(super) fn start(queriers: Vec<SocketAddr>, questions: Vec<Question>, rate: u32) -> Self {
        let shared = Arc::new(Shared {
            queriers,
            questions,
            interval: Duration::from_secs(1) / rate,
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            outcome: Mutex::default(),
        });
        let begun = Instant::now();
        let client = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.ask_until_over(begun))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { shared, clients, begun }
    }

    /// What became of the queries since the last call.
    pub(super) fn so_far(&self) -> Outcome {
        std::mem::take(&mut *self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops the clients. Returns how many queries a second were asked.
    pub(super) fn stop(self) -> f64 {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("a client does not panic"));
        self.shared.next.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64()
    }
}

impl Shared {
    fn ask_until_over(&self, begun: Instant) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = begun + self.interval * u32::try_from(number).expect("few queries");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.ask(number);
        }
    }

    fn ask(&self, number: usize) {
        let question = &self.questions[number % self.questions.len()];
        let first = (number / self.questions.len()) % self.queriers.len();
        let asked = Instant::now();
        let mut answer = match get(self.queriers[first], "/-/ready") {
            Ok((200, _)) => get(self.queriers[first], &question.path),
            Ok((status, _)) => Err(format!("{status}: not ready")),
            Err(error) => Err(error),
        };
        let is_second = answer.is_err() && self.queriers.len() > 1;
        if is_second {
            answer = get(self.queriers[(first + 1) % self.queriers.len()], &question.path);
        }
        let took = asked.elapsed();
        let judged = judge(question, answer);
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.asked += 1;
        outcome.second += usize::from(is_second);
        outcome.slowest = outcome.slowest.max(took);
        match judged {
            Ok(has_warning) => outcome.warned += usize::from(has_warning),
            Err(why) => outcome.failed.push(format!("{}, after {took:?}: {why}", question.path)),
        }
    }
}

/// Whether the right answer has a warning. An answer that lacks something has failed, with or without a warning.
fn judge(question: &Question, answer: Result<(u16, String), String>) -> Result<bool, String> {
    let (status, body) = answer?;
    let json: Value = serde_json::from_str(&body).map_err(|why| format!("{status}: {why}: {body}"))?;
    match status == 200 && json["data"]["result"] == question.expected {
        true => Ok(!json["warnings"].is_null()),
        false => Err(format!("{status}: {body}")),
    }
}
