//! Limits of clients: rates per session, user and address, and the number of places per address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::{
    rate::{KeyedLimiter, Limiter},
    room::Tenant,
    v1::Reason,
};

use crate::{config::Config, refusal::Refusal};

/// A client that stays within its limits for this long after a refusal starts afresh.
const REFUSALS_APART: Duration = Duration::from_secs(2);
/// How long reads from a refused client pause, after the first refusals.
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);
/// Number of refusals without a pause.
const REFUSALS_FREE: u32 = 200;
/// Leading bits of an IPv6 address that belong to one client (RFC 6177).
const IPV6_CLIENT_BITS: u32 = 64;

/// The limits of all sessions of a user together, on this bridge.
#[derive(Debug)]
pub(crate) struct UserLimits {
    calls: KeyedLimiter<(Tenant, String)>,
    connects: KeyedLimiter<(Tenant, String)>,
}

impl UserLimits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            calls: KeyedLimiter::new(config.calls_per_user),
            connects: KeyedLimiter::new(config.connects_per_user),
        }
    }

    /// Counts a call.
    pub(crate) fn count_call(&self, tenant: &Tenant, user_id: &str) -> Result<(), Refusal> {
        let key = (tenant.clone(), user_id.to_owned());
        let refuse = |wait| Refusal::too_many_calls(wait).over("user-calls-per-second");
        self.calls.check(&key).map_err(refuse)
    }

    /// Counts a new session.
    pub(crate) fn count_connect(&self, tenant: &Tenant, user_id: &str) -> Result<(), Refusal> {
        let key = (tenant.clone(), user_id.to_owned());
        let message = "the user connects too often; wait";
        let refuse = |wait| Refusal::too_fast(wait, message.into()).over("user-connects-per-second");
        self.connects.check(&key).map_err(refuse)
    }

    /// Evicts users that have been idle for a while.
    pub(crate) fn forget(&self) {
        self.calls.forget();
        self.connects.forget();
    }
}

/// The limits of one session.
#[derive(Debug)]
pub(crate) struct SessionLimits {
    calls: Limiter,
    refusals: Mutex<Refusals>,
    abuse_after: Duration,
}

#[derive(Debug, Default)]
struct Refusals {
    /// The first and the latest refusal of a series with less than [`REFUSALS_APART`] between
    /// refusals.
    span: Option<(Instant, Instant)>,
    count: u32,
}

/// The consequence of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The client is notified.
    Tell,
    /// The client is notified, and reads from it pause.
    Pause(Duration),
    /// The client exceeded the limit for too long.
    End,
}

impl SessionLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let calls = Limiter::new(config.calls_per_session);
        Self { calls, refusals: Mutex::default(), abuse_after: config.abuse_after }
    }

    /// Counts a call.
    pub(crate) fn count_call(&self) -> Result<(), Refusal> {
        let refuse = |wait| Refusal::too_many_calls(wait).over("calls-per-second");
        self.calls.check().map_err(refuse)
    }

    /// Counts a refusal.
    pub(crate) fn count_refusal(&self) -> Consequence {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now(), self.abuse_after)
    }
}

impl Refusals {
    fn count(&mut self, now: Instant, abuse_after: Duration) -> Consequence {
        let known = self.span.filter(|(_, last)| now.duration_since(*last) < REFUSALS_APART);
        let first = known.map_or(now, |(first, _)| first);
        self.count = if known.is_some() { self.count.saturating_add(1) } else { 1 };
        self.span = Some((first, now));
        if now.duration_since(first) >= abuse_after {
            Consequence::End
        } else if self.count > REFUSALS_FREE {
            Consequence::Pause(REFUSAL_PAUSE)
        } else {
            Consequence::Tell
        }
    }
}

/// What a place counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A TCP connection.
    Connection,
    /// A handshake that has not become a session.
    Handshake,
    /// A session.
    Session,
}

const KINDS: usize = 3;

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Handshake => "handshakes",
            Self::Session => "sessions",
        }
    }

    /// The setting that bounds the total; sessions are bounded by their connections.
    const fn limit(self) -> &'static str {
        match self {
            Self::Connection | Self::Session => "connections-max",
            Self::Handshake => "handshakes-max",
        }
    }

    /// The setting that bounds the number per address.
    const fn limit_per_address(self) -> &'static str {
        match self {
            Self::Connection => "connections-per-address-max",
            Self::Handshake => "handshakes-per-address-max",
            Self::Session => "sessions-per-address-max",
        }
    }
}

/// Places per address and in total.
#[derive(Debug)]
pub(crate) struct Addresses {
    used: Mutex<HashMap<IpAddr, [u32; KINDS]>>,
    totals: [AtomicUsize; KINDS],
    max: [usize; KINDS],
    max_per_address: [usize; KINDS],
    connects: KeyedLimiter<IpAddr>,
}

