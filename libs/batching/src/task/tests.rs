use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};

use super::*;

/// How often a task is polled that 20 others wake, each once.
async fn polls_of(batched: bool) -> usize {
    let (polls, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, woken) = (polls.clone(), work.clone());
    let mut waiting = Box::pin(async move {
        loop {
            woken.notified().await;
        }
    });
    let counted = poll_fn(move |cx| {
        counted.fetch_add(1, Ordering::Relaxed);
        let _: Poll<std::convert::Infallible> = waiting.as_mut().poll(cx);
        Poll::<()>::Pending
    });
    let task = match batched {
        true => tokio::spawn(BatchedTask::new(counted)),
        false => tokio::spawn(counted),
    };
    for _ in 0..5 {
        yield_now().await;
    }
    let before = polls.load(Ordering::Relaxed);
    let mut others = JoinSet::new();
    for _ in 0..20 {
        let work = work.clone();
        // It goes on, as a request that waits for its answer. The end of a task would wake this one.
        others.spawn(async move {
            work.notify_one();
            std::future::pending::<()>().await;
        });
    }
    for _ in 0..5 {
        yield_now().await;
    }
    task.abort();
    polls.load(Ordering::Relaxed) - before
}

/// One worker of the scheduler that the program uses: it runs a task that was woken next, before those that are ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tasks_that_are_ready_cause_few_polls() {
    let with = tokio::spawn(polls_of(true)).await.unwrap();
    let without = tokio::spawn(polls_of(false)).await.unwrap();
    assert!(with <= 2 && without >= 10, "{with} with, {without} without");
}

/// Each wake-up comes alone, so that waiting brings nothing.
#[tokio::test]
async fn a_task_that_is_alone_seldom_waits() {
    let (polls, turns) = (Arc::new(AtomicUsize::new(0)), 1000);
    let counted = polls.clone();
    let alone = poll_fn(move |cx| {
        if counted.fetch_add(1, Ordering::Relaxed) == turns {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let (waits, waited) = (Arc::new(AtomicUsize::new(0)), polls.clone());
    let mut task = BatchedTask::new(alone);
    let counted = waits.clone();
    tokio::spawn(poll_fn(move |cx| {
        let before = waited.load(Ordering::Relaxed);
        let polled = Pin::new(&mut task).poll(cx);
        counted.fetch_add(usize::from(waited.load(Ordering::Relaxed) == before), Ordering::Relaxed);
        polled
    }))
    .await
    .unwrap();
    let waits = waits.load(Ordering::Relaxed);
    assert!((1..=turns / 10).contains(&waits), "{waits} waits in {turns} turns");
}

#[tokio::test]
async fn its_result_is_that_of_the_future() {
    assert_eq!(tokio::spawn(BatchedTask::new(Box::pin(async { 7 }))).await.unwrap(), 7);
}
