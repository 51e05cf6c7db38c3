use std::time::Duration;

use fanfare_proto::room::Room;
use futures_util::FutureExt as _;

use super::*;
use crate::{
    config::{Limits, Retention},
    engine::memory::MemoryEngine,
    event::{Draft, draft},
};

const LIMITS: PageLimits = PageLimits { events_max: 7, bytes_max: 1 << 20, scan_max: 10_000 };

struct World {
    engine: Arc<dyn Engine>,
    history: History,
    tenant: Tenant,
}

impl World {
    fn new(retention: usize) -> Self {
        let retention = Retention { events_max: retention, ..Retention::default() };
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(retention, Limits::default()));
        Self { history: History::new(engine.clone()), engine, tenant: Tenant::new("1").unwrap() }
    }

    /// Appends events. Every third one is for `chat:7`.
    async fn append(&self, count: usize) {
        for number in 0..count {
            let mut one = draft("1", "", 10);
            one.rooms = vec![if number % 3 == 0 { chat() } else { Room::org() }];
            self.engine.append(&self.tenant, vec![one]).await.unwrap();
        }
    }

    async fn page(&self, before: Option<Cursor>, limits: PageLimits) -> (Vec<u64>, Option<Cursor>) {
        let (interest, reader) = (Interest::of(chat()), ("1".to_owned(), "42".to_owned()));
        let page = self.history.page(reader, &self.tenant, &interest, before, limits, |_| true);
        let (page, next) = page.await.unwrap();
        (page.events.iter().map(|event| event.seq).collect(), next)
    }

    /// Reads all pages in order.
    async fn all(&self, limits: PageLimits) -> Vec<Vec<u64>> {
        let (mut pages, mut before) = (Vec::new(), None);
        loop {
            let (seqs, next) = self.page(before, limits).await;
            pages.push(seqs);
            before = next;
            if before.is_none() {
                return pages;
            }
        }
    }
}

fn chat() -> Room {
    Room::new("chat:7").unwrap()
}

#[tokio::test]
async fn pages_hold_each_event_of_the_room_once_and_the_newest_first() {
    let world = World::new(10_000);
    world.append(3000).await;
    let wanted: Vec<u64> = (0..1000).rev().map(|number| number * 3 + 1).collect();
    let pages = world.all(LIMITS).await;
    assert_eq!(pages.concat(), wanted);
    assert!(pages[..pages.len() - 2].iter().all(|page| page.len() == 7));
    // With few events searched per page, some pages are short, but no event is missing.
    assert_eq!(world.all(PageLimits { scan_max: 10, ..LIMITS }).await.concat(), wanted);
    let one = draft("1", "", 10);
    let of_two = Event::ephemeral(Draft { rooms: vec![chat()], ..one }).cost_bytes() * 2;
    let pages = world.all(PageLimits { bytes_max: of_two, ..LIMITS }).await;
    assert_eq!(pages.concat(), wanted);
    assert!(pages.iter().all(|page| page.len() <= 2));
    // An event that is larger than a page is returned alone.
    assert!(world.all(PageLimits { bytes_max: 1, ..LIMITS }).await.iter().all(|page| page.len() <= 1));
}

#[tokio::test]
async fn history_ends_where_retention_does() {
    let world = World::new(30);
    world.append(90).await;
    let seqs = world.all(LIMITS).await.concat();
    assert_eq!(seqs, [88, 85, 82, 79, 76, 73, 70, 67, 64, 61]);
    let (seqs, next) = world.page(Some(Cursor::new(world.epoch().await, 20)), LIMITS).await;
    assert_eq!((seqs, next), (vec![], None));
}

#[tokio::test]
async fn a_cursor_of_another_history_is_refused() {
    let world = World::new(30);
    world.append(3).await;
    let (interest, epoch) = (Interest::of(chat()), world.epoch().await);
    for foreign in [Cursor::new(fanfare_proto::cursor::Epoch::random(), 1), Cursor::new(epoch, 5)] {
        let reader = ("1".to_owned(), "42".to_owned());
        let page = world.history.page(reader, &world.tenant, &interest, Some(foreign), LIMITS, |_| true);
        assert!(matches!(page.await, Err(Refusal::Reset(_))), "{foreign}");
    }
}

#[tokio::test]
async fn pages_of_one_caller_wait_for_each_other() {
    let readers = Arc::new(Readers::default());
    let (ada, bob) = (("1".to_owned(), "ada".to_owned()), ("1".to_owned(), "bob".to_owned()));
    let mut turns = Vec::new();
    for _ in 0..READERS_PER_CALLER_MAX {
        turns.push(readers.turn(ada.clone()).await);
    }
    assert!(readers.turn(ada.clone()).now_or_never().is_none());
    let other = readers.turn(bob).await;
    turns.pop();
    let waited = tokio::time::timeout(Duration::from_secs(10), readers.turn(ada)).await.unwrap();
    drop((turns, other, waited));
    assert!(readers.lock().is_empty(), "callers that read nothing take nothing");
}

impl World {
    async fn epoch(&self) -> fanfare_proto::cursor::Epoch {
        self.engine.head(&self.tenant).await.unwrap().epoch
    }
}
