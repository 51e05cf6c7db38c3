//! Connections: how many there may be, in all and from one address, and what happens when the machine has no more.

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

/// The pause when the machine or the process has no more files: connections that end make room.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be.
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

/// Places of connections or of what comes before them, by address.
#[derive(Debug)]
pub(crate) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// How many connections there are and were.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) open: usize,
    /// Of the address with the most.
    pub(crate) of_one_address: usize,
    /// Since the start.
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) bounds: Bounds,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only addresses with connections.
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place among those that there may be. Dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// What counts as one address: of IPv6, the network that one machine usually has.
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

    /// A place for an address; `None` when there is none left.
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
    /// Whose place it is: an address, or the network that counts as one.
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

    /// The connections that there are.
    pub(crate) fn places(&self) -> Arc<Places> {
        self.places.clone()
    }

    /// The next connection that has a place. Those that have none are closed at once.
    pub(crate) async fn accept(&self) -> (TcpStream, Place) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.places.take(peer.ip()) {
                    Some(place) => {
                        // Without it, small answers wait for the peer's acknowledgement of earlier ones.
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
                // The peer has gone again.
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            }
        }
    }
}

/// Whether accepting fails for want of something that the next try would want too.
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
