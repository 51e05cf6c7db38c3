//! Stored and ephemeral events that are appended together, by several servers at once.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_stored_and_ephemeral_events_keep_their_order_for_all_followers() {
    const BATCHES: usize = 20;
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let (a, b, t) = (Arc::new(a), Arc::new(b), tenant("1"));
    let (start, mut at_a) = a.follow(&t).await.unwrap();
    let (_, mut at_b) = b.follow(&t).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for engine in [&a, &b, &a, &b] {
        let (engine, t) = (engine.clone(), t.clone());
        writers.spawn(async move {
            let typing = || typed(&t, "messenger.v1.TypingStart", "", &[]);
            let mut mine = Vec::new();
            for _ in 0..BATCHES {
                let batch = vec![typing(), draft(&t, ""), typing(), draft(&t, "")];
                let answers = engine.append(&t, batch).await.unwrap();
                mine.extend(answers.iter().map(|one| event(one).id.clone()));
                mine.extend(ids(&[event(&engine.append(&t, vec![typing()]).await.unwrap()[0]).clone()]));
            }
            mine
        });
    }
    let written: Vec<Vec<String>> = writers.join_all().await;
    let all = 4 * BATCHES * 5;
    for feed in [&mut at_a, &mut at_b] {
        let seen = ids(&take(feed, all).await);
        for mine in &written {
            let of_writer: HashSet<&String> = mine.iter().collect();
            let seen: Vec<&String> = seen.iter().filter(|id| of_writer.contains(id)).collect();
            for (seen, mine) in seen.chunks(5).zip(mine.chunks(5)) {
                assert_eq!(seen, mine.iter().collect::<Vec<_>>());
            }
        }
    }
    assert_eq!(read_all(&b, &t, start).await.len(), 4 * BATCHES * 2, "the log has the stored ones");
}
