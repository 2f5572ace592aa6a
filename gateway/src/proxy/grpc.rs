//! The part of gRPC that a proxy needs: statuses as responses, the timeout header, hop-by-hop headers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::{BodyExt, Full};
use tonic::{Code, Status, body::Body};

/// The name of a code in logs and metrics.
pub(crate) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// A response without data that carries only a status ("trailers-only").
pub(crate) fn refusal(code: Code, message: impl Into<String>) -> Response<Body> {
    Status::new(code, message).into_http()
}

/// A successful answer without data: no message in a stream, otherwise one that is empty.
pub(crate) fn nothing(is_stream: bool) -> Response<Body> {
    let ok = Status::ok("");
    if is_stream {
        return ok.into_http();
    }
    let end = trailers(&ok);
    let message = Full::new(Bytes::from_static(&[0; 5])).with_trailers(std::future::ready(Some(Ok(end))));
    let mut response = Response::new(Body::new(message));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Whether the messages of a request are compressed.
pub(crate) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// The code that headers or trailers carry, if any.
pub(crate) fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// The trailers that end a stream with a status. The message is omitted if it cannot be encoded as a header.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// Longest message of a status, encoded as a header, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 << 10;
/// Most bytes of a head or of trailers, as HTTP/2 counts them: a hop refuses heads of more than 16 KiB.
const MAX_HEADERS_BYTES: usize = 14 << 10;

/// Makes the headers of a response small enough for each hop: cuts a long message of a status, with a mark, and drops other
/// metadata that does not fit. A store may send what a hop refuses, and its caller would then have no status at all.
pub(crate) fn fit_response(headers: &mut HeaderMap) {
    let message = headers.get(Status::GRPC_MESSAGE).map_or(0, HeaderValue::len);
    if message > MAX_MESSAGE_BYTES
        && let Some(status) = Status::from_header_map(headers)
    {
        let cut = Status::new(status.code(), cut_message(status.message()));
        headers.remove(Status::GRPC_MESSAGE);
        // A text that cannot be encoded is left out.
        let _ = cut.add_header(headers);
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if bytes > MAX_HEADERS_BYTES {
        let kept = [Status::GRPC_STATUS, Status::GRPC_MESSAGE, header::CONTENT_TYPE];
        let dropped: Vec<HeaderName> = headers.keys().filter(|name| !kept.contains(name)).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
    }
}

/// The beginning of a message that takes [`MAX_MESSAGE_BYTES`] as a header, and how much is missing.
fn cut_message(message: &str) -> String {
    let mut left = MAX_MESSAGE_BYTES - 64;
    let end = message.char_indices().find(|(_, char)| {
        // Each byte outside of ASCII takes three.
        let cost = if char.is_ascii_alphanumeric() { 1 } else { 3 * char.len_utf8() };
        let fits = cost <= left;
        left = left.saturating_sub(cost);
        !fits
    });
    match end {
        Some((end, _)) => format!("{} [{} bytes follow]", &message[..end], message.len() - end),
        None => message.to_owned(),
    }
}

/// The caller's time limit for the whole stream; `None` if the header is absent or invalid.
///
/// At most 8 digits and a unit:
/// <https://github.com/grpc/grpc/blob/v1.60.0/doc/PROTOCOL-HTTP2.md#requests>.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Removes the headers that apply to one connection only. `te: trailers` is kept.
pub(crate) fn strip_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::HOST,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
    if headers.contains_key(header::TE) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_parsed_as_grpc_specifies() {
        let check = |text: &str, expected: Option<Duration>| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(timeout(&headers), expected, "{text:?}");
        };
        check("1H", Some(Duration::from_secs(3600)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("2M", Some(Duration::from_secs(120)));
        check("30S", Some(Duration::from_secs(30)));
        check("250m", Some(Duration::from_millis(250)));
        check("5u", Some(Duration::from_micros(5)));
        check("0n", Some(Duration::ZERO));
        for bad in ["", "S", "5", "123456789S", "-1S", "+1S", "1.5S", "1s", "1 S", "é", "1é"] {
            check(bad, None);
        }
    }

    #[test]
    fn headers_of_one_hop_are_not_forwarded() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-private, Keep-Alive"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("host", "evil:80"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("grpc-timeout", "1S"),
            ("thanos-tenant", "a"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_headers(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        left.sort();
        assert_eq!(left, ["grpc-timeout: \"1S\"", "te: \"trailers\"", "thanos-tenant: \"a\""]);
    }

    #[test]
    fn the_headers_of_a_response_fit_each_hop() {
        let fitted = |status: &Status, more: usize| {
            let mut headers = trailers(status);
            headers.insert("x-cause", "x".repeat(more).parse().unwrap());
            fit_response(&mut headers);
            let bytes: usize =
                headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(bytes <= MAX_HEADERS_BYTES, "{bytes}");
            let fitted = Status::from_header_map(&headers).unwrap();
            assert_eq!(fitted.code(), status.code());
            (fitted.message().to_owned(), headers.contains_key("x-cause"))
        };
        assert_eq!(fitted(&Status::internal("short"), 10), ("short".to_owned(), true));
        assert_eq!(fitted(&Status::internal("short"), 20_000), ("short".to_owned(), false));
        for char in ["x", "%", "\n", "é", "漢", "🙂"] {
            for count in [10, 1_000, 3_000, 10_000, 100_000] {
                let text = char.repeat(count);
                let (kept, _) = fitted(&Status::not_found(text.clone()), 10);
                match kept.rsplit_once(" [") {
                    None => assert_eq!(kept, text),
                    Some((begin, rest)) => {
                        assert!(text.starts_with(begin) && begin.len() > 2_000, "{kept}");
                        assert_eq!(rest, format!("{} bytes follow]", text.len() - begin.len()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_status_with_any_message_ends_a_stream() {
        let status = Status::deadline_exceeded("zu spät\r\n\0");
        let trailers = trailers(&status);
        assert_eq!(code_of(&trailers), Some(Code::DeadlineExceeded));
        let response = refusal(Code::Unavailable, "x\ny");
        assert_eq!(response.status(), 200);
        assert_eq!(code_of(response.headers()), Some(Code::Unavailable));
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }
}
