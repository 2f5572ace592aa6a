//! HTTP with as little machinery as can be: one request a connection, in HTTP/1.0, so that nothing is chunked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer that a test waits for takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Gets `path` and returns status and body.
///
/// # Errors
/// When there is no answer, or it is not HTTP.
pub fn get(at: SocketAddr, path: &str) -> Result<(u16, String), String> {
    exchange(at, &format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n"))
}

/// Posts `body` as a form and returns status and body.
///
/// # Errors
/// When there is no answer, or it is not HTTP.
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
    Ok((status.ok_or_else(|| format!("{at}: no status: {head}"))?, body.to_owned()))
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
