//! A minimal HTTP client: HTTP/1.0 with one request per connection, so that responses are not chunked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Time limit for reading. It is longer than any response in the tests takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a GET request for `path`. Returns status and body.
///
/// # Errors
/// If there is no response, or if it is not HTTP.
pub fn get(at: SocketAddr, path: &str) -> Result<(u16, String), String> {
    exchange(at, &format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n"))
}

/// Sends `body` as a form in a POST request. Returns status and body.
///
/// # Errors
/// If there is no response, or if it is not HTTP.
pub fn post_form(at: SocketAddr, path: &str, body: &str) -> Result<(u16, String), String> {
    let length = body.len();
    exchange(
        at,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: {at}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn exchange(at: SocketAddr, request: &str) -> Result<(u16, String), String> {
    let within = |e: std::io::Error| format!("{at}: {e}");
    let mut stream = TcpStream::connect(at).map_err(within)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(within)?;
    stream.write_all(request.as_bytes()).map_err(within)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(within)?;
    let answer = String::from_utf8(answer).map_err(|e| format!("{at}: {e}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{at}: no HTTP: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok((status.ok_or_else(|| format!("{at}: the response has no status: {head}"))?, body.to_owned()))
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
