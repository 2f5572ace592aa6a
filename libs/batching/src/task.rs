//! A task that runs after the others.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::turn::Turn;

/// The future of a task that does for many others what they have for it. Each time it is woken, it waits for those that are
/// ready.
#[derive(Debug)]
pub struct BatchedTask<F> {
    future: F,
    turn: Turn,
}

impl<F> BatchedTask<F> {
    /// Runs `future`.
    pub fn new(future: F) -> Self {
        Self { future, turn: Turn::default() }
    }
}

impl<F: Future + Unpin> Future for BatchedTask<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        ready!(self.turn.poll_after_others(cx));
        Pin::new(&mut self.future).poll(cx)
    }
}

#[cfg(test)]
mod tests;
