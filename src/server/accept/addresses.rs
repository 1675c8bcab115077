//! The connections of each client, by address or account, so that one cannot take all of them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::grpc::call::Peer;

/// The bits of an IPv6 address that name a network. A client has all addresses of its network.
const NETWORK: u128 = !0 << 64;

/// Who counts as one client.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Client {
    Address(IpAddr),
    User(u32),
}

/// The open connections by client.
#[derive(Debug)]
pub struct Addresses {
    limit: usize,
    open: Mutex<HashMap<Client, usize>>,
}

impl Addresses {
    /// Each client may have up to `limit` connections.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// Counts a connection until the guard is dropped. `None` if its client has as many as it may have.
    pub fn enter(self: &Arc<Self>, peer: Peer) -> Option<Counted> {
        let client = match peer {
            Peer::Address(address) => Client::Address(client(address.ip())),
            Peer::User { uid, .. } => Client::User(uid),
        };
        let mut open = self.open();
        let count = open.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Counted { addresses: self.clone(), client })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts for its client.
#[derive(Debug)]
pub struct Counted {
    addresses: Arc<Addresses>,
    client: Client,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// The part of an address that one client has.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_up_to_its_limit_and_a_network_counts_as_one() {
        let addresses = Addresses::new(2);
        let enter =
            |address: &str| addresses.enter(Peer::Address((address.parse::<IpAddr>().unwrap(), 1).into()));
        let first = enter("10.0.0.1").unwrap();
        let second = enter("::ffff:10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_none());
        let other = enter("10.0.0.2").unwrap();
        drop(first);
        let third = enter("10.0.0.1").unwrap();
        let network = (enter("2001:db8::1").unwrap(), enter("2001:db8::ffff:1").unwrap());
        assert!(enter("2001:db8::2").is_none());
        let next = enter("2001:db8:0:1::1").unwrap();
        let user = |uid| addresses.enter(Peer::User { uid, gid: 1, process: None });
        let users = (user(1).unwrap(), user(1).unwrap(), user(2).unwrap());
        assert!(user(1).is_none());
        drop((second, other, third, network, next, users));
        assert!(addresses.open().is_empty());
    }
}
