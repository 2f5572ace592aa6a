//! Requests to targets: headers, compression, credentials, redirects, proxies.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::tests::target::{Answer, Asked, TestTarget, text};
use crate::tests::world::{World, job, of};

/// Scrapes a target with these lines in its configuration, and returns its requests after the first scrape.
async fn scraped(
    lines: &str,
    handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (World, TestTarget, Vec<Asked>) {
    let world = World::new();
    let target = TestTarget::start(handler).await;
    world.apply(&job(&[target.address.to_string()], lines));
    world.last_error().await;
    let asked = target.asked();
    (world, target, asked)
}

#[tokio::test]
async fn requests_have_the_headers_of_prometheus() {
    let lines = "scrape_timeout: 400ms\nmetrics_path: /a b\nparams: {x: [y z]}";
    let (world, target, asked) = scraped(lines, |_| text("a 1\n")).await;
    assert_eq!(asked[0].line, "GET /a%20b?x=y+z HTTP/1.1");
    let header = |name: &str| asked[0].headers[name].as_str();
    assert_eq!(header("x-prometheus-scrape-timeout-seconds"), "0.4");
    assert_eq!(header("accept-encoding"), "gzip");
    assert!(header("user-agent").starts_with("isthmus/"));
    assert!(
        header("accept")
            .starts_with("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,")
    );
    assert_eq!(header("host"), target.address.to_string());
    assert_eq!(world.until_samples(&of("a", target.address), 1).await[0], "1");
    assert_eq!(world.until_samples(&of("up", target.address), 2).await[..2], ["1", "1"]);
}

#[tokio::test]
async fn compressed_expositions_are_read() {
    let gzip = |body: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.as_bytes()).unwrap();
        let head =
            "200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\nContent-Encoding: gzip";
        Answer::Whole { head: head.to_owned(), body: encoder.finish().unwrap() }
    };
    let (world, target, _) = scraped("", move |_| gzip("# TYPE a counter\na_total 5\n# EOF\n")).await;
    assert_eq!(world.until_samples(&of("a_total", target.address), 1).await[0], "5");
    let (_, _, asked) = scraped("enable_compression: false", |_| text("")).await;
    assert_eq!(asked[0].headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn credentials_are_shown_and_read_again_when_their_files_change() {
    let (_, _, asked) =
        scraped("basic_auth: {username: Aladdin, password: 'open sesame'}", |_| text("")).await;
    assert_eq!(asked[0].headers["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let world = World::new();
    let target = TestTarget::start(|_| text("")).await;
    let lines = "authorization: {type: Own, credentials_file: token}\nhttp_headers: {X-Scope: {values: [a, b], files: [token]}}";
    world.apply(&job(&[target.address.to_string()], lines));
    assert!(world.last_error().await.contains("token: cannot be read"), "{}", world.last_error().await);
    for token in ["first", "second"] {
        std::fs::write(world.path().join("token"), format!("{token}\n")).unwrap();
        let is_shown = || {
            let last = target.asked().pop();
            last.is_some_and(|asked| {
                asked.headers["authorization"] == format!("Own {token}") && asked.headers["x-scope"] == token
            })
        };
        world.until(token, is_shown).await;
    }
}

fn redirect(location: &str) -> Answer {
    Answer::Whole { head: format!("302 Found\r\nLocation: {location}"), body: Vec::new() }
}

#[tokio::test]
async fn redirects_are_followed_without_credentials_for_other_hosts() {
    let other = TestTarget::start(|_| text("a 7\n")).await;
    let to = format!("http://{}/there?x=y", other.address);
    let lines = "bearer_token: secret";
    let (world, target, asked) = scraped(lines, move |asked| match asked.line.as_str() {
        "GET /metrics HTTP/1.1" => redirect("/own"),
        _ => redirect(&to),
    })
    .await;
    assert_eq!(world.until_samples(&of("a", target.address), 1).await[0], "7");
    assert_eq!(asked[1].line, "GET /own HTTP/1.1");
    assert_eq!(asked[1].headers["authorization"], "Bearer secret");
    let asked = other.asked();
    assert_eq!(asked[0].line, "GET /there?x=y HTTP/1.1");
    assert_eq!(asked[0].headers.get("authorization"), None);
    assert_eq!(asked[0].headers["host"], other.address.to_string());
}

#[tokio::test]
async fn redirects_can_be_forbidden_and_end() {
    let (world, target, asked) = scraped("follow_redirects: false", |_| redirect("/own")).await;
    assert_eq!(world.last_error().await, "server returned HTTP status 302 Found");
    assert!(asked.iter().all(|asked| asked.line.contains("/metrics")), "{asked:?}");
    assert_eq!(world.until_samples(&of("up", target.address), 1).await[0], "0");
    let (world, _target, asked) = scraped("", |_| redirect("/own")).await;
    assert!(
        world.last_error().await.ends_with("/own: stopped after 10 redirects"),
        "{}",
        world.last_error().await
    );
    assert_eq!(asked.len(), 11);
    let (world, ..) = scraped("", |_| redirect("ftp://x/")).await;
    assert!(
        world.last_error().await.contains("is not of the form http://HOST"),
        "{}",
        world.last_error().await
    );
    let (world, ..) = scraped("", |_| Answer::Whole { head: "302 Found".to_owned(), body: vec![] }).await;
    assert!(
        world.last_error().await.contains("the redirect has no Location"),
        "{}",
        world.last_error().await
    );
}

#[tokio::test]
async fn a_connection_that_the_target_closes_between_scrapes_does_not_matter() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4_096];
                let _ = stream.read(&mut head).await;
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\na 1\n";
                let _ = stream.write_all(answer.as_bytes()).await;
                // The second request on the connection is read and not answered.
                let _ = stream.read(&mut head).await;
            });
        }
    });
    let world = World::new();
    world.apply(&job(&[address.to_string()], "scrape_interval: 1s"));
    let ups = world.until_samples(&of("up", address), 5).await;
    assert!(ups.iter().all(|up| up == "1"), "{ups:?}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_whole_url() {
    let proxy = TestTarget::start(|_| text("a 1\n")).await;
    let world = World::new();
    let lines = format!("proxy_url: http://me:pw@{}\nno_proxy: inside.example", proxy.address);
    world.apply(&job(&["outside.example:81".to_owned()], &lines));
    assert_eq!(world.until_samples(&of("a", "outside.example:81"), 1).await[0], "1");
    assert_eq!(proxy.asked()[0].line, "GET http://outside.example:81/metrics HTTP/1.1");
    assert_eq!(proxy.asked()[0].headers["proxy-authorization"], "Basic bWU6cHc=");
    let direct = TestTarget::start(|_| text("a 2\n")).await;
    let world = World::new();
    let lines = format!("proxy_url: http://{}\nno_proxy: 127.0.0.0/8", proxy.address);
    world.apply(&job(&[direct.address.to_string()], &lines));
    assert_eq!(world.until_samples(&of("a", direct.address), 1).await[0], "2");
}

#[tokio::test]
async fn a_target_without_a_known_content_type_needs_a_fallback() {
    let answer = |kind: &'static str| {
        move |_: &Asked| Answer::Whole { head: format!("200 OK{kind}"), body: b"a 1\n".to_vec() }
    };
    let (world, ..) = scraped("", answer("")).await;
    assert_eq!(world.last_error().await, "the target sends no Content-Type; set fallback_scrape_protocol");
    let html = "\r\nContent-Type: text/html";
    let (world, ..) = scraped("", answer(html)).await;
    assert!(world.last_error().await.contains("\"text/html\", which is not known"));
    let (world, target, _) = scraped("fallback_scrape_protocol: PrometheusText0.0.4", answer(html)).await;
    assert_eq!(world.until_samples(&of("a", target.address), 1).await[0], "1");
}
