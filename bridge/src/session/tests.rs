use fanfare_proto::v1::Delivery;

use super::*;
use crate::rooms::tests::session;

fn cursor(seq: u64) -> String {
    format!("0123456789ab-{seq}")
}

fn run(seqs: &[u64]) -> Arc<Run> {
    let stored = |seq: &u64| Delivery { id: cursor(*seq), name: seq.to_string(), ..Delivery::default() };
    let events = seqs.iter().map(|seq| Arc::new(Event::new(stored(seq)))).collect();
    Run::split(events, 1).remove(0)
}

fn typing() -> Arc<Run> {
    let event = Delivery { name: "typing".into(), ephemeral: true, ..Delivery::default() };
    Run::split(vec![Arc::new(Event::new(event))], 1).remove(0)
}

#[test]
fn what_comes_during_a_replay_follows_it_without_a_gap_or_a_repeat() {
    let (session, witness) = session("a", 10_000, true);
    session.send(&run(&[5, 6])).unwrap();
    session.send(&typing()).unwrap();
    assert!(witness.names().is_empty(), "the gate is closed");
    for seq in 4..=5 {
        session.send_event(&run(&[seq]).events[0]).unwrap();
    }
    session.open_gate(&cursor(5)).unwrap();
    assert_eq!(witness.names(), ["4", "5", "6", "typing"]);
    session.send(&run(&[7])).unwrap();
    assert_eq!(witness.names(), ["7"]);
}

#[test]
fn a_link_that_is_behind_the_log_repeats_nothing() {
    let (session, witness) = session("a", 10_000, true);
    session.open_gate(&cursor(9)).unwrap();
    session.send(&run(&[8, 9])).unwrap();
    session.send(&typing()).unwrap();
    session.send(&run(&[10, 11])).unwrap();
    session.send(&run(&[12])).unwrap();
    assert_eq!(witness.names(), ["typing", "10", "11", "12"]);
}

fn in_rooms(seqs: &[u64], rooms: &[&str]) -> Arc<Run> {
    let stored = |seq: &u64| Delivery {
        id: cursor(*seq),
        name: seq.to_string(),
        rooms: rooms.iter().map(|&room| room.to_owned()).collect(),
        ..Delivery::default()
    };
    Run::split(seqs.iter().map(|seq| Arc::new(Event::new(stored(seq)))).collect(), 1).remove(0)
}

#[test]
fn a_state_is_followed_by_what_is_later_and_other_rooms_lose_nothing() {
    let (session, witness) = session("a", 100_000, false);
    let live = vec![Room::org()];
    session.send(&in_rooms(&[1], &["org"])).unwrap();
    session.close_gate();
    session.send(&in_rooms(&[2], &["org"])).unwrap();
    session.send(&in_rooms(&[3], &["chat:7"])).unwrap();
    session.send(&in_rooms(&[4], &["chat:7", "org"])).unwrap();
    assert_eq!(witness.names(), ["1"], "the gate is closed");
    session.open_gate_of_rooms(&cursor(6), live.clone()).unwrap();
    assert_eq!(witness.names(), ["2", "4"]);
    // The link lags behind the state. Meanwhile the session joins another room.
    session.send(&in_rooms(&[5], &["chat:7"])).unwrap();
    session.close_gate();
    session.send(&in_rooms(&[6], &["chat:7"])).unwrap();
    session.send(&in_rooms(&[7], &["chat:7"])).unwrap();
    session.send(&in_rooms(&[8], &["chat:8"])).unwrap();
    session.open_gate_of_rooms(&cursor(8), vec![Room::org(), Room::new("chat:7").unwrap()]).unwrap();
    session.send(&in_rooms(&[9], &["chat:8"])).unwrap();
    session.send(&in_rooms(&[10], &["org"])).unwrap();
    assert_eq!(witness.names(), ["7", "9", "10"]);
    // Nothing was read: held events for rooms in which it already was are sent.
    session.close_gate();
    session.send(&in_rooms(&[11], &["chat:9"])).unwrap();
    session.send(&in_rooms(&[12], &["org"])).unwrap();
    session.discard_held(&live);
    session.reopen_gate().unwrap();
    session.send(&in_rooms(&[13], &["org"])).unwrap();
    assert_eq!(witness.names(), ["12", "13"]);
}

#[test]
fn what_waits_at_the_gate_is_bounded() {
    let (session, _) = session("a", 3 * size_of::<Event>(), true);
    assert!(session.send(&run(&[1, 2])).is_ok());
    assert!(session.send(&run(&[3, 4])).is_err());
}

#[test]
fn calls_run_in_order_and_are_bounded() {
    let (session, _) = session("a", 1000, false);
    let call = |name: &str| Emission::new(name.to_owned(), Vec::new(), None).unwrap();
    assert_eq!(session.enqueue_call(call("1"), 2), EnqueueOutcome::Run);
    assert_eq!(session.enqueue_call(call("2"), 2), EnqueueOutcome::Wait);
    assert_eq!(session.enqueue_call(call("3"), 2), EnqueueOutcome::Full);
    assert_eq!(session.next_call().unwrap().name, "1");
    assert_eq!(session.next_call().unwrap().name, "2");
    assert!(session.next_call().is_none());
    assert_eq!(session.enqueue_call(call("4"), 2), EnqueueOutcome::Run);
}
