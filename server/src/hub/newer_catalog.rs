//! Tests with events that a server with a newer catalog has published.

use std::{fs, sync::Arc};

use fanfare_proto::{
    catalog::Catalogs,
    room::{Room, Tenant},
};

use super::{Hub, Inbox, Subscription};
use crate::{
    config::{Limits, Retention},
    engine::{Engine, disk::DiskEngine},
    error::Refusal,
    event::{Draft, builtin_catalogs, draft, newer_catalogs},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_an_unknown_type_ends_only_the_reading_of_its_tenant() {
    let folder = std::env::temp_dir().join(format!("fanfare-newer-{}", std::process::id()));
    let _fresh = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let (file, data) = (folder.join("newer.proto"), folder.join("data"));
    let newer = newer_catalogs(file);
    let limits = Limits::default();
    let opened = |catalogs: Arc<Catalogs>| -> Arc<dyn Engine> {
        Arc::new(DiskEngine::open(&data, catalogs, Retention::default(), limits).unwrap())
    };
    let [one, two] = ["1", "2"].map(|tenant| Tenant::new(tenant).unwrap());
    let engine = opened(newer.clone());
    let start = engine.head(&one).await.unwrap();
    let thing = Draft { kind: newer.event("newer.v1.Thing").unwrap().clone(), ..draft("1", "", 0) };
    engine.append(&one, vec![draft("1", "", 8), thing]).await.unwrap();
    engine.append(&two, vec![draft("2", "", 8)]).await.unwrap();
    engine.close().await;
    drop(engine);

    let engine = opened(builtin_catalogs().clone());
    let hub = Arc::new(Hub::new(limits, engine.clone()));
    let inbox = Arc::new(Inbox::default());
    let org = || vec![Room::org()];
    let mut first = Subscription::open(&hub, &one, org(), Some(start), &inbox, 1).await.unwrap();
    let mut second = Subscription::open(&hub, &two, org(), Some(start), &inbox, 2).await.unwrap();
    assert_eq!(first.next().await.unwrap().events.len(), 1, "what comes before it is read");
    let ended = first.next().await;
    let is_told = matches!(&ended, Err(Refusal::NewerCatalog(name)) if name == "newer.v1.Thing");
    assert!(is_told, "{ended:?}");
    assert_eq!(second.next().await.unwrap().events.len(), 1, "the other tenant goes on");
    // A subscription to another room reads past the event.
    let room = vec![Room::new("chat:7").unwrap()];
    let mut quiet = Subscription::open(&hub, &one, room, Some(start), &inbox, 3).await.unwrap();
    assert!(quiet.next().await.unwrap().events.is_empty());
    assert_eq!(quiet.cursor().seq, 2);
    engine.close().await;
}
