//! The wait for other tasks.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Most waits that are left out in a row.
const MOST_LEFT_OUT: u32 = 15;

/// A wait until the other tasks that are ready on this thread have run. It can be repeated.
///
/// [`tokio::task::yield_now`] does the same, but ends with the next wake-up, and here each task that has a frame causes one.
///
/// A wait that brings nothing costs a look at the sockets, and on several threads a system call that wakes another thread. So
/// after each wait in which nobody woke the connection, twice as many are left out.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    others: Arc<Others>,
    state: State,
    /// How many waits are left out after one that brought nothing.
    pause: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The next waits are left out, so many.
    Pauses(u32),
    /// A wait has begun.
    Waits {
        /// Whether another task has woken the connection since.
        was_woken: bool,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Pauses(0)
    }
}

/// Woken by tokio when the other tasks have run.
#[derive(Debug, Default)]
struct Others {
    have_run: AtomicBool,
    /// The task that waits.
    waiting: Mutex<Option<Waker>>,
}

impl Wake for Others {
    fn wake(self: Arc<Self>) {
        // Stored before the waker is taken: a task that leaves its waker later sees it.
        self.have_run.store(true, Ordering::SeqCst);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Turn {
    /// Starts a wait, or continues one. After it is ready, the next call starts another one.
    pub(crate) fn poll_after_others(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Pauses(0) => return self.begin(cx),
            State::Pauses(left) => {
                *left -= 1;
                return Poll::Ready(());
            }
            State::Waits { .. } => {}
        }
        *self.others.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if !self.others.have_run.load(Ordering::SeqCst) {
            self.state = State::Waits { was_woken: true };
            return Poll::Pending;
        }
        let was_woken = matches!(self.state, State::Waits { was_woken: true });
        self.pause = if was_woken { 0 } else { (2 * self.pause + 1).min(MOST_LEFT_OUT) };
        self.state = State::Pauses(self.pause);
        Poll::Ready(())
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.others.have_run.store(false, Ordering::SeqCst);
        *self.others.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.state = State::Waits { was_woken: false };
        let after = Waker::from(self.others.clone());
        // It gives the waker to tokio and is pending. Only the waker is needed.
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&after));
        Poll::Pending
    }
}
