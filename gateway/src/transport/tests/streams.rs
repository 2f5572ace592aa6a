//! Properties of streams on both transports, in both directions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use mesh::Transport;
use tokio::time::timeout;

use crate::transport::tests::support::*;
use crate::transport::*;

const MIB: u64 = 1 << 20;
/// Readers that stall at once.
const STALLED: u64 = 256;

#[tokio::test]
async fn trailers_pass() {
    everywhere(async |pair, _| {
        for path in ["/trailers", "/empty-pieces"] {
            let response = pair.client.handle(request(path, Body::full("ask"))).await.unwrap();
            assert_eq!(response.headers()["content-type"], "application/grpc");
            let (len, trailers, end) = read(response.into_body()).await;
            assert_eq!((len, end.is_ok()), (if path == "/trailers" { 5 } else { 11 }, true));
            let trailers = trailers.unwrap();
            assert_eq!(
                (&trailers["grpc-status"], &trailers["x-cause"]),
                (&"0".parse().unwrap(), &"because".parse().unwrap())
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_trailers_only_response_stays_trailers_only() {
    everywhere(async |pair, _| {
        let response = pair.client.handle(request("/trailers-only", Body::full("ask"))).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "5");
        assert!(response.body().is_end_stream(), "head and end must go on together");
    })
    .await;
}

#[tokio::test]
async fn an_error_after_three_messages_passes_with_its_metadata() {
    everywhere(async |pair, _| {
        let response = pair.client.handle(request("/error-after-three", Body::full("ask"))).await.unwrap();
        let (len, trailers, end) = read(response.into_body()).await;
        assert!(end.is_ok());
        assert_eq!((len, &trailers.unwrap()["grpc-status"]), (15, &"13".parse().unwrap()));
    })
    .await;
}

#[tokio::test]
async fn a_truncated_response_never_looks_complete() {
    everywhere(async |pair, _| {
        for (path, kind) in [
            ("/broken-after-three", StreamErrorKind::Reset),
            ("/cancelled-after-three", StreamErrorKind::Cancelled),
        ] {
            let response = pair.client.handle(request(path, Body::full("ask"))).await;
            // The reset may overtake data, and even the head.
            let end = match response {
                Ok(response) => read(response.into_body()).await.2,
                Err(error) => Err(error),
            };
            assert_eq!(end.unwrap_err().kind(), kind);
        }
        let refused = pair.client.handle(request("/refused", Body::full("ask"))).await.unwrap_err();
        assert_eq!(refused.kind(), StreamErrorKind::Refused);
    })
    .await;
}

#[tokio::test]
async fn three_mebibytes_pass_in_both_directions() {
    everywhere(async |pair, _| {
        for piece in [100, 1 << 10, 64 << 10, 3 << 20] {
            let up = (0..(3 << 20) / piece).map(|_| data(piece)).collect();
            let response = pair.client.handle(request("/echo", pieces(up))).await.unwrap();
            let (len, _, end) = read(response.into_body()).await;
            end.unwrap();
            assert_eq!(len, (3 << 20) / piece * piece);
        }
    })
    .await;
}

#[tokio::test]
async fn cancelling_an_idle_stream_reaches_the_server() {
    everywhere(async |pair, mut dropped| {
        // Once with a complete request, once with a request that is open and idle too.
        for body in
            [Body::full("ask"), Body::new(StreamBody::new(stream::iter([data(3)]).chain(stream::pending())))]
        {
            let response = pair.client.handle(request("/idle", body)).await.unwrap();
            let mut body = response.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
            drop(body);
            assert_eq!(dropped.recv().await, Some("idle"));
        }
    })
    .await;
}

#[tokio::test]
async fn cancelling_before_the_response_reaches_the_server() {
    everywhere(async |pair, mut dropped| {
        for body in
            [Body::full("ask"), Body::new(StreamBody::new(stream::iter([data(3)]).chain(stream::pending())))]
        {
            let asked = tokio::spawn(pair.client.handle(request("/silent", body)));
            until("the request is there", || pair.server.streams() == 1).await;
            asked.abort();
            assert_eq!(dropped.recv().await, Some("silent"));
            until("the stream is gone", || pair.server.streams() == 0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn cancelling_a_blocked_stream_reaches_the_server() {
    everywhere(async |pair, mut dropped| {
        let response = pair.client.handle(request("/flood", Body::full("ask"))).await.unwrap();
        settled(&pair.probe.produced).await;
        drop(response);
        assert_eq!(dropped.recv().await, Some("flood"));
    })
    .await;
}

/// A stream that waits for its peer, with nothing to send and no deadline, ends with its connection.
#[tokio::test]
async fn an_idle_stream_ends_when_either_side_closes_the_connection() {
    for closed_by in ["client", "server"] {
        everywhere(async |pair, mut dropped| {
            let answer = pair.client.handle(request("/idle", Body::full("ask"))).await.unwrap();
            let mut body = answer.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
            match closed_by {
                "client" => pair.client.link().close(CloseReason::Denied),
                _ => pair.server.close(CloseReason::Denied),
            }
            let error = soon("the stream ends", body.frame()).await.expect("an end without an error");
            assert!(error.is_err(), "{closed_by}: {error:?}");
            assert_eq!(soon("the server drops it", dropped.recv()).await, Some("idle"));
        })
        .await;
    }
}

#[tokio::test]
async fn a_stalled_reader_takes_little_memory_and_blocks_no_other_stream() {
    everywhere(async |pair, _| {
        let ask = || pair.client.handle(request("/flood", Body::full("ask")));
        let stalled = [ask().await.unwrap(), ask().await.unwrap(), ask().await.unwrap()];
        let produced = settled(&pair.probe.produced).await;
        assert!(produced < 3 * 4 * MIB, "three stalled streams took {produced} bytes");

        let response =
            pair.client.handle(request("/echo", pieces((0..48).map(|_| data(64 << 10)).collect()))).await;
        assert_eq!(read(response.unwrap().into_body()).await.0, 3 << 20);
        drop(stalled);
    })
    .await;
}

/// The readers of a query stall while one of its stores is slow: more of them than a cluster may have open take nothing from
/// the other requests.
#[tokio::test]
async fn many_stalled_readers_block_no_other_stream() {
    everywhere(async |pair, _| {
        let ask = |_| pair.client.handle(request("/flood", Body::full("ask")));
        let mut stalled = Vec::new();
        for answer in futures::future::join_all((0..STALLED).map(ask)).await {
            stalled.push(answer.unwrap());
        }
        let produced = settled(&pair.probe.produced).await;
        println!("{} KiB for each of {STALLED} stalled readers", produced / STALLED / 1024);
        assert!(produced < STALLED * 3 * MIB, "{STALLED} stalled streams took {produced} bytes");

        let response =
            pair.client.handle(request("/echo", pieces((0..48).map(|_| data(64 << 10)).collect()))).await;
        assert_eq!(read(response.unwrap().into_body()).await.0, 3 << 20);
        assert!(!pair.server.is_closed());
        drop(stalled);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_reading_takes_little_memory() {
    everywhere(async |pair, mut dropped| {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let up = stream::repeat(Bytes::from(vec![0; 64 << 10])).map(move |piece| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(piece))
        });
        let body = Body::new(StreamBody::new(up));
        let asked = tokio::spawn(pair.client.handle(request("/stalled-upload", body)));
        until("the server has read a little", || pair.probe.taken.load(Ordering::Relaxed) > 0).await;
        let sent = settled(&sent).await;
        assert!(sent < 4 * MIB, "a server that reads no more took {sent} bytes");
        asked.abort();
        assert_eq!(dropped.recv().await, Some("stalled-upload"));
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_of_small_frames_takes_little_memory() {
    everywhere(async |pair, _| {
        // An echo of small messages that are read one by one, while the sender always has another.
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let up = stream::repeat(Bytes::from(vec![0; 1000])).map(move |piece| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(piece))
        });
        let body = Body::new(StreamBody::new(up));
        let mut down = pair.client.handle(request("/echo", body)).await.unwrap().into_body();
        let mut read = 0;
        while read < 16 * MIB {
            read += down.frame().await.unwrap().unwrap().into_data().unwrap().len() as u64;
            let ahead = sent.load(Ordering::Relaxed) - read;
            assert!(ahead < 10 * MIB, "{ahead} bytes are under way");
        }
    })
    .await;
}

#[tokio::test]
async fn requests_above_the_limit_wait() {
    everywhere(async |pair, _| {
        let max = TransportSettings::default().max_streams as usize;
        let ask = |_| pair.client.handle(request("/echo", Body::full("ask")));
        let answers = futures::future::join_all((0..2 * max).map(ask));
        assert!(answers.await.into_iter().all(|answer| answer.is_ok()));
    })
    .await;
}

#[tokio::test]
async fn responses_before_the_end_of_their_requests_do_not_wear_out_a_connection() {
    everywhere(async |pair, _| {
        for _ in 0..1500 {
            let response = pair.client.handle(request("/trailers", Body::full("unread"))).await.unwrap();
            let (len, trailers, end) = read(response.into_body()).await;
            assert!(len == 5 && trailers.is_some() && end.is_ok());
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_cancels_too_many_requests_is_disconnected() {
    for transport in [Transport::Quic, Transport::Tcp] {
        for path in ["/silent", "/idle"] {
            let settings = TransportSettings { max_cancelled_streams: 20, ..TransportSettings::default() };
            let (pair, mut dropped) = pair_with(transport, false, settings).await;
            for _ in 0..100 {
                let answer = pair.client.handle(request("/trailers", Body::full("ask"))).await.unwrap();
                assert!(read(answer.into_body()).await.2.is_ok(), "what ends properly counts for nothing");
            }
            for count in 1..=21 {
                assert!(!pair.server.is_closed(), "{transport} {path}: closed after {count}");
                let asking = pair.client.handle(request(path, Body::full("ask")));
                match path {
                    "/idle" => drop(soon("the head", asking).await.unwrap()),
                    _ => drop(timeout(Duration::from_millis(20), asking).await),
                }
                soon("the handler sees the cancellation", dropped.recv()).await;
            }
            let closed = soon("the connection is closed", pair.server.closed()).await;
            assert_eq!(closed, ConnectionEnd::Here(CloseReason::Misbehaved), "{transport} {path}");
        }
    }
}

/// Cancelled requests come in bursts: a query is given up, or the server has stood still for a moment.
#[tokio::test]
async fn a_thousand_requests_that_are_cancelled_at_once_end_no_other_stream() {
    everywhere(async |pair, mut dropped| {
        let open = Body::new(StreamBody::new(stream::iter([data(3)]).chain(stream::pending())));
        let answer = pair.client.handle(request("/echo", open)).await.unwrap();
        let mut other = answer.into_body();
        assert_eq!(other.frame().await.unwrap().unwrap().into_data().unwrap().len(), 3);
        for _ in 0..5 {
            // The server runs in this thread, so that it first sees them when they are cancelled.
            let mut asked: Vec<_> =
                (0..200).map(|_| pair.client.handle(request("/silent", Body::full("ask")))).collect();
            for asking in &mut asked {
                assert!(futures::poll!(asking).is_pending());
            }
            tokio::task::yield_now().await;
            drop(asked);
        }
        let echoed = pair.client.handle(request("/echo", Body::full("ask"))).await.unwrap();
        assert_eq!(read(echoed.into_body()).await.0, 3);
        assert!(!pair.server.is_closed(), "{:?}", pair.server.closed().await);
        let more = futures::poll!(other.frame());
        assert!(more.is_pending(), "the other stream has ended: {more:?}");
        while dropped.try_recv().is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn dropping_the_client_closes_the_connection_after_its_last_stream() {
    everywhere(async |pair, _| {
        let client = pair.client.clone();
        let response = client.handle(request("/idle", Body::full("ask"))).await.unwrap();
        let mut body = response.into_body();
        drop(client);
        let link = pair.client.link().clone();
        let server = pair.server.clone();
        drop(pair);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
        assert!(!link.is_closed() && !server.is_closed());
        drop(body);
        assert_eq!(link.closed().await, ConnectionEnd::Here(CloseReason::Done));
        assert!(matches!(
            server.closed().await,
            ConnectionEnd::There { failure: ConnectionFailure::Lost, .. }
        ));
    })
    .await;
}

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Waits until a counter has not changed for 200 ms, and returns it.
async fn settled(counter: &AtomicU64) -> u64 {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = counter.load(Ordering::Relaxed);
        if now == last && now > 0 {
            return now;
        }
        last = now;
    }
}
