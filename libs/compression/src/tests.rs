//! The layers against each other, and against messages that were made to do harm.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, ServiceExt, service_fn};

use crate::encoding::{ACCEPT_HEADER, ENCODING_HEADER};
use crate::{ClientCompressionLayer, MessageEncoding, MessageMemory, ServerCompressionLayer};

const LIMIT: usize = 1 << 20;

fn message(flag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), content].concat()
}

/// A body that sends `bytes` in pieces of this size, and then the trailers of a success.
fn body(bytes: &[u8], piece: usize) -> Body {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let mut frames: Vec<_> = bytes.chunks(piece).map(|c| Frame::data(Bytes::copy_from_slice(c))).collect();
    frames.push(Frame::trailers(trailers));
    Body::new(StreamBody::new(stream::iter(frames.into_iter().map(Ok::<_, Status>))))
}

/// A service that answers with the request's own bytes, and the headers that it saw.
async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    assert!(!request.headers().contains_key(ENCODING_HEADER), "the service does not see the encoding");
    Ok(match request.into_body().collect().await {
        Ok(read) => Response::new(body(&read.to_bytes(), 1000)),
        Err(status) => status.into_http(),
    })
}

fn status_of(headers: &HeaderMap) -> (Code, String) {
    let status = Status::from_header_map(headers).expect("a status");
    (status.code(), status.message().to_owned())
}

async fn serve(request: Request<Body>) -> Response<Body> {
    ServerCompressionLayer::new(LIMIT).layer(service_fn(echo)).oneshot(request).await.unwrap()
}

fn compressed(encoding: MessageEncoding, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encoding.compress(content, &mut out).unwrap();
    out
}

fn request(encoding: &str, bytes: &[u8]) -> Request<Body> {
    let request = Request::builder().uri("/thanos.Store/Series").header(ENCODING_HEADER, encoding);
    request.body(body(bytes, 7)).unwrap()
}

#[tokio::test]
async fn messages_arrive_unchanged_in_each_encoding_both_ways() {
    let contents: Vec<Vec<u8>> =
        [0, 1, 100, 70_000, LIMIT].map(|length| (0..length).map(|i| (i / 50 % 256) as u8).collect()).into();
    let plain: Vec<u8> = contents.iter().flat_map(|content| message(0, content)).collect();
    for encoding in MessageEncoding::ALL.map(Some).into_iter().chain([None]) {
        let server = ServerCompressionLayer::new(LIMIT).layer(service_fn(echo));
        let seen = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let sent = request.headers().get(ENCODING_HEADER).cloned();
                assert_eq!(sent.as_ref().map(|name| name.as_bytes()), encoding.map(|e| e.name().as_bytes()));
                let answer = server.oneshot(request).await?;
                assert_eq!(answer.headers().get(ENCODING_HEADER), sent.as_ref(), "the same encoding");
                let (head, body) = answer.into_parts();
                let read = body.collect().await.unwrap();
                assert_eq!(read.trailers().unwrap()["grpc-status"], "0");
                let bytes = read.to_bytes();
                assert_eq!(bytes.len() < 200_000, encoding.is_some(), "{encoding:?}: {} bytes", bytes.len());
                Ok::<_, Infallible>(Response::from_parts(head, self::body(&bytes, 1000)))
            }
        });
        let client = ClientCompressionLayer::new(encoding, LIMIT).layer(seen);
        let answer = client.oneshot(Request::new(body(&plain, 333))).await.unwrap();
        assert!(!answer.headers().contains_key(ENCODING_HEADER));
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        assert!(answer.to_bytes() == plain, "{encoding:?}");
    }
}

#[tokio::test]
async fn unknown_encoding_is_refused_with_the_list_of_known_ones() {
    let answer = serve(request("lz4", &message(0, b"x"))).await;
    let (code, text) = status_of(answer.headers());
    assert_eq!(code, Code::Unimplemented);
    assert_eq!(
        text,
        "/thanos.Store/Series: encoding \"lz4\" is not supported, expected gzip, snappy or zstd"
    );
    assert_eq!(answer.headers()[ACCEPT_HEADER], "gzip,snappy,zstd");
}

#[tokio::test]
async fn answer_is_plain_if_the_client_does_not_understand_its_own_encoding() {
    let mut request = request("snappy", &message(1, &compressed(MessageEncoding::Snappy, b"text")));
    request.headers_mut().insert(ACCEPT_HEADER, "identity, gzip".parse().unwrap());
    let answer = serve(request).await;
    assert!(!answer.headers().contains_key(ENCODING_HEADER));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), message(0, b"text"));
}

