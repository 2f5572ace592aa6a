use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use tokio::task::JoinSet;

use super::*;

/// A connection that records what is written to it, and has nothing to read.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Vec<u8>>>>);

impl AsyncRead for Recorder {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().push(buf.to_vec());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The frames that requests have for a connection, and the task of the connection.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<(Vec<u8>, Option<Waker>)>>);

impl Frames {
    fn add(&self, frame: &[u8]) {
        let mut inner = self.0.lock().unwrap();
        inner.0.extend_from_slice(frame);
        if let Some(connection) = inner.1.take() {
            connection.wake();
        }
    }

    /// Polls a connection as HTTP/2 does: reads until nothing is there, writes what there is.
    fn poll(&self, cx: &mut Context<'_>, io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Poll<()> {
        let mut room = [0; 16];
        assert!(Pin::new(&mut *io).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        let mut inner = self.0.lock().unwrap();
        inner.1 = Some(cx.waker().clone());
        if !inner.0.is_empty() && Pin::new(io).poll_write(cx, &inner.0).is_ready() {
            inner.0.clear();
        }
        Poll::Pending
    }
}

/// The writes of a connection for `requests` tasks that each have `frame` for it.
async fn writes_of(batched: bool, requests: usize, frame: &'static [u8]) -> Vec<usize> {
    let (recorder, frames) = (Recorder::default(), Frames::default());
    let (mut plain, mut joined) = (recorder.clone(), BatchedWrites::new(recorder.clone()));
    let driven = frames.clone();
    let connection = tokio::spawn(poll_fn(move |cx| match batched {
        true => driven.poll(cx, &mut joined),
        false => driven.poll(cx, &mut plain),
    }));
    tokio::task::yield_now().await;
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        let frames = frames.clone();
        // It goes on, as a request that waits for its answer. The end of a task would wake this one.
        tasks.spawn(async move {
            frames.add(frame);
            std::future::pending::<()>().await;
        });
    }
    let written = || recorder.0.lock().unwrap().iter().map(Vec::len).sum::<usize>();
    while written() < requests * frame.len() {
        tokio::task::yield_now().await;
    }
    connection.abort();
    recorder.0.lock().unwrap().iter().map(Vec::len).collect()
}

/// One worker of the scheduler that the program uses: it runs a task that was woken next, before those that are ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn small_frames_of_tasks_that_are_ready_leave_together() {
    let with = tokio::spawn(writes_of(true, 20, &[7; 10])).await.unwrap();
    let without = tokio::spawn(writes_of(false, 20, &[7; 10])).await.unwrap();
    assert_eq!(with, [200]);
    assert!(without.len() >= 10, "{without:?}");
}

/// With larger batches, the processes on the way of requests take turns and do not work at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_enough_does_not_wait_for_more() {
    let writes = tokio::spawn(writes_of(true, 100, &[7; 64])).await.unwrap();
    assert!((10..=50).contains(&writes.len()), "{writes:?}");
    assert_eq!(writes.iter().sum::<usize>(), 6400);
}

#[tokio::test]
async fn a_large_frame_leaves_at_once_and_a_small_one_does_not() {
    let recorder = Recorder::default();
    let mut joined = BatchedWrites::new(recorder.clone());
    poll_fn(|cx| {
        let mut room = [0; 16];
        assert!(Pin::new(&mut joined).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        assert!(Pin::new(&mut joined).poll_write(cx, &[1; ENOUGH_BYTES - 1]).is_pending());
        assert!(Pin::new(&mut joined).poll_write(cx, &[1; ENOUGH_BYTES]).is_ready());
        Poll::Ready(())
    })
    .await;
    assert_eq!(recorder.0.lock().unwrap().len(), 1);
}

/// It is woken by itself, however often other tasks wake it meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_frame_is_left_behind_on_many_threads() {
    for round in 0..200 {
        let sizes = tokio::time::timeout(Duration::from_secs(30), writes_of(true, 1 + round % 40, &[3; 20]));
        let sizes = sizes.await.expect("all frames are written");
        assert_eq!(sizes.iter().sum::<usize>(), (1 + round % 40) * 20);
    }
}
