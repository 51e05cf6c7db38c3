//! The user documented in docs/scaling.md: it may do what the engine does, and nothing else.

use std::time::Instant;

use super::{servers::Servers, *};

/// The documented authorization, as a part of a server's settings.
fn authorization() -> &'static str {
    let docs = include_str!("../../../../../docs/scaling.md");
    let begin = docs.find("authorization {").unwrap();
    let block = &docs[begin..];
    &block[..block.find("```").unwrap()]
}

/// A server that has only the documented user. When dropped, it checks that it refused that user
/// nothing.
pub(super) struct Least(Servers);

impl Least {
    pub(super) fn start() -> Option<Self> {
        Some(Self(Servers::start_configured(1, "sync_interval: 2m", authorization())?))
    }

    pub(super) fn settings(&self) -> NatsConfig {
        let config = settings(&self.0, 1);
        let servers =
            config.servers.iter().map(|url| url.replacen("nats://", "nats://fanfare:PASSWORD@", 1)).collect();
        NatsConfig { servers, ..config }
    }
}

impl Drop for Least {
    fn drop(&mut self) {
        let log = self.0.log(0);
        let refused: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
        if std::thread::panicking() {
            eprintln!("refused to the documented user: {refused:#?}");
        } else {
            assert!(refused.is_empty(), "the documented user may not: {refused:#?}");
        }
    }
}

#[tokio::test]
async fn the_documented_user_reaches_no_other_subject() {
    let Some(servers) = Servers::start_configured(1, "sync_interval: 2m", authorization()) else { return };
    let least = Least(servers);
    let options = async_nats::ConnectOptions::with_user_and_password("fanfare".into(), "PASSWORD".into());
    let client = options.connect(least.settings().addresses()).await.unwrap();
    for subject in ["other", "$JS.API.STREAM.DELETE.FF_LOG_0", "$JS.API.STREAM.LIST", "$SYS.REQ.SERVER.PING"]
    {
        client.publish(subject, Bytes::new()).await.unwrap();
    }
    for subject in ["other", "ff.l.>", ">"] {
        client.subscribe(subject).await.unwrap();
    }
    client.flush().await.unwrap();
    // The server writes its log a moment later.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let log = least.0.log(0);
        let refused = |kind: &str| log.lines().filter(|line| line.contains(kind)).count();
        if (refused("Publish Violation"), refused("Subscription Violation")) == (4, 3) {
            break;
        }
        assert!(Instant::now() < end, "{log}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    least.0.forget_log(0);
}
