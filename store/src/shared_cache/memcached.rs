//! The commands of memcached that a cache needs, in its text protocol:
//! <https://github.com/memcached/memcached/blob/1.6.38/doc/protocol.txt>.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};

use crate::shared_cache::wire::{Failure, content, line, number};

/// Larger times to live are seconds since the epoch: thirty days.
const MAX_RELATIVE_SECS: u64 = 30 * 86_400;

/// The values of `keys`, in their order; `None` for those that are not there or have more than `most` bytes.
pub(super) async fn get_many<S>(
    stream: &mut S,
    keys: &[String],
    most: usize,
) -> Result<Vec<Option<Bytes>>, Failure>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let command = format!("get {}\r\n", keys.join(" "));
    stream.write_all(command.as_bytes()).await?;
    stream.flush().await?;
    let mut values: Vec<Option<Bytes>> = vec![None; keys.len()];
    // Values have the order of the keys, and those that are missing are left out.
    let mut next = 0;
    loop {
        let head = line(stream).await?;
        if head == "END" {
            return Ok(values);
        }
        let mut words = head.split(' ');
        let (Some("VALUE"), Some(key), Some(_flags), Some(length)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(refused(&head));
        };
        let Some(skipped) = keys.iter().skip(next).position(|wanted| wanted == key) else {
            return Err(Failure::Malformed(format!("a value for the key {key:?}")));
        };
        next += skipped + 1;
        values[next - 1] = content(stream, number(length)?, most).await?;
    }
}

/// Stores all values for `ttl_secs`.
pub(super) async fn set_many<S>(
    stream: &mut S,
    items: &[(String, Bytes)],
    ttl_secs: u64,
) -> Result<(), Failure>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let until = if ttl_secs > MAX_RELATIVE_SECS { now() + ttl_secs } else { ttl_secs };
    let mut bytes = Vec::new();
    for (key, value) in items {
        bytes.extend_from_slice(format!("set {key} 0 {until} {}\r\n", value.len()).as_bytes());
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    for _ in items {
        let text = line(stream).await?;
        if text != "STORED" {
            return Err(refused(&text));
        }
    }
    Ok(())
}

fn refused(text: &str) -> Failure {
    let known = ["ERROR", "CLIENT_ERROR", "SERVER_ERROR", "NOT_STORED"];
    match known.iter().any(|error| text.starts_with(error)) {
        true => Failure::Server(text.to_owned()),
        false => Failure::Malformed(format!("{text:?}")),
    }
}