#[tokio::test]
async fn message_above_the_limit_is_refused_as_resource_exhausted() {
    // 64 MiB of zeros are 64 KiB in gzip; they are never decompressed as a whole.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        bomb.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let zeros = vec![0; LIMIT + 1];
    let cases = [
        ("gzip", message(1, &bomb)),
        ("gzip", message(1, &compressed(MessageEncoding::Gzip, &zeros))),
        ("snappy", message(1, &compressed(MessageEncoding::Snappy, &zeros))),
        ("zstd", message(1, &compressed(MessageEncoding::Zstd, &zeros))),
        ("identity", message(0, &zeros)),
        // Only announced.
        ("identity", vec![0, 0xff, 0xff, 0xff, 0xff]),
        ("zstd", vec![1, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (encoding, bytes) in cases {
        let answer = serve(request(encoding, &bytes)).await;
        let (code, text) = status_of(answer.headers());
        assert_eq!(code, Code::ResourceExhausted, "{encoding}: {text}");
        assert!(text.contains("the limit is 1048576 bytes"), "{encoding}: {text}");
    }
}

#[tokio::test]
async fn damaged_messages_are_errors_that_say_what_is_wrong() {
    let cut = |encoding: MessageEncoding| {
        let whole = compressed(encoding, &[b'a'; 1000]);
        message(1, &whole[..whole.len() - 3])
    };
    let cases = [
        ("gzip", cut(MessageEncoding::Gzip), "compressed with gzip is damaged"),
        ("snappy", cut(MessageEncoding::Snappy), "compressed with snappy is damaged: a chunk is cut short"),
        ("zstd", cut(MessageEncoding::Zstd), "compressed with zstd is damaged"),
        ("gzip", message(1, b"no gzip at all"), "compressed with gzip is damaged"),
        ("identity", message(1, b"x"), "the header grpc-encoding does not say how"),
        ("gzip", message(7, b"x"), "begins with 7"),
        ("gzip", message(0, b"xyz")[..6].to_vec(), "in the middle of a message"),
    ];
    for (encoding, bytes, expected) in cases {
        let answer = serve(request(encoding, &bytes)).await;
        let (code, text) = status_of(answer.headers());
        assert_eq!(code, Code::Internal, "{encoding}: {text}");
        assert!(text.contains(expected), "{encoding}: {text}");
    }
}

/// Asks a server for `plain`, with this memory for the answer.
async fn answer_within(
    memory: MessageMemory,
    encoding: MessageEncoding,
    plain: &[u8],
) -> Result<Bytes, Status> {
    let bytes = message(1, &compressed(encoding, plain));
    let service = service_fn(move |_: Request<Body>| {
        let answer = Response::builder().header(ENCODING_HEADER, encoding.name());
        let answer = answer.body(body(&bytes, 100)).unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    let client = ClientCompressionLayer::new(Some(encoding), LIMIT).layer(service);
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(memory);
    let answer = client.oneshot(request).await.unwrap();
    answer.into_body().collect().await.map(|read| read.to_bytes())
}

#[tokio::test]
async fn memory_of_an_answer_is_counted_before_it_is_decompressed() {
    let plain = vec![0; LIMIT];
    for encoding in MessageEncoding::ALL {
        let most = Arc::new(AtomicUsize::new(0));
        let counted = |limit: usize| {
            let most = Arc::clone(&most);
            MessageMemory::new(LIMIT, "", move |bytes| {
                if bytes > limit {
                    return Err(Status::resource_exhausted("no memory is left"));
                }
                most.fetch_max(bytes, Ordering::SeqCst);
                Ok(())
            })
        };
        answer_within(counted(usize::MAX), encoding, &plain).await.unwrap();
        let all = most.swap(0, Ordering::SeqCst);
        assert!((2 * LIMIT..2 * LIMIT + LIMIT / 10).contains(&all), "{encoding}: {all}");
        let refused = answer_within(counted(LIMIT / 4), encoding, &plain).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "no memory is left"));
        assert!(most.swap(0, Ordering::SeqCst) <= LIMIT / 4, "{encoding}");
    }
}

#[tokio::test]
async fn limit_of_an_answer_can_be_lower_than_that_of_the_layer() {
    let ask = async |limit, plain: &[u8]| {
        let memory = MessageMemory::new(limit, " (--the-flag)", |_| Ok(()));
        answer_within(memory, MessageEncoding::Zstd, plain).await
    };
    ask(1000, &[0; 1000]).await.unwrap();
    let refused = ask(1000, &[0; 1001]).await.unwrap_err();
    assert!(refused.message().contains("the limit is 1000 bytes (--the-flag)"), "{refused}");
    let refused = ask(10 * LIMIT, &vec![0; LIMIT + 1]).await.unwrap_err();
    assert!(refused.message().contains("the limit is 1048576 bytes"), "{refused}");
}

#[tokio::test]
async fn compressed_answer_that_was_not_asked_for_is_an_error() {
    let service = service_fn(|_: Request<Body>| async {
        let bytes = message(1, &compressed(MessageEncoding::Gzip, &[0; 1000]));
        Ok::<_, Infallible>(
            Response::builder().header(ENCODING_HEADER, "gzip").body(body(&bytes, 100)).unwrap(),
        )
    });
    let client = ClientCompressionLayer::new(None, LIMIT).layer(service);
    let error = client.clone().oneshot(Request::new(Body::empty())).await.unwrap_err().to_string();
    assert!(error.contains("compressed with gzip, although no compression was asked for"), "{error}");
    let client = ClientCompressionLayer::new(Some(MessageEncoding::Snappy), LIMIT).layer(service);
    let answer = client.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), message(0, &[0; 1000]));
}
