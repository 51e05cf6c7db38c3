//! Batches are stored once, or not at all.

use super::{
    super::request::{Request, Sent, slots},
    server::Server,
    *,
};

#[tokio::test]
async fn a_late_copy_of_an_older_batch_is_not_stored_again() {
    let Some(server) = Server::start(&[]) else { return };
    let engine = engine(&server).await;
    let shared = &engine.shared;
    let (one, two) =
        (slots(vec![vec![draft("1", "", 1)]]), slots(vec![vec![draft("1", "", 1), draft("1", "", 1)]]));
    let send = async |number: u64, slots: &[_], open: &[usize]| {
        let tag = number + 100;
        let request = Request::new(shared, &tenant(), (number, tag), slots, open);
        let answered =
            shared.nodes.script(&script::APPEND, &request.keys(), &request.arguments(), true).await.unwrap();
        request.read(&answered.value, tag).map(|sent| match sent {
            Sent::Appended(head, is_new) => (head.first, head.count, is_new),
            Sent::Known(_) | Sent::Refused(..) => panic!("there are no keys and no changes"),
        })
    };
    assert_eq!(send(1, &one, &[0]).await.unwrap(), (1, 1, true));
    assert_eq!(send(1, &one, &[0]).await.unwrap(), (1, 1, true), "the first answer again");
    assert_eq!(send(2, &two, &[0, 1]).await.unwrap(), (2, 2, false));
    let late = send(1, &one, &[0]).await;
    assert!(matches!(&late, Err(Fault::Final(text)) if text.contains("later batch")), "{late:?}");
    assert_eq!(send(2, &two, &[0, 1]).await.unwrap(), (2, 2, false));
    assert_eq!(server.command(&["XLEN", "ff:{1}:l"]), ::redis::Value::Int(2));
}

#[tokio::test]
async fn a_batch_with_very_many_keys_is_stored_once() {
    const KEYS: usize = 9000;
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let batch = || (0..KEYS).map(|key| draft("1", &key.to_string(), 1)).collect::<Vec<_>>();
    let stored = a.append(&tenant(), batch()).await.unwrap();
    assert!(stored.len() == KEYS && !stored.iter().any(Appended::is_duplicate));
    let again = b.append(&tenant(), batch()).await.unwrap();
    assert!(again.iter().all(Appended::is_duplicate));
    assert_eq!(again.last().map(seq), stored.last().map(seq));
    assert_eq!(a.head(&tenant()).await.unwrap().seq, KEYS as u64);
}

#[tokio::test]
async fn appends_behind_one_that_hangs_are_refused_in_time_and_not_stored() {
    const FRAME: usize = 512;
    let Some(server) = Server::start(&[]) else { return };
    let mut config = RedisConfig::parse(&server.url()).unwrap();
    (config.call_timeout, config.command_timeout) = (Duration::from_millis(500), Duration::from_millis(300));
    let engine = Arc::new(engine_with(config, Retention::default(), Limits::default()).await);
    append(&engine, "").await.unwrap();
    server.command(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let mut hanging = tokio::task::JoinSet::new();
    let at = std::time::Instant::now();
    for _ in 0..10 {
        let engine = engine.clone();
        hanging.spawn(async move {
            engine.append(&tenant(), (0..FRAME).map(|_| draft("1", "", 1)).collect()).await
        });
    }
    for refused in hanging.join_all().await {
        assert!(matches!(refused, Err(Refusal::Storage("written"))), "{refused:?}");
    }
    assert!(at.elapsed() < Duration::from_millis(1500), "{:?}", at.elapsed());
    server.command(&["CLIENT", "UNPAUSE"]);
    failures::append_at_last(&engine, "last").await;
    let head = engine.head(&tenant()).await.unwrap().seq;
    assert!([2, 2 + FRAME as u64].contains(&head), "only the first was sent: {head}");
}
