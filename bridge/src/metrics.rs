//! The bridge's values for the metrics page. Everything shown is already counted by other modules.

use std::{cmp::Reverse, sync::Arc};

use fanfare_proto::{rate::Rate, v1::Transport};
use fanfare_telemetry::{Bound, Page, Source, TenantTally};
use futures_util::future::BoxFuture;

use crate::{limits::Kind, listener::Listener, sessions::Sessions, stats::Census};

/// The bridge's values.
#[derive(Debug)]
pub(crate) struct BridgeMetrics {
    pub(crate) sessions: Arc<Sessions>,
    /// `None` if the listener itself reads the values.
    pub(crate) listener: Option<Arc<Listener>>,
}

/// A transport's name in metrics and logs.
pub(crate) fn transport_name(number: i32) -> String {
    let transport = Transport::try_from(number).unwrap_or_default();
    transport.as_str_name().trim_start_matches("TRANSPORT_").to_ascii_lowercase()
}

impl Source for BridgeMetrics {
    fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let census = self.sessions.census().await;
            self.sessions.stats.fill(page);
            self.fill_state(page, &census);
            page.bounds("fanfare_bridge_limit", "fanfare_bridge_limit_usage", &self.bounds(&census));
        })
    }
}

impl BridgeMetrics {
    fn fill_state(&self, page: &mut Page, census: &Census) {
        let count = |transport: Transport| {
            let of_it = census.sessions.iter().find(|one| one.transport == i32::from(transport));
            (transport_name(transport.into()), of_it.map_or(0, |one| one.count))
        };
        let transports = [Transport::Socketio, Transport::Websocket, Transport::Sse, Transport::Poll];
        page.gauges("fanfare_bridge_sessions", "Open sessions", "transport", transports.map(count));
        let tally = TenantTally::new(self.sessions.config.metrics_tenants);
        let mut largest: Vec<_> = census.tenants.iter().collect();
        largest.sort_by_key(|(tenant, count)| (Reverse(**count), (*tenant).clone()));
        for (tenant, count) in largest {
            tally.add(tenant, usize::try_from(*count).unwrap_or(usize::MAX));
        }
        page.gauges(
            "fanfare_bridge_tenant_sessions",
            "Open sessions of the tenants with the most, by tenant",
            "tenant",
            tally.counts(),
        );
        for (kind, total, _) in self.sessions.addresses.usage() {
            match kind {
                Kind::Connection => {
                    page.gauge("fanfare_bridge_connections", "Open connections", total as u64);
                }
                Kind::Handshake => page.gauge(
                    "fanfare_bridge_handshakes",
                    "Connections that are no session yet",
                    total as u64,
                ),
                Kind::Session => {}
            }
        }
        page.gauge("fanfare_bridge_queued_bytes", "Bytes that wait for sessions", census.queued_bytes);
        page.gauge("fanfare_bridge_sessions_waiting", "Sessions for which bytes wait", census.waiting);
        let link = self.sessions.link.usage();
        page.gauge("fanfare_bridge_rooms", "Rooms that the bridge follows", link.rooms.0 as u64);
        page.gauge(
            "fanfare_bridge_link_up",
            "1 while a server is linked, else 0",
            self.sessions.link.is_up().into(),
        );
        page.counter("fanfare_bridge_links_total", "Links to servers that were made", link.links);
        page.gauge(
            "fanfare_bridge_draining",
            "1 once the bridge shuts down, else 0",
            self.sessions.draining.is_cancelled().into(),
        );
    }

    fn bounds(&self, census: &Census) -> Vec<Bound> {
        let (sessions, config) = (&self.sessions, &self.sessions.config);
        let link = sessions.link.usage();
        let jobs = sessions.rooms.shards.iter().map(|shard| shard.usage()).max().unwrap_or_default();
        let [connections, handshakes, of_sessions] = sessions.addresses.usage();
        let fullest = usize::try_from(census.fullest_bytes).unwrap_or(usize::MAX);
        let rate = |rate: Rate| rate.per_second as usize;
        let mut bounds = vec![
            Bound::new("connections-max", connections.1, config.connections_max),
            Bound::new("connections-per-address-max", connections.2, config.connections_per_address_max),
            Bound::new("handshakes-max", handshakes.1, config.handshakes_max),
            Bound::new("handshakes-per-address-max", handshakes.2, config.handshakes_per_address_max),
            Bound::new("sessions-per-address-max", of_sessions.2, config.sessions_per_address_max),
            Bound::new("queue-bytes-max", fullest, config.queue_bytes_max),
            Bound::new("rooms", link.rooms.0, link.rooms.1),
            Bound::new("rooms-per-tenant-max", link.rooms_of_tenant, config.rooms_per_tenant_max),
            Bound::new("call-bytes", link.call_bytes.0, link.call_bytes.1),
            Bound::new("session-changes", link.changes.0, link.changes.1),
            Bound::new("fan-out-jobs", jobs.0, jobs.1),
            Bound::unused("rooms-per-session-max", config.rooms_per_session_max),
            Bound::unused("payload-bytes-max", config.payload_bytes_max),
            Bound::unused("calls-waiting", config.calls_waiting_max),
            Bound::unused("calls-per-second", rate(config.calls_per_session)),
            Bound::unused("user-calls-per-second", rate(config.calls_per_user)),
            Bound::unused("user-connects-per-second", rate(config.connects_per_user)),
            Bound::unused("connects-per-second", rate(config.connects_per_address)),
        ];
        if let Some(listener) = &self.listener {
            let (used, max) = listener.reserve_usage();
            bounds.push(Bound::new("reserve-connections", used, max));
        }
        bounds
    }
}
