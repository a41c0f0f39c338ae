//! The queues' bounds, and what gives way.

use prost::Message as _;
use raft::eraftpb::{self, Entry, MessageType};
use smol::future::{block_on, poll_once};

use super::*;
use crate::consensus::{Allowance, Message};

fn message(kind: MessageType, index: u64, payload: usize) -> Item {
    let entries =
        if payload == 0 { vec![] } else { vec![Entry { data: vec![1; payload].into(), ..Entry::default() }] };
    let raft =
        eraftpb::Message { msg_type: kind, from: 1, to: 2, index, entries, ..eraftpb::Message::default() };
    Item::Raft(Message::decode(raft.encode_to_vec().into(), &mut Allowance::default()).unwrap())
}

fn connected() -> Outbox {
    let outbox = Outbox::default();
    outbox.attach(1);
    outbox
}

fn drain(outbox: &Outbox, lane: Lane) -> Vec<Item> {
    let mut all = Vec::new();
    while let Some(Some(batch)) = block_on(poll_once(outbox.next(lane, 1))) {
        assert!(!batch.is_empty());
        all.extend(batch);
    }
    all
}

#[test]
fn nothing_waits_for_a_member_that_is_not_there_and_its_loss_is_reported_once() {
    let outbox = Outbox::default();
    assert_eq!(outbox.push(message(MessageType::MsgHeartbeat, 1, 0)), Pushed::Dropped);
    assert_eq!(outbox.push(message(MessageType::MsgAppend, 1, 10)), Pushed::Lost);
    assert_eq!(outbox.push(message(MessageType::MsgAppend, 2, 10)), Pushed::Dropped);
    outbox.attach(1);
    assert!(drain(&outbox, Lane::Append).is_empty() && drain(&outbox, Lane::Control).is_empty());
    assert_eq!(outbox.push(message(MessageType::MsgAppend, 3, 10)), Pushed::Waits);
    outbox.detach();
    assert_eq!(
        outbox.push(message(MessageType::MsgAppend, 4, 10)),
        Pushed::Dropped,
        "the detach was reported"
    );
    assert_eq!(block_on(outbox.next(Lane::Append, 1)), None);
    outbox.attach(1);
    assert!(drain(&outbox, Lane::Append).is_empty(), "what waited is gone");
}

#[test]
fn each_kind_takes_its_lane() {
    let outbox = connected();
    let control = [
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgReadIndex,
        MessageType::MsgTimeoutNow,
    ];
    let append = [MessageType::MsgAppend, MessageType::MsgAppendResponse, MessageType::MsgPropose];
    for kind in control.into_iter().chain(append) {
        assert_eq!(outbox.push(message(kind, 1, 10)), Pushed::Waits);
    }
    let large = message(MessageType::MsgReadIndex, 2, PEER_CONTROL_MESSAGE_BYTES_MAX);
    assert_eq!(outbox.push(large), Pushed::Waits);
    assert_eq!(drain(&outbox, Lane::Control).len(), control.len());
    assert_eq!(drain(&outbox, Lane::Append).len(), append.len() + 1, "and what is too large for control");
}

#[test]
fn the_oldest_heartbeats_give_way_and_votes_do_not() {
    let outbox = connected();
    let vote = message(MessageType::MsgRequestVote, 7, 0);
    outbox.push(vote.clone());
    let many = 3 * u64::try_from(PEER_CONTROL_QUEUE_MAX).unwrap();
    for n in 0..many {
        assert_eq!(outbox.push(message(MessageType::MsgHeartbeat, n, 0)), Pushed::Waits);
    }
    let left = drain(&outbox, Lane::Control);
    assert_eq!(left.len(), PEER_CONTROL_QUEUE_MAX);
    assert_eq!(left[0], vote);
    assert_eq!(left.last(), Some(&message(MessageType::MsgHeartbeat, many - 1, 0)), "the newest is there");
    for n in 0..many {
        outbox.push(message(MessageType::MsgRequestVote, n, 0));
    }
    let left = drain(&outbox, Lane::Control);
    assert_eq!(
        (left.len(), left.last()),
        (PEER_CONTROL_QUEUE_MAX, Some(&message(MessageType::MsgRequestVote, many - 1, 0)))
    );
    assert_eq!(outbox.lock().control.bytes, 0);
}

#[test]
fn appends_beyond_the_bound_are_dropped_and_reported_once() {
    let outbox = connected();
    let mut results = Vec::new();
    for n in 0..6 {
        results.push(outbox.push(message(MessageType::MsgAppend, n, 1024 * 1024)));
    }
    assert_eq!(results[..3], [Pushed::Waits; 3]);
    assert_eq!(results[3..], [Pushed::Lost, Pushed::Dropped, Pushed::Dropped]);
    assert!(outbox.lock().append.bytes <= PEER_APPEND_QUEUE_BYTES_MAX);
    assert_eq!(outbox.push(message(MessageType::MsgHeartbeat, 1, 0)), Pushed::Waits, "the lanes are apart");
    let kept: Vec<Item> = drain(&outbox, Lane::Append);
    assert_eq!(kept.len(), 3, "the oldest stay: they continue what the follower has");
    let larger_than_the_queue = message(MessageType::MsgAppend, 9, 2 * PEER_APPEND_QUEUE_BYTES_MAX);
    assert_eq!(outbox.push(larger_than_the_queue), Pushed::Waits, "alone");
    assert_eq!(outbox.push(message(MessageType::MsgAppend, 10, 1)), Pushed::Lost);
    drain(&outbox, Lane::Append);
    assert_eq!(outbox.lock().append.bytes, 0);
    let larger_than_a_frame = message(MessageType::MsgAppend, 11, PEER_FRAME_BYTES_MAX);
    assert_eq!(outbox.push(larger_than_a_frame), Pushed::Dropped);
    assert_eq!(outbox.metrics.sent_failures.value(), 5, "each that was not taken");
}

#[test]
fn a_newer_connection_takes_over_what_waits() {
    let outbox = connected();
    outbox.push(message(MessageType::MsgAppend, 1, 10));
    outbox.attach(2);
    assert_eq!(block_on(outbox.next(Lane::Append, 1)), None);
    assert_eq!(block_on(outbox.next(Lane::Append, 2)).map(|batch| batch.len()), Some(1));
}

#[test]
fn parcels_have_so_many_places() {
    let outbox = Arc::new(Outbox::default());
    let mut places: Vec<_> = (0..PEER_PARCELS_MAX).map(|_| outbox.parcel_place().unwrap()).collect();
    assert!(outbox.parcel_place().is_none() && outbox.parcel_place().is_none());
    places.pop();
    assert!(outbox.parcel_place().is_some(), "a refusal keeps no place");
}
