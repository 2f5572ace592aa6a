//! Limits on what strangers may have open at once: in all, and from one network.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Bits of an IPv6 address that name a network: one host has all addresses behind them.
const IPV6_NETWORK_BITS: u32 = 64;

/// Slots for connections whose clients are not authenticated yet.
pub(crate) struct Slots {
    total: usize,
    of_network: usize,
    taken: Mutex<TakenSlots>,
}

#[derive(Default)]
struct TakenSlots {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// Which slots are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotsFull {
    /// Those of the network.
    #[error("too many connections from this network at once")]
    OfNetwork,
    /// All.
    #[error("too many connections at once")]
    All,
}

/// A slot for one connection, released on drop.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    network: IpAddr,
}

impl Slots {
    /// `total` slots, of which one network can have `of_network`. A network is an IPv4 address, or a /64 of IPv6.
    pub(crate) fn new(total: usize, of_network: usize) -> Arc<Self> {
        Arc::new(Self { total, of_network, taken: Mutex::default() })
    }

    /// Takes a slot for a connection from `remote`.
    ///
    /// # Errors
    /// Which slots are in use.
    pub(crate) fn take(self: &Arc<Self>, remote: IpAddr) -> Result<Slot, SlotsFull> {
        let network = network(remote);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = taken.by_network.get(&network).copied().unwrap_or_default();
        if of_network >= self.of_network {
            return Err(SlotsFull::OfNetwork);
        }
        if taken.total >= self.total {
            return Err(SlotsFull::All);
        }
        taken.total += 1;
        taken.by_network.insert(network, of_network + 1);
        Ok(Slot { slots: Arc::clone(self), network })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(count) = taken.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.by_network.remove(&self.network);
            }
        }
    }
}

/// The network of an address. An IPv4-mapped IPv6 address is the same host as the IPv4 address.
fn network(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_use_all_slots_and_slots_are_released() {
        let slots = Slots::new(20, 4);
        let take = |text: &str| slots.take(text.parse().unwrap());
        let mut taken: Vec<Slot> = (0..4).map(|_| take("10.0.0.1").ok().unwrap()).collect();
        assert_eq!(take("10.0.0.1").err(), Some(SlotsFull::OfNetwork));
        assert!(take("::ffff:10.0.0.1").is_err(), "the same address again");
        taken.extend((0..4).map(|i| take(&format!("2001:db8::{i}")).ok().unwrap()));
        assert!(take("2001:db8::ffff:1:2").is_err(), "the same /64");
        taken.extend((2..5).flat_map(|i| [i; 4]).map(|i| take(&format!("2001:db8:{i}::1")).ok().unwrap()));
        assert_eq!(take("10.0.0.2").err(), Some(SlotsFull::All));
        taken.remove(0);
        let _again = take("10.0.0.2").ok().unwrap();
        drop(taken);
        let taken = slots.taken.lock().unwrap();
        assert_eq!((taken.total, taken.by_network.len()), (1, 1));
    }
}
