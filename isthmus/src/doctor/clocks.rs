//! The clock of this machine, compared with those of HTTP servers.
//!
//! A certificate is refused when the clocks of the two gateways differ by more than a minute, and samples of a machine with a wrong
//! clock are not where queries look for them.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::doctor::finding::Finding;

pub(super) const CHECK: &str = "clock";

/// Gateways warn from this difference on.
const NOTICED: Duration = Duration::from_secs(30);
/// Gateways refuse certificates from this difference on.
const REFUSED: Duration = Duration::from_secs(60);
/// Time limit of each step of a request.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Most bytes of an answer that are read.
const ANSWER_BYTES: u64 = 16 << 10;

/// Asks each server, by its URL, for the time.
pub(super) fn check(urls: &[String]) -> Vec<Finding> {
    urls.iter().map(|url| check_one(url)).collect()
}

fn check_one(url: &str) -> Finding {
    let Some((host, port, path)) = parts(url) else {
        return Finding::ok(CHECK, format!("{url}: was not asked, only http://HOST:PORT is"));
    };
    let answer = match head(host, port, path) {
        Ok(answer) => answer,
        Err(error) => {
            return Finding::warning(CHECK, format!("{url}: {error}; the clocks were not compared"));
        }
    };
    match date(&answer) {
        Some(theirs) => judge(&format!("the one of {url}"), theirs, SystemTime::now()),
        None => Finding::warning(
            CHECK,
            format!("{url}: its answer has no Date header; the clocks were not compared"),
        ),
    }
}

/// Compares two clocks. That of the other side is in whole seconds.
pub(super) fn judge(other: &str, theirs: SystemTime, ours: SystemTime) -> Finding {
    let (apart, word) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let text = format!("this clock is {} s {word} {other}", apart.as_secs());
    let advice = "set both with NTP (`timedatectl set-ntp true`)";
    match apart {
        apart if apart >= REFUSED => {
            Finding::critical(CHECK, format!("{text}, and certificates are refused from 60 s on; {advice}"))
        }
        apart if apart >= NOTICED => Finding::warning(CHECK, format!("{text}; {advice}")),
        _ => Finding::ok(CHECK, format!("agrees with {other}")),
    }
}

/// Host, port and path of a URL without TLS.
fn parts(url: &str) -> Option<(&str, u16, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            Some((host.trim_matches(['[', ']']), port.parse().ok()?, path))
        }
        _ => Some((authority, 80, path)),
    }
}

/// Sends a HEAD request, and returns the head of the answer.
pub(super) fn head(host: &str, port: u16, path: &str) -> Result<String, String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let addresses = (host, port).to_socket_addrs()?;
        let mut last = std::io::Error::other("the host name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(stream) => return ask(stream, host, path),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    exchange().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string())
}

fn ask(mut stream: TcpStream, host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // `write!` would send each part by itself.
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The Date header of an answer.
fn date(answer: &str) -> Option<SystemTime> {
    let values = answer.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = values.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("date"))?;
    OffsetDateTime::parse(value.trim(), &Rfc2822).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    /// A server whose clock is ahead by some seconds, and what the check says about it.
    fn ahead(seconds: i64) -> Finding {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let date = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
            let format = time::macros::format_description!(
                "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
            );
            let date = date.format(&format).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            assert!(request.starts_with(b"HEAD /x HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 404 Not Found\r\ndate: {date}\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        let findings = check(&[url]);
        server.join().unwrap();
        findings[0].clone()
    }

    #[test]
    fn a_clock_that_is_wrong_is_found() {
        assert_eq!(ahead(0).severity, Severity::Ok);
        let behind = ahead(45);
        assert!(behind.severity == Severity::Warning && behind.text.contains("behind"), "{behind:?}");
        let wrong = ahead(-3600);
        assert!(wrong.severity == Severity::Critical && wrong.text.contains("ahead of"), "{wrong:?}");
    }

    #[test]
    fn servers_that_do_not_say_the_time_are_named() {
        let findings = check(&["http://127.0.0.1:1".into(), "https://h".into()]);
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(
            findings[0].text.contains("refused") && findings[1].text.contains("was not asked"),
            "{findings:?}"
        );
        assert_eq!(parts("http://[::1]:9/a/b"), Some(("::1", 9, "/a/b")));
        assert_eq!(parts("http://h"), Some(("h", 80, "/")));
        for answer in ["", "date", "Date: yesterday\r\n", "\u{0}:\u{0}"] {
            assert_eq!(date(answer), None, "{answer:?}");
        }
    }
}
