//! Accepts connections: limits in total and per address, and what happens when the machine has no
//! resources for more.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};

use crate::access;

/// The pause when the process or the machine has no free file descriptors. Connections that end
/// free some.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Limits on connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections_max: usize,
    pub(crate) per_address_max: usize,
}

/// Accepts connections within bounds.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    places: Arc<Places>,
}

/// The places for connections or handshakes, counted by address.
#[derive(Debug)]
pub(crate) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// Numbers of connections, now and since the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) open: usize,
    /// Connections of the address that has the most.
    pub(crate) of_one_address: usize,
    /// Since the start.
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) bounds: Bounds,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Contains only addresses with connections.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place within the limits. Dropping it releases the place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// The unit that counts as one address: for IPv6, the network that one machine usually has.
const fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        },
    }
}

impl Places {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let (taken, accepted, refused) = Default::default();
        Arc::new(Self { bounds, taken, accepted, refused })
    }

    pub(crate) fn usage(&self) -> Usage {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        Usage {
            open: taken.all,
            of_one_address: taken.by_address.values().copied().max().unwrap_or_default(),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            bounds: self.bounds,
        }
    }

    /// Takes a place for an address; `None` if a limit is reached.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.bounds.connections_max || of_address >= self.bounds.per_address_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        Some(Place { places: self.clone(), address })
    }
}

impl Place {
    /// The address, or the network, that the place counts for.
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_address) = taken.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, bounds: Bounds) -> Self {
        Self { listener, places: Places::new(bounds) }
    }

    /// The places for connections.
    pub(crate) fn places(&self) -> Arc<Places> {
        self.places.clone()
    }

    /// Accepts the next connection within the limits. Connections beyond them are closed
    /// immediately.
    pub(crate) async fn accept(&self) -> (TcpStream, Place) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.places.take(peer.ip()) {
                    Some(place) => {
                        // Without this option, small answers wait until the peer has acknowledged
                        // earlier ones.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "cannot set TCP_NODELAY");
                        }
                        return (stream, place);
                    }
                    None => access::connection_refused(peer.ip()),
                },
                Err(error) if is_exhausted(&error) => {
                    tracing::warn!(%error, "no connection can be accepted at the moment");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The peer has already closed the connection.
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            }
        }
    }
}

/// Whether accepting failed because of an exhausted resource, so that an immediate retry fails too.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_come_back() {
        let bounds = Bounds { connections_max: 3, per_address_max: 2 };
        let places = Places::new(bounds);
        let take = |address: &str| places.take(address.parse().unwrap());
        let one = take("2001:db8::1");
        let _two = take("2001:db8::2").unwrap();
        assert!(one.is_some() && take("2001:db8::3").is_none(), "one network is one address");
        let _three = take("127.0.0.1").unwrap();
        assert!(take("127.0.0.2").is_none(), "no more in all");
        drop(one);
        let four = take("::ffff:127.0.0.1");
        assert!(four.is_some() && take("127.0.0.1").is_none());
        drop((_two, _three, four));
        assert!(places.taken.lock().unwrap().by_address.is_empty());
    }
}
