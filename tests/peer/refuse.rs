//! Who is refused, and that both ends say why.
//!
//! Owns: keys, clusters, generations, runs, removal. Must never: take an error of the network for a refusal.

use std::time::{Duration, Instant};

use covey::formation::{ClusterRoot, Generation};
use covey::ids::{Incarnation, MemberId, Run};
use covey::peer::{Event, RefusalKind, RefusedBy};

use crate::harness::{Node, append, heartbeat, identity, pair, peer, public};

/// The refusal of or by a member: who refused, what for, and the sentence.
fn wait_refused(node: &Node, by: RefusedBy) -> (RefusalKind, String) {
    node.log.wait(&format!("a refusal by {by:?} at {}", node.id()), |event| match event {
        Event::Refused { by: who, why, .. } if *who == by => Some((why.kind, why.sentence.clone())),
        _ => None,
    })
}

/// Node 1 dials node 2, which does not know where node 1 is. Answers what both say.
fn refusals(a: &Node, b: &Node) -> ((RefusedBy, RefusalKind, String), (RefusedBy, RefusalKind, String)) {
    b.trust(&[peer(&a.identity, &[])]);
    a.trust(&[b.peer()]);
    let wait = |node: &Node| {
        node.log.wait("a refusal", |event| match event {
            Event::Refused { by, why, .. } => Some((*by, why.kind, why.sentence.clone())),
            _ => None,
        })
    };
    (wait(a), wait(b))
}

#[test]
fn another_cluster_or_generation_is_refused_with_the_same_sentence_at_both_ends() {
    let mut stranger = identity(1);
    stranger.root = ClusterRoot([8; 32]);
    let mut recovered = identity(1);
    recovered.generation = Generation(2);
    for (one, kind, reason) in [
        (stranger, RefusalKind::Cluster, "it is in cluster"),
        (recovered, RefusalKind::Generation, "it is in generation 2 of the cluster, not in generation 1"),
    ] {
        let (a, b) = (Node::start(one), Node::start(identity(2)));
        let (at_a, at_b) = refusals(&a, &b);
        assert_eq!((at_a.0, at_b.0), (RefusedBy::Them, RefusedBy::Us));
        assert_eq!((at_a.1, at_b.1), (kind, kind));
        assert_eq!(at_a.2, at_b.2);
        assert!(at_a.2.starts_with("member 2 refuses member 1: ") && at_a.2.contains(reason), "{}", at_a.2);
        assert_eq!(a.log.count(|event| matches!(event, Event::Connected { .. })), 0);
        assert_eq!(b.log.count(|event| matches!(event, Event::Connected { .. })), 0);
    }
}

/// The cluster knows the key under another id.
#[test]
fn a_key_under_another_id_is_refused() {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    let (_, mut as_three) = a.peer();
    as_three.addresses.clear();
    b.trust(&[(MemberId(3), as_three)]);
    a.trust(&[b.peer()]);
    let (kind, sentence) = wait_refused(&b, RefusedBy::Us);
    assert_eq!(kind, RefusalKind::Sender);
    assert_eq!(sentence, "member 2 refuses member 3: with the key of member 3 it says that it is member 1");
    assert_eq!(wait_refused(&a, RefusedBy::Them), (kind, sentence));
}

#[test]
fn a_key_that_is_not_pinned_is_refused_until_it_is() {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    a.trust(&[b.peer()]);
    let fingerprint = a.identity.key.fingerprint();
    let (kind, sentence) = wait_refused(&b, RefusedBy::Us);
    assert_eq!(kind, RefusalKind::Key);
    assert_eq!(sentence, format!("the key {fingerprint} is not that of a member"));
    assert_eq!(wait_refused(&a, RefusedBy::Them), (kind, sentence));
    b.trust(&[peer(&a.identity, &[])]);
    a.wait_connected(2);
    b.wait_connected(1);
}

/// Somebody else answers at the address.
#[test]
fn who_dials_takes_nobody_else_for_the_member() {
    let (a, b, c) = (Node::start(identity(1)), Node::start(identity(2)), Node::start(identity(3)));
    c.trust(&[peer(&a.identity, &[])]);
    a.trust(&[peer(&b.identity, &[c.address])]);
    let (kind, sentence) = wait_refused(&a, RefusedBy::Us);
    assert_eq!(kind, RefusalKind::Key);
    assert!(sentence.contains("is not the expected one"), "{sentence}");
    assert!(sentence.contains(&c.identity.key.fingerprint().to_string()), "{sentence}");
    assert_eq!(c.log.count(|event| matches!(event, Event::Connected { .. })), 0);
}

