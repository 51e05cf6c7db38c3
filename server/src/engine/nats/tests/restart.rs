//! A NATS server loses the data in its memory when it restarts.

use tokio::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Retries, as callers of the engine do.
async fn at_last<T>(mut call: impl AsyncFnMut() -> Result<T, Refusal>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(refusal) => assert!(Instant::now() < end, "{refusal:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_signals_and_keys_of_ephemeral_events_work_again_without_a_restart_of_fanfare() {
    let Some(mut servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("1");
    let typing = || vec![typed(&t, "messenger.v1.TypingStart", "k", &[])];
    let before = revision(a.replace(&Space::Leases, "a", value("1", 0)).await.unwrap());
    a.append(&t, typing()).await.unwrap();
    servers.kill(0);
    servers.launch(0);
    let after = at_last(async || a.replace(&Space::Leases, "a", value("2", 0)).await).await;
    assert!(revision(after) > before, "no revision is given twice");
    let (leases, _) = at_last(async || b.records(&Space::Leases).await).await;
    assert_eq!(leases.len(), 1);
    let mut signals = at_last(async || b.signals().await).await;
    at_last(async || a.signal(None, Bytes::from_static(b"x")).await).await;
    let signal = tokio::time::timeout(PATIENCE, signals.next()).await;
    assert_eq!(signal.unwrap().unwrap(), [Bytes::from_static(b"x")]);
    at_last(async || a.append(&t, typing()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_of_leases_is_made_again() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let leases = a.shared.store.names.leases_stream();
    a.replace(&Space::Leases, "a", value("1", 0)).await.unwrap();
    a.shared.store.context.delete_stream(&leases).await.unwrap();
    let (snapshot, _) = at_last(async || b.records(&Space::Leases).await).await;
    assert_eq!(snapshot, []);
    a.shared.store.context.delete_stream(&leases).await.unwrap();
    at_last(async || b.signals().await).await;
    a.shared.store.context.delete_stream(&leases).await.unwrap();
    assert_eq!(at_last(async || a.record(&Space::Leases, "a").await).await, None);
}
