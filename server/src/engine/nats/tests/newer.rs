//! Events that a server with a newer catalog has appended.

use super::*;
use crate::event::newer_catalogs;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_an_unknown_type_ends_the_read_and_the_feed() {
    let Some(servers) = Servers::start(1) else { return };
    let file = servers.store(0).with_extension("proto");
    let newer = newer_catalogs(file);
    let kind = newer.event("newer.v1.Thing").unwrap().clone();
    let (config, limits) = (settings(&servers, 1), Limits::default());
    let a = NatsEngine::connect(config.clone(), "a".into(), newer, Retention::default(), limits).await;
    let (a, b, t) = (a.unwrap(), open(&config, "b").await.unwrap(), tenant("1"));
    let (start, mut feed) = b.follow(&t).await.unwrap();
    let thing = Draft { kind, ..draft(&t, "") };
    let answers = a.append(&t, vec![draft(&t, ""), thing, draft(&t, "")]).await.unwrap();
    assert_eq!(ids(&take(&mut feed, 1).await), [event(&answers[0]).id.clone()]);
    let end = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
    assert!(end.expect("the feed goes on").is_none());
    let page = b.read(&t, &everything(), start, LIMITS).await.unwrap();
    assert_eq!((page.events.len(), page.cursor.seq, page.more), (1, 1, true), "what comes before it is read");
    let refused = b.read(&t, &everything(), page.cursor, LIMITS).await;
    assert!(matches!(&refused, Err(Refusal::NewerCatalog(name)) if name == "newer.v1.Thing"), "{refused:?}");
    // A reader of other rooms can read past the event.
    let page = b.read(&t, &Interest::default(), start, LIMITS).await.unwrap();
    assert_eq!((page.cursor.seq, page.more), (3, false));
    assert_eq!(read_all(&a, &t, start).await.len(), 3, "the other server has it");
}