#[test]
fn a_removed_member_is_cut_off_at_once_and_stays_out() {
    let (a, b) = pair();
    // Who dialled before the other knew it has been refused once.
    a.log.clear();
    b.log.clear();
    let removed = Instant::now();
    b.transport.set_removed([(public(&a.identity.key), a.identity.member)].into());
    b.trust(&[]);
    a.wait_unreachable(2);
    assert!(removed.elapsed() < Duration::from_secs(2), "{:?}", removed.elapsed());
    let (kind, sentence) = wait_refused(&a, RefusedBy::Them);
    assert_eq!(kind, RefusalKind::Removed);
    assert_eq!(sentence, "member 2 refuses member 1: it was removed from the cluster");
    // It tries again, and gets no other answer.
    assert_eq!(wait_refused(&b, RefusedBy::Us), (kind, sentence));
    b.log.clear();
    a.transport.send(vec![append(1, 2, 1, 10), heartbeat(1, 2, 1)]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(b.log.count(|event| matches!(event, Event::Messages(_) | Event::Connected { .. })), 0);
    assert_eq!((a.transport.stats().connected, b.transport.stats().connected), (0, 0));
}

/// A node that has heard of other members than its own state has may lose them from view again, and they it. Had it told them that they were removed, they
/// would have stopped for good.
#[test]
fn a_member_that_is_only_lost_from_view_is_not_told_that_it_was_removed() {
    let (a, b) = pair();
    a.log.clear();
    // Another member was, and the key once had another place.
    let others = [(public(&identity(3).key), MemberId(3)), (public(&a.identity.key), MemberId(4))];
    b.transport.set_removed(others.into());
    b.trust(&[]);
    a.wait_unreachable(2);
    let (kind, sentence) = wait_refused(&a, RefusedBy::Them);
    assert_eq!(kind, RefusalKind::Key);
    assert_eq!(sentence, "member 2 refuses member 1: its key is not that of a member now");
    b.trust(&[a.peer()]);
    a.wait_connected(2);
    b.wait_connected(1);
}

/// Another box has the place and the id of a member.
#[test]
fn a_member_whose_key_changes_is_cut_off() {
    let (a, b) = pair();
    let replacement = Node::start(identity(1));
    a.log.clear();
    b.trust(&[peer(&replacement.identity, &[])]);
    assert_eq!(wait_refused(&a, RefusedBy::Them).0, RefusalKind::Key);
    replacement.trust(&[b.peer()]);
    replacement.wait_connected(2);
}

/// A copy of a member's disk is started elsewhere, and then one of last week.
#[test]
fn a_copy_and_an_older_disk_are_refused() {
    let mut current = identity(1);
    current.incarnation = Incarnation(5);
    let b = Node::start(identity(2));
    let a = Node::start(current.clone());
    b.trust(&[peer(&current, &[])]);
    a.trust(&[b.peer()]);
    b.wait_connected(1);
    drop(a);
    b.wait_unreachable(1);
    for (incarnation, nonce) in [(5, 77), (4, 1001)] {
        let mut copy = current.clone();
        copy.incarnation = Incarnation(incarnation);
        copy.boot_nonce = nonce;
        let copy = Node::start(copy);
        copy.trust(&[b.peer()]);
        let (kind, sentence) = wait_refused(&copy, RefusedBy::Them);
        assert_eq!(kind, RefusalKind::OldRun);
        let expected = format!("it shows start {incarnation}, but start 5 of this member was here already");
        assert!(sentence.ends_with(&expected), "{sentence}");
    }
    // What the log says was seen counts as much as what this node has seen itself.
    let (fresh, mut known) = (Node::start(identity(3)), peer(&current, &[]));
    known.1.seen = Some(Run { incarnation: Incarnation(9), boot_nonce: 9 });
    fresh.trust(&[known]);
    let old = Node::start(current);
    old.trust(&[fresh.peer()]);
    assert_eq!(wait_refused(&old, RefusedBy::Them).0, RefusalKind::OldRun);
}

/// An old copy that has been started so often meanwhile that its count says nothing any more: it finds out by itself, whoever dials.
#[test]
fn a_copy_that_has_caught_up_in_starts_finds_out_what_it_is() {
    let mut copy = identity(1);
    copy.incarnation = Incarnation(9);
    copy.earlier = (1..9).map(|n| Run { incarnation: Incarnation(n), boot_nonce: n }).collect();
    let mut known = peer(&copy, &[]);
    known.1.seen = Some(Run { incarnation: Incarnation(5), boot_nonce: 1 });
    for copy_dials in [true, false] {
        let (b, a) = (Node::start(identity(2)), Node::start(copy.clone()));
        let mut known = known.clone();
        if copy_dials {
            b.trust(&[known]);
            a.trust(&[b.peer()]);
        } else {
            a.trust(&[peer(&b.identity, &[])]);
            known.1.addresses = a.peer().1.addresses;
            b.trust(&[known]);
        }
        let (kind, sentence) = wait_refused(&a, RefusedBy::Us);
        assert_eq!(kind, RefusalKind::Fenced);
        let expected =
            "member 1 stops: member 2 has seen start 5 of it, of which its data directory knows nothing";
        assert_eq!(sentence, expected);
        assert_eq!(wait_refused(&b, RefusedBy::Them), (kind, sentence));
    }
}

/// Who was away while it was removed is told so, by members of its own generation only: whoever hears it, stops.
#[test]
fn a_removed_member_that_comes_is_told() {
    for (generation, kind) in [(1, RefusalKind::Removed), (2, RefusalKind::Generation)] {
        let (a, mut own) = (Node::start(identity(1)), identity(2));
        own.generation = Generation(generation);
        let b = Node::start(own);
        b.trust(&[]);
        b.transport.set_removed([(public(&a.identity.key), a.identity.member)].into());
        a.trust(&[b.peer()]);
        assert_eq!(wait_refused(&a, RefusedBy::Them).0, kind);
    }
}

/// A refusal is told once and not at each of the attempts that follow.
#[test]
fn the_same_refusal_is_told_once() {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    a.trust(&[b.peer()]);
    wait_refused(&b, RefusedBy::Us);
    let until = Instant::now() + Duration::from_secs(10);
    while b.transport.stats().handshakes < 4 {
        assert!(Instant::now() < until, "it dials again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(b.log.count(|event| matches!(event, Event::Refused { .. })), 0);
}