/// A place, released on drop.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    /// `None`: counts towards the total only.
    address: Option<IpAddr>,
    kind: Kind,
}

/// The address that is counted: a client owns a whole IPv6 network.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) >> (128 - IPV6_CLIENT_BITS) << (128 - IPV6_CLIENT_BITS);
            Ipv6Addr::from(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Addresses {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            used: Mutex::default(),
            totals: Default::default(),
            max: [config.connections_max, config.handshakes_max, usize::MAX],
            max_per_address: [
                config.connections_per_address_max,
                config.handshakes_per_address_max,
                config.sessions_per_address_max,
            ],
            connects: KeyedLimiter::new(config.connects_per_address),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, [u32; KINDS]>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many places of each kind are taken, in total and by the address with the most.
    pub(crate) fn usage(&self) -> [(Kind, usize, usize); KINDS] {
        let used = self.lock();
        [Kind::Connection, Kind::Handshake, Kind::Session].map(|kind| {
            let fullest = used.values().map(|of_address| of_address[kind as usize]).max();
            let total = self.totals[kind as usize].load(Ordering::Acquire);
            (kind, total, fullest.unwrap_or_default() as usize)
        })
    }

    /// Takes a place for a client, or for a proxy, which counts towards the total only.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>, kind: Kind) -> Result<Place, Refusal> {
        let index = kind as usize;
        let total = self.totals[index].fetch_add(1, Ordering::AcqRel);
        // Released on drop if it is refused below.
        let mut place = Place { addresses: self.clone(), address: None, kind };
        if total >= self.max[index] {
            let (max, name) = (self.max[index], kind.name());
            return Err(
                full(format!("the bridge has {max} {name}, as many as it may; try again")).over(kind.limit())
            );
        }
        let Some(address) = address.map(client) else { return Ok(place) };
        let mut used = self.lock();
        let of_address = used.entry(address).or_default();
        let max = self.max_per_address[index];
        if of_address[index] as usize >= max {
            let name = kind.name();
            drop(used);
            let message = format!("your address has {max} {name}, as many as it may; try again");
            return Err(full(message).over(kind.limit_per_address()));
        }
        of_address[index] += 1;
        drop(used);
        place.address = Some(address);
        Ok(place)
    }

    /// Counts a new connection or handshake of an address.
    pub(crate) fn count_connect(&self, address: IpAddr) -> Result<(), Refusal> {
        let message = "your address connects too often; wait";
        let refuse = |wait| Refusal::too_fast(wait, message.into()).over("connects-per-second");
        self.connects.check(&client(address)).map_err(refuse)
    }

    /// Evicts addresses that have been idle for a while.
    pub(crate) fn forget(&self) {
        self.connects.forget();
    }
}

fn full(message: String) -> Refusal {
    Refusal { retry_after: Some(Duration::from_secs(1)), ..Refusal::new(Reason::Limit, message) }
}

impl Drop for Place {
    fn drop(&mut self) {
        let index = self.kind as usize;
        self.addresses.totals[index].fetch_sub(1, Ordering::AcqRel);
        let Some(address) = self.address else { return };
        let mut used = self.addresses.lock();
        if let Some(of_address) = used.get_mut(&address) {
            of_address[index] = of_address[index].saturating_sub(1);
            if *of_address == [0; KINDS] {
                used.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_proto::token::TokenConfig;

    use super::*;

    fn addresses(per_address: usize) -> Arc<Addresses> {
        let listen = ([127, 0, 0, 1], 0).into();
        let mut config = Config::new(listen, Vec::new(), String::new(), TokenConfig::default());
        config.handshakes_per_address_max = per_address;
        config.handshakes_max = 3;
        Addresses::new(&config)
    }

    #[test]
    fn places_are_limited_per_address_and_in_all_and_come_back() {
        let addresses = addresses(2);
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let take = |text| addresses.take(address(text), Kind::Handshake);
        let first = take("2001:db8::1").unwrap();
        let _second = take("2001:db8::2").unwrap();
        assert!(take("2001:db8::3").is_err(), "one network is one client");
        let _third = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.2").is_err(), "no place in all");
        drop(first);
        assert!(take("2001:db8::3").is_ok());
        assert_eq!(addresses.lock().len(), 2);
    }

    #[test]
    fn a_burst_is_no_abuse_and_staying_over_the_limit_is() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let abuse_after = Duration::from_secs(10);
        for _ in 0..REFUSALS_FREE {
            assert_eq!(refusals.count(start, abuse_after), Consequence::Tell);
        }
        assert_eq!(refusals.count(start, abuse_after), Consequence::Pause(REFUSAL_PAUSE));
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(refusals.count(later(3), abuse_after), Consequence::Tell, "it stopped between");
        for second in 4..13 {
            assert_eq!(refusals.count(later(second), abuse_after), Consequence::Tell);
        }
        assert_eq!(refusals.count(later(13), abuse_after), Consequence::End);
    }
}
