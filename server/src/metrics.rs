//! The server's metrics. Nothing is counted only for them: other modules count these values anyway.

use std::sync::Arc;

use fanfare_telemetry::{Bound, Page, Source};
use futures_util::future::BoxFuture;

use crate::{
    accept::Places,
    config::{Limits, Retention},
    grpc::{Budget, Services, WATCHES_MAX},
    hub::TAP_READERS_MAX,
};

/// The source of the server's metrics.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    pub(crate) services: Arc<Services>,
    pub(crate) places: Arc<Places>,
    pub(crate) budget: Budget,
    pub(crate) limits: Limits,
    pub(crate) retention: Retention,
}

impl Source for ServerMetrics {
    fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let stats = self.services.stats().await;
            self.fill_events(page);
            self.fill_refusals(page);
            page.gauge(
                "fanfare_server_tenants",
                "Tenants with a log, a session or a subscription",
                stats.tenants,
            );
            page.gauge("fanfare_server_users", "Users with a session on any server", stats.users);
            page.gauge("fanfare_server_sessions", "Sessions on the bridges of this server", stats.sessions);
            self.fill_state(page);
            let tenants = usize::try_from(stats.tenants).unwrap_or(usize::MAX);
            let bounds = self.bounds(tenants);
            page.bounds("fanfare_server_limit", "fanfare_server_limit_usage", &bounds);
        })
    }
}

impl ServerMetrics {
    fn fill_events(&self, page: &mut Page) {
        let (stats, counts) = (&self.services.stats, self.services.stats.counts());
        let outcomes =
            [("stored", counts.stored), ("ephemeral", counts.ephemeral), ("duplicate", counts.duplicate)];
        page.counters("fanfare_server_events_total", "Events that were published", "outcome", outcomes);
        page.counter(
            "fanfare_server_events_refused_total",
            "Requests to publish that were refused",
            counts.refused,
        );
        page.counters(
            "fanfare_server_tenant_events_total",
            "Events that were published, by tenant",
            "tenant",
            stats.tenants.counts(),
        );
        page.times(
            "fanfare_server_append_seconds",
            "Time from a checked event until the engine has it",
            &stats.append.snapshot(),
        );
        page.times(
            "fanfare_server_hub_lag_seconds",
            "Time from the acceptance of an event by any server until it can be delivered here",
            &self.services.hub.lag.snapshot(),
        );
        page.counter("fanfare_server_calls_total", "Calls of browsers", counts.calls);
        page.times("fanfare_server_call_seconds", "Time that calls took", &stats.call.snapshot());
        page.counter(
            "fanfare_server_subscription_events_total",
            "Events that were sent to Subscribe streams",
            counts.subscription_events,
        );
    }

    fn fill_refusals(&self, page: &mut Page) {
        let (stats, usage) = (&self.services.stats, self.places.usage());
        page.counters(
            "fanfare_server_refusals_total",
            "Requests that were refused, and streams that ended with an error",
            "reason",
            stats.reasons.counts(),
        );
        let of_connections =
            |(limit, count)| (limit, if limit == "grpc-connections-max" { usage.refused } else { count });
        page.counters(
            "fanfare_server_limit_refusals_total",
            "Refusals because a limit was exceeded",
            "limit",
            stats.limits.counts().map(of_connections),
        );
        page.counter("fanfare_server_connections_total", "Connections that were accepted", usage.accepted);
        page.gauge("fanfare_server_connections", "Open connections", usage.open as u64);
    }

    fn fill_state(&self, page: &mut Page) {
        let (services, presence) = (&self.services, self.services.presence.usage());
        page.gauge(
            "fanfare_server_subscriptions",
            "Open Subscribe streams",
            services.stats.counts().subscriptions,
        );
        page.gauge("fanfare_server_bridges", "Bridges that are linked", services.bridges.len() as u64);
        let (windows, bytes) = services.hub.usage();
        page.gauge("fanfare_server_windows", "Tenants whose recent events are in memory", windows as u64);
        page.gauge("fanfare_server_window_bytes", "Bytes of these events", bytes as u64);
        if let Some(bytes) = services.engine.usage().log_bytes {
            page.gauge("fanfare_server_log_bytes", "Bytes of all logs", bytes as u64);
        }
        page.gauge(
            "fanfare_server_appends_waiting",
            "Appends that the engine has not answered yet",
            services.ingest.appends_under_way() as u64,
        );
        page.gauge(
            "fanfare_server_presence_unpublished",
            "Users whose presence events are not published yet",
            presence.unpublished as u64,
        );
        page.gauge(
            "fanfare_server_store_failing",
            "1 while the store refuses changes of sessions, else 0",
            presence.is_failing.into(),
        );
        page.gauge(
            "fanfare_server_draining",
            "1 once the server shuts down, else 0",
            services.closing.is_cancelled().into(),
        );
    }

    fn bounds(&self, tenants: usize) -> Vec<Bound> {
        let (limits, services) = (&self.limits, &self.services);
        let (connections, presence) = (self.places.usage(), services.presence.usage());
        let [of_user, of_service] = services.subscribers.fullest();
        let (unfinished, config) = (self.budget.usage(), services.presence.config());
        let watches = WATCHES_MAX - services.watches.available_permits();
        let rate = |rate: fanfare_proto::rate::Rate| rate.per_second as usize;
        let engine = services.engine.usage();
        let mut bounds = vec![
            Bound::new("grpc-connections-max", connections.open, connections.bounds.connections_max),
            Bound::new(
                "grpc-connections-per-address-max",
                connections.of_one_address,
                connections.bounds.per_address_max,
            ),
            Bound::new("tenants-max", tenants, limits.tenants_max),
            Bound::new("window-bytes-total", services.hub.usage().1, limits.window_total_bytes_max),
            Bound::new("subscriptions-per-user-max", of_user.0, limits.subscriptions_per_user_max),
            Bound::new("subscriptions-per-service-max", of_service.0, limits.subscriptions_per_service_max),
            Bound::new("rooms-per-user-max", of_user.1.max(of_service.1), limits.rooms_per_user_max),
            Bound::new("recoverable-max", presence.recoverable, config.recoverable_max),
            Bound::new(
                "recoverable-per-tenant-max",
                presence.recoverable_of_tenant,
                config.recoverable_per_tenant_max,
            ),
            Bound::new("presence-backlog", presence.backlog.0, presence.backlog.1),
            Bound::new("tail-readers", services.hub.taps.len(), TAP_READERS_MAX),
            Bound::new("health-watches", watches, WATCHES_MAX),
            Bound::new("unfinished-bytes", unfinished.0, unfinished.1),
            Bound::unused("event-bytes-max", limits.event_bytes_max),
            Bound::unused("state-entries-max", limits.state_entries_max),
            Bound::unused("state-bytes-max", limits.state_bytes_max),
            Bound::unused("sessions-per-user-max", config.sessions_per_user_max),
            Bound::unused("calls-per-user", rate(limits.calls_per_user)),
            Bound::unused("publish-bytes-per-user", rate(limits.publish_bytes_per_user)),
            Bound::unused("publish-bytes-per-tenant", rate(limits.publish_bytes_per_tenant)),
        ];
        if let Some(bytes) = engine.log_bytes {
            bounds.push(Bound::new("retention-bytes-total", bytes, self.retention.total_bytes_max));
        }
        if let Some((waiting, max)) = engine.waiting {
            bounds.push(Bound::new("append-queue", waiting, max));
        }
        bounds
    }
}
