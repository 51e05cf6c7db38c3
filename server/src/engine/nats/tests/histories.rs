//! Streams that are deleted while servers use them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_deleted_and_has_grown_as_long_again_is_not_appended_to_as_if_it_were_the_old_one() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("1");
    let mut old = Vec::new();
    for _ in 0..5 {
        old.extend(a.append(&t, vec![draft(&t, "")]).await.unwrap());
    }
    a.shared.store.context.delete_stream(a.shared.store.names.log(&t).stream).await.unwrap();
    let start = b.head(&t).await.unwrap();
    let mut new = Vec::new();
    for _ in 0..5 {
        new.extend(b.append(&t, vec![draft(&t, "")]).await.unwrap());
    }
    let refused = a.append(&t, vec![draft(&t, "")]).await;
    assert!(matches!(refused, Err(Refusal::Storage(_))), "{refused:?}");
    let next = cursor(event(&a.append(&t, vec![draft(&t, "")]).await.unwrap()[0]));
    assert_eq!((next.epoch, next.seq), (start.epoch, 6));
    assert_ne!(next.epoch, cursor(event(&old[0])).epoch);
    assert_eq!(read_all(&b, &t, start).await.len(), 6, "the new log is whole");
}
