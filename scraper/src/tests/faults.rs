//! Targets that misbehave: each fails with a reason, in time and in bounded memory, and does not disturb the others.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::tests::target::{Answer, TestTarget, text};
use crate::tests::world::{World, job, of};

/// Scrapes a target that always answers like this beside one that behaves; returns why the first one failed.
async fn failure(lines: &str, answer: Answer) -> String {
    let world = World::new();
    let bad = TestTarget::start(move |_| answer.clone()).await;
    let good = TestTarget::start(|_| text("a 1\n")).await;
    world.apply(&job(&[bad.address.to_string(), good.address.to_string()], lines));
    let of_bad = || {
        let targets = world.targets();
        let url = format!("http://{}/metrics", bad.address);
        targets
            .into_iter()
            .find(|target| target.scrape_url == url && target.last_scrape != promapi::ApiTime::NEVER)
    };
    world.until("scrape", || of_bad().is_some()).await;
    world.until_samples(&of("a", good.address), 3).await;
    let ups = world.until_samples(&of("up", bad.address), 1).await;
    assert!(ups.iter().all(|up| up == "0"), "{ups:?}");
    // Nothing but the series about scrapes.
    let own = format!("instance=\"{}\"", bad.address);
    let names: Vec<String> = world.floats().into_keys().filter(|series| series.contains(&own)).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    of_bad().unwrap().last_error
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";

fn bytes(text: &str) -> Answer {
    Answer::Bytes(text.as_bytes().to_vec())
}

#[tokio::test]
async fn garbage_is_refused_with_its_place() {
    let error = failure("", text("a 1\n\u{1}garbage\n")).await;
    assert!(error.starts_with("line 2: "), "{error}");
    let error = failure("", bytes("SSH-2.0-OpenSSH_9.6\r\n")).await;
    assert!(error.contains("the answer is not HTTP"), "{error}");
    let gzip = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope";
    let error = failure("", bytes(gzip)).await;
    assert!(error.starts_with("the answer is not valid gzip: "), "{error}");
    let protobuf =
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.google.protobuf\r\nContent-Length: 4\r\n\r\nnope";
    let error = failure("", bytes(protobuf)).await;
    assert!(!error.is_empty());
    let error = failure("", bytes("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(error, "server returned HTTP status 503 Service Unavailable");
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let endless = Answer::Endless(format!("{HEAD}\r\n").into_bytes(), b"a 1\n".repeat(10_000));
    let error = failure("body_size_limit: 1MB\nscrape_interval: 2s", endless.clone()).await;
    assert_eq!(error, "body size limit exceeded (1048576 bytes)");
    // Without a limit of its own, it ends with the timeout or at the limit that always holds.
    let headers =
        Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-A: aaaaaaaaaaaaaaaa\r\n".repeat(1_000));
    let error = failure("", headers).await;
    assert!(!error.is_empty());
    let gigabyte = Answer::Endless(
        format!("{HEAD}Content-Length: 1073741824\r\n\r\n").into_bytes(),
        b"a 1\n".repeat(10_000),
    );
    let error = failure("body_size_limit: 1MB\nscrape_interval: 2s", gigabyte).await;
    assert_eq!(error, "body size limit exceeded (1048576 bytes)");
    let line = Answer::Endless(format!("{HEAD}\r\na").into_bytes(), b"aaaaaaaa".repeat(10_000));
    let error = failure("body_size_limit: 1MB\nscrape_interval: 2s", line).await;
    assert_eq!(error, "body size limit exceeded (1048576 bytes)");
}

#[tokio::test]
async fn a_gzip_bomb_is_not_inflated() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b'\n'; 64 << 20]).unwrap();
    let body = encoder.finish().unwrap();
    assert!(body.len() < 100_000);
    let head = "200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip".to_owned();
    let error = failure("body_size_limit: 10MB", Answer::Whole { head, body }).await;
    assert_eq!(error, "body size limit exceeded (10485760 bytes)");
}

#[tokio::test]
async fn a_slow_answer_ends_with_the_timeout() {
    let slow = Answer::Slow(format!("{HEAD}\r\n").into_bytes(), Duration::from_millis(20));
    let error = failure("scrape_interval: 400ms\nscrape_timeout: 200ms", slow).await;
    assert_eq!(error, "the answer was not complete after 200ms");
    let error = failure("", Answer::Nothing).await;
    assert_eq!(error, "the answer was not complete after 400ms");
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_no_samples() {
    for answer in [
        format!("{HEAD}Content-Length: 100\r\n\r\na 1\n"),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n"),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\na 1\n\r\n"),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n-4\r\na 1\n\r\n"),
        format!("{HEAD}Content-Length: -4\r\n\r\na 1\n"),
        format!("{HEAD}Content-Length: 4\r\nContent-Length: 9\r\n\r\na 1\n"),
        "HTTP/1.1 200 OK\r\nContent-".to_owned(),
        String::new(),
    ] {
        let error = failure("", bytes(&answer)).await;
        assert!(!error.is_empty(), "{answer}");
    }
    // A length that is too short cuts the last line, which is a mistake of the target that shows.
    let short = format!("{HEAD}Content-Length: 5\r\n\r\na 1\nb 1\n");
    let error = failure("", bytes(&short)).await;
    assert!(error.starts_with("line 2: "), "{error}");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_down() {
    let world = World::new();
    let address = TestTarget::start(|_| text("")).await.address;
    world.apply(&job(&[address.to_string()], ""));
    let error = world.last_error().await;
    assert!(error.contains("Connection refused"), "{error}");
    let world = World::new();
    world.apply(&job(&["name.invalid:80".to_owned()], "scrape_interval: 5s"));
    let is_there = || world.values(&of("up", "name.invalid:80")) == ["0"];
    world.until("up", is_there).await;
}
