//! Who gets room and who waits; what counts and how long.

use std::future::poll_fn;
use std::task::Waker;

use super::*;

const MIB: usize = 1024 * 1024;

/// Polls once.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn room_is_given_in_order_and_little_passes_much() {
    let answers = Answers::new(8 * MIB, Arc::default());
    let first = answers.try_reserve(3 * MIB).unwrap();
    let second = answers.try_reserve(3 * MIB).unwrap();
    let mut third = Box::pin(answers.reserve(4 * MIB));
    let mut fourth = Box::pin(answers.reserve(2 * MIB));
    assert!(
        poll(&mut third).is_pending() && poll(&mut fourth).is_pending(),
        "the fourth fits, but came later"
    );
    assert!(answers.is_short());
    assert!(answers.try_reserve(2 * MIB).is_none(), "so does this one");
    let little = answers.try_reserve(ANSWER_FIRST_BYTES).expect("there is room for little");
    drop((little, first));
    let Poll::Ready(Ok(third)) = poll(&mut third) else { panic!("there is room for the third") };
    assert!(poll(&mut fourth).is_pending());
    drop(second);
    assert!(matches!(poll(&mut fourth), Poll::Ready(Ok(_))));
    drop(third);
    assert_eq!(answers.bytes(), (0, 7 * MIB), "the fourth was dropped with its answer");
    assert!(!answers.is_short());
}

#[test]
fn a_waiter_that_leaves_is_in_nobodys_way_and_room_sent_to_it_comes_back() {
    let answers = Answers::new(8 * MIB, Arc::default());
    let first = answers.try_reserve(4 * MIB).unwrap();
    let second = answers.try_reserve(2 * MIB).unwrap();
    let mut third = Box::pin(answers.reserve(4 * MIB));
    let mut fourth = Box::pin(answers.reserve(2 * MIB));
    assert!(poll(&mut third).is_pending() && poll(&mut fourth).is_pending());
    drop(third);
    assert!(matches!(poll(&mut fourth), Poll::Ready(Ok(_))), "the one before has left");
    let mut fifth = Box::pin(answers.reserve(4 * MIB));
    assert!(poll(&mut fifth).is_pending());
    drop(first);
    drop(fifth);
    drop(second);
    assert_eq!(answers.bytes().0, 0);
}

#[test]
fn small_answers_do_not_wait_but_are_bounded_too() {
    let answers = Answers::new(8 * MIB, Arc::default());
    let outbox = Arc::new(Outbox::new(answers.clone()));
    let held: Vec<_> = (0..16).map(|_| outbox.hold(MIB - ANSWER_OVERHEAD_BYTES)).collect();
    assert!(answers.is_exhausted() && answers.try_reserve(1).is_none());
    drop(held);
    assert!(!answers.is_exhausted());
    assert_eq!(answers.bytes(), (0, 16 * MIB));
}

#[test]
fn an_answer_counts_until_its_last_piece_is_gone() {
    let answers = Answers::new(8 * MIB, Arc::default());
    let outbox = Arc::new(Outbox::new(answers.clone()));
    let held = outbox.hold(1000);
    let whole = Bytes::from(vec![7; 1000]);
    let (one, two) = (held.piece(whole.slice(..600)), held.piece(whole.slice(600..)));
    drop(held);
    assert_eq!((one.len(), &two[..]), (600, &[7; 400][..]));
    drop(one);
    assert_eq!(answers.bytes().0, 1000 + ANSWER_OVERHEAD_BYTES);
    let rest = two.slice(399..);
    drop(two);
    assert!(answers.bytes().0 > 0, "a slice of a piece keeps it");
    drop(rest);
    assert_eq!(answers.bytes().0, 0);
    assert!(outbox.is_empty());
}

/// How many times a patience of 20 ms holds before it is over, while `between` is called ten times as often.
fn looks(outbox: &Arc<Outbox>, mut between: impl FnMut()) -> bool {
    let mut patience = Patience::new(Arc::clone(outbox), Duration::from_millis(20));
    smol::block_on(async {
        for _ in 0..100 {
            let over = async {
                poll_fn(|cx| patience.poll(cx)).await;
                true
            };
            let tick = async {
                Timer::after(Duration::from_millis(2)).await;
                false
            };
            if smol::future::or(over, tick).await {
                return true;
            }
            between();
        }
        false
    })
}

#[test]
fn only_a_client_that_takes_nothing_has_to_go_unless_others_wait() {
    let answers = Answers::new(8 * MIB, Arc::default());
    let outbox = Arc::new(Outbox::new(answers.clone()));
    assert!(!looks(&outbox, || {}), "nothing was given");
    let held = outbox.hold(1000);
    assert!(looks(&outbox, || {}), "nothing is taken");
    let slow = || drop(held.piece(Bytes::from_static(b"x")));
    assert!(!looks(&outbox, slow), "a little is taken all the time");
    let room = (answers.try_reserve(4 * MIB), answers.try_reserve(3 * MIB));
    let mut waiting = Box::pin(answers.reserve(4 * MIB));
    assert!(poll(&mut waiting).is_pending());
    assert!(looks(&outbox, slow), "others wait for what it takes too slowly");
    // One that is given and taken all the time holds nothing for long, however short memory is.
    drop(held);
    let mut last = None;
    assert!(!looks(&outbox, || last = Some(outbox.hold(1000))));
    drop(room);
}

/// Watchers' events count in a budget of their own; what clients hold of it is looked at here.
#[test]
fn a_slow_client_has_to_go_as_well_when_another_budget_is_short() {
    let short = Arc::new(AtomicBool::new(false));
    let outbox = Arc::new(Outbox::new(Answers::new(8 * MIB, Arc::clone(&short))));
    let held = outbox.hold(0);
    let slow = || drop(held.piece(Bytes::from_static(b"x")));
    assert!(!looks(&outbox, slow), "a little is taken all the time");
    short.store(true, Ordering::Relaxed);
    assert!(looks(&outbox, slow));
}
