//! Connecting to a name with several addresses: the first that answers wins ("happy eyeballs", RFC 8305).

use std::{net::SocketAddr, time::Duration};

use futures::{
    FutureExt,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::time::sleep;

/// How long an address may be alone before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// A name may resolve to many addresses; at most this many are tried.
const MAX_ADDRESSES: usize = 8;

/// Tries addresses one after the other, [`STAGGER`] apart or as soon as one fails, and returns the first success. IPv6 and IPv4
/// take turns, beginning with the first address.
///
/// # Errors
/// Each address with its error, if none succeeds; empty without addresses.
///
/// # Cancel safety
/// Dropping the future drops all attempts. So does the first success.
pub(crate) async fn race<T, E, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<(SocketAddr, E)>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = in_turn(addresses).into_iter();
    let (mut running, mut failures) = (FuturesUnordered::new(), Vec::new());
    loop {
        if let Some(address) = waiting.next() {
            running.push(attempt(address).map(move |outcome| (address, outcome)));
        }
        let are_waiting = waiting.len() > 0;
        tokio::select! {
            tried = running.next() => match tried {
                Some((_, Ok(success))) => return Ok(success),
                Some((address, Err(error))) => failures.push((address, error)),
                None => return Err(failures),
            },
            () = sleep(STAGGER), if are_waiting => {}
        }
    }
}

/// Addresses of the two families in turn, in the given order within each.
fn in_turn(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
    let Some(first) = addresses.first() else { return Vec::new() };
    let (of_first, others): (Vec<_>, Vec<_>) =
        addresses.iter().partition(|address| address.is_ipv6() == first.is_ipv6());
    let longest = of_first.len().max(others.len());
    let turns = (0..longest).flat_map(|i| [of_first.get(i), others.get(i)]).flatten();
    turns.take(MAX_ADDRESSES).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let expected = addresses(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(in_turn(given), expected);
        assert_eq!(in_turn(addresses(&["1.0.0.1:1"; 20])).len(), MAX_ADDRESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_does_not_hide_the_next_one() {
        let all = addresses(&["[::1]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        // The first never answers, the second fails, the third answers.
        let (first, second) = (all[0], all[1]);
        let attempt = |address: SocketAddr| async move {
            match address {
                address if address == first => std::future::pending().await,
                address if address == second => Err("refused"),
                _ => Ok("connected"),
            }
        };
        let began = tokio::time::Instant::now();
        assert_eq!(race(all.clone(), attempt).await, Ok("connected"));
        assert_eq!(began.elapsed(), STAGGER);
        let failed = race(all.clone(), |_| async { Err::<(), _>("away") }).await.unwrap_err();
        assert_eq!(failed.iter().map(|(address, _)| *address).collect::<Vec<_>>(), all);
        assert_eq!(race(Vec::new(), |_| async { Err::<(), _>("") }).await, Err(Vec::new()));
    }
}
