//! The protocols against servers that answer anything: no panic, no unbounded memory, no value that was not stored.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};

use super::wire::Failure;
use super::{memcached, redis};

/// The connection to a server that answers `answer` to whatever is sent, and closes the connection.
fn server(answer: &[u8]) -> BufReader<DuplexStream> {
    let (here, mut there) = duplex(1 << 20);
    let answer = answer.to_vec();
    tokio::spawn(async move {
        let mut ignored = [0; 64];
        drop(there.read(&mut ignored).await);
        drop(there.write_all(&answer).await);
    });
    BufReader::new(here)
}

fn keys() -> Vec<String> {
    ["a", "b", "c"].map(str::to_owned).to_vec()
}

type Values = Result<Vec<Option<Bytes>>, Failure>;

async fn of_redis(answer: &[u8]) -> Values {
    redis::get_many(&mut server(answer), &keys(), 5).await
}

async fn of_memcached(answer: &[u8]) -> Values {
    memcached::get_many(&mut server(answer), &keys(), 5).await
}

const REDIS: &[u8] = b"*3\r\n$5\r\nhello\r\n$-1\r\n$6\r\nlonger\r\n";
const MEMCACHED: &[u8] = b"VALUE a 0 5\r\nhello\r\nVALUE c 0 6\r\nlonger\r\nEND\r\n";

#[tokio::test]
async fn values_are_found_and_those_that_are_too_long_are_skipped() {
    let expected = [Some(Bytes::from_static(b"hello")), None, None];
    assert_eq!(of_redis(REDIS).await.unwrap(), expected);
    assert_eq!(of_memcached(MEMCACHED).await.unwrap(), expected);
}

#[tokio::test]
async fn errors_of_servers_are_named() {
    let error = of_redis(b"-NOAUTH Authentication required.\r\n").await.unwrap_err();
    assert!(error.to_string().contains("NOAUTH") && error.reason() == "server-error", "{error}");
    let error = of_redis(b"-MOVED 3999 127.0.0.1:6381\r\n").await.unwrap_err().to_string();
    assert!(error.contains("Redis cluster, which is not supported"), "{error}");
    let error = of_memcached(b"SERVER_ERROR out of memory\r\n").await.unwrap_err().to_string();
    assert!(error.contains("out of memory"), "{error}");
    for endless in [&b"*3\r\n$99999999999\r\n"[..], b"*4\r\n", b"*3\r\n:1\r\n", &[b'+'; 5000]] {
        let error = of_redis(endless).await.unwrap_err();
        assert_eq!(error.reason(), "other", "{error}");
    }
    for endless in [&b"VALUE a 0 99999999999\r\n"[..], b"VALUE x 0 1\r\n", &[b'V'; 5000]] {
        let error = of_memcached(endless).await.unwrap_err();
        assert_eq!(error.reason(), "other", "{error}");
    }
}

#[tokio::test]
async fn damaged_answers_are_errors_or_values_of_bounded_length() {
    let mut random = 1_u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    let check = |found: Values| {
        for value in found.into_iter().flatten().flatten() {
            assert!(value.len() <= 5, "{value:?}");
        }
    };
    for sound in [REDIS, MEMCACHED] {
        for cut in 0..sound.len() {
            assert!(of_redis(&sound[..cut]).await.is_err(), "cut at {cut}");
            assert!(of_memcached(&sound[..cut]).await.is_err(), "cut at {cut}");
        }
    }
    for _ in 0..2_000 {
        for sound in [REDIS, MEMCACHED] {
            let mut bytes = sound.to_vec();
            for _ in 0..1 + below(3) {
                let at = below(bytes.len());
                match below(3) {
                    0 => bytes[at] = below(256) as u8,
                    1 => _ = bytes.remove(at),
                    _ => bytes.insert(at, b"0123456789$*-\r\n "[below(16)]),
                }
            }
            check(of_redis(&bytes).await);
            check(of_memcached(&bytes).await);
        }
    }
}
