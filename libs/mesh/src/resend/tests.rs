//! Servers that end their connections at every moment of a request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, server, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::direct;

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// Answers it.
    Answer,
    /// Closes the connection without an answer.
    Close,
    /// Sends the head of the answer, then closes the connection.
    CloseAfterHead,
    /// Sends the head and a part of the answer, then closes the connection.
    CloseAfterPart,
    /// Announces the end of the connection and closes it without an answer.
    GoAway,
    /// Resets the stream.
    Reset(Reason),
    /// Answers that it is not available.
    Unavailable,
}

/// Does the next of `acts` with each request, whichever connection it came on, and answers all further requests.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

async fn serve(acts: &'static [Act]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(connection(socket, acts, Arc::clone(&counted)));
        }
    });
    Server { address, requests }
}

async fn connection(socket: TcpStream, acts: &'static [Act], requests: Arc<AtomicUsize>) {
    let mut connection = server::handshake(socket).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let act = acts.get(requests.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Act::Answer);
        match act {
            Act::Answer => answer(respond, true),
            Act::Close => return,
            Act::CloseAfterHead | Act::CloseAfterPart => {
                let closed = Arc::new(Notify::new());
                let mut stream = respond.send_response(head(), false).unwrap();
                if act == Act::CloseAfterPart {
                    stream.send_data(message(), false).unwrap();
                }
                // Sends what is queued. The client sees the end of the connection after it.
                let flushed = closed.clone();
                tokio::spawn(async move { flushed.notify_one() });
                tokio::select! {
                    _ = connection.accept() => {}
                    () = flush(&closed) => {}
                }
                drop((request, stream));
                return;
            }
            Act::GoAway => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                drop((request, respond));
            }
            Act::Reset(reason) => respond.send_reset(reason),
            Act::Unavailable => {
                let mut head = head();
                head.headers_mut().insert("grpc-status", HeaderValue::from(Code::Unavailable as i32));
                respond.send_response(head, true).unwrap();
            }
        }
    }
}

/// Waits for a few rounds of the scheduler, in which a connection that is polled beside sends what is queued.
async fn flush(notify: &Notify) {
    notify.notified().await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// `HealthCheckResponse { status: Serving }` with the head of its message.
fn message() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 2, 0x08, 0x01])
}

fn answer(mut respond: SendResponse<Bytes>, ok: bool) {
    let mut stream = respond.send_response(head(), false).unwrap();
    stream.send_data(message(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(i32::from(!ok)));
    stream.send_trailers(trailers).unwrap();
}

async fn ask(channel: &crate::Channel) -> Result<i32, Status> {
    let request = HealthCheckRequest { service: "x".repeat(100) };
    Ok(HealthClient::new(channel.clone()).check(request).await?.into_inner().status)
}

/// Asks once, and returns the code of the answer with the number of requests that reached the server.
async fn outcome(acts: &'static [Act]) -> (Code, usize) {
    let server = serve(acts).await;
    let channel = direct(&server.address.to_string()).unwrap();
    let code = ask(&channel).await.map_or_else(|status| status.code(), |_| Code::Ok);
    (code, server.requests.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_request_without_an_answer_is_sent_once_more() {
    for end in [Act::Close, Act::CloseAfterHead, Act::GoAway, Act::Reset(Reason::REFUSED_STREAM)] {
        let acts: &'static [Act] = Box::leak(Box::new([end]));
        assert_eq!(outcome(acts).await, (Code::Ok, 2), "{end:?}");
    }
}

#[tokio::test]
async fn a_request_is_not_sent_a_third_time_after_two_lost_connections() {
    assert_eq!(outcome(&[Act::Close, Act::Close]).await, (Code::Unavailable, 2));
    assert_eq!(outcome(&[Act::Close, Act::CloseAfterHead]).await, (Code::Unavailable, 2));
    // A stream that a server refused was not processed. There is a limit still.
    assert_eq!(outcome(&[Act::Reset(Reason::REFUSED_STREAM); 3]).await, (Code::Ok, 4));
    assert_eq!(outcome(&[Act::Reset(Reason::REFUSED_STREAM); 9]).await, (Code::Unavailable, 4));
}

#[tokio::test]
async fn an_answer_or_a_part_of_it_is_final() {
    for (end, code) in [
        (Act::CloseAfterPart, None),
        (Act::Reset(Reason::CANCEL), Some(Code::Cancelled)),
        (Act::Reset(Reason::INTERNAL_ERROR), Some(Code::Internal)),
        (Act::Unavailable, Some(Code::Unavailable)),
    ] {
        let (found, requests) = outcome(Box::leak(Box::new([end]))).await;
        assert_eq!(requests, 1, "{end:?}");
        assert!(found != Code::Ok && code.is_none_or(|code| code == found), "{end:?}: {found:?}");
    }
}

/// While another stream is open, the connection stays open after GOAWAY, and the next request is the first that notices.
#[tokio::test]
async fn a_request_on_a_connection_that_is_about_to_end_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = direct(&listener.local_addr().unwrap().to_string()).unwrap();
    let slow = tokio::spawn({
        let channel = channel.clone();
        async move { ask(&channel).await }
    });
    let (socket, _) = listener.accept().await.unwrap();
    let mut first = server::handshake(socket).await.unwrap();
    let (_request, waiting) = first.accept().await.unwrap().unwrap();
    first.graceful_shutdown();
    let first = tokio::spawn(async move {
        while let Some(Ok((_, respond))) = first.accept().await {
            answer(respond, true);
        }
    });
    let second = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut second = server::handshake(socket).await.unwrap();
        while let Some(Ok((_, respond))) = second.accept().await {
            answer(respond, true);
        }
    });
    for _ in 0..50 {
        assert_eq!(ask(&channel).await.unwrap(), 1);
    }
    answer(waiting, true);
    assert_eq!(slow.await.unwrap().unwrap(), 1);
    first.await.unwrap();
    second.abort();
}

#[tokio::test]
async fn a_request_that_is_too_large_to_keep_is_sent_once() {
    let server = serve(&[Act::Close]).await;
    let channel = direct(&server.address.to_string()).unwrap();
    let request = HealthCheckRequest { service: "x".repeat(super::KEPT_BYTES + 1) };
    let status = HealthClient::new(channel).check(request).await.unwrap_err();
    assert_eq!((status.code(), server.requests.load(Ordering::SeqCst)), (Code::Unavailable, 1));
}
