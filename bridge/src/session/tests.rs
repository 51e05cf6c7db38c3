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
