//! The commands of Redis that a cache needs, in RESP2: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};

use crate::shared_cache::wire::{Failure, content, line, number};

/// How a connection is opened, after TLS.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct RedisLogin {
    pub(super) username: String,
    /// Empty for none.
    pub(super) password: String,
    pub(super) db: u32,
}

impl std::fmt::Debug for RedisLogin {
    /// The password is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLogin")
            .field("username", &self.username)
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

/// Logs in and selects the database.
pub(super) async fn log_in<S>(stream: &mut S, login: &RedisLogin) -> Result<(), Failure>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let mut commands: Vec<Vec<&[u8]>> = Vec::new();
    let db = login.db.to_string();
    match (login.username.as_str(), login.password.as_str()) {
        ("", "") => {}
        ("", password) => commands.push(vec![b"AUTH", password.as_bytes()]),
        (user, password) => commands.push(vec![b"AUTH", user.as_bytes(), password.as_bytes()]),
    }
    if login.db != 0 {
        commands.push(vec![b"SELECT", db.as_bytes()]);
    }
    for command in commands {
        let mut bytes = Vec::new();
        write_command(&mut bytes, &command);
        send(stream, &bytes).await?;
        expect_ok(stream).await?;
    }
    Ok(())
}

/// The values of `keys`, in their order; `None` for those that are not there or have more than `most` bytes.
pub(super) async fn get_many<S>(
    stream: &mut S,
    keys: &[String],
    most: usize,
) -> Result<Vec<Option<Bytes>>, Failure>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let words: Vec<&[u8]> =
        std::iter::once("MGET").chain(keys.iter().map(String::as_str)).map(str::as_bytes).collect();
    let mut bytes = Vec::new();
    write_command(&mut bytes, &words);
    send(stream, &bytes).await?;
    let head = line(stream).await?;
    if expect(&head, '*').and_then(number)? != keys.len() as u64 {
        return Err(Failure::Malformed(format!("{head:?} for {} keys", keys.len())));
    }
    let mut values = Vec::with_capacity(keys.len());
    for _ in keys {
        let head = line(stream).await?;
        values.push(match expect(&head, '$')? {
            "-1" => None,
            length => content(stream, number(length)?, most).await?,
        });
    }
    Ok(values)
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
    let ttl = ttl_secs.to_string();
    let mut bytes = Vec::new();
    for (key, value) in items {
        write_command(&mut bytes, &[b"SET", key.as_bytes(), value, b"EX", ttl.as_bytes()]);
    }
    send(stream, &bytes).await?;
    for _ in items {
        expect_ok(stream).await?;
    }
    Ok(())
}

fn write_command(bytes: &mut Vec<u8>, words: &[&[u8]]) {
    bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), Failure> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

async fn expect_ok<S: AsyncBufRead + Unpin>(stream: &mut S) -> Result<(), Failure> {
    let text = line(stream).await?;
    expect(&text, '+').map(drop)
}

/// What follows the mark of a kind of reply.
fn expect(text: &str, mark: char) -> Result<&str, Failure> {
    match text.strip_prefix(mark) {
        Some(rest) => Ok(rest),
        None => Err(match text.strip_prefix('-') {
            Some(error) if error.starts_with("MOVED") => {
                Failure::Server(format!("{error}: it is a node of a Redis cluster, which is not supported"))
            }
            Some(error) => Failure::Server(error.to_owned()),
            None => Failure::Malformed(format!("{text:?}")),
        }),
    }
}
