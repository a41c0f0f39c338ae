//! Several things at a time: one node asked at several addresses, of which some may lead nowhere, and work of one kind.
//!
//! Owns: when each of them is begun with, and which answer counts. Must never: wait for a dead address longer than [`STAGGER`] before the next one is begun
//! with. Driven by whoever asks.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use smol::Timer;
use smol::future::or;

/// Between the beginnings at two addresses, unless the first of them fails sooner. On a LAN an answer takes less.
const STAGGER: Duration = Duration::from_millis(200);

/// Asks at all `places`, in this order, and gives the first answer. What is still on its way then is dropped. Without any answer: the last failure, and `None` without any place.
pub(super) async fn staggered<P, T, E, A>(
    places: impl IntoIterator<Item = P>,
    ask: impl Fn(P) -> A,
) -> Result<T, Option<E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut places = places.into_iter().peekable();
    let mut asked: Vec<Pin<Box<A>>> = Vec::new();
    let mut failure = None;
    loop {
        match places.next() {
            Some(place) => asked.push(Box::pin(ask(place))),
            None if asked.is_empty() => return Err(failure),
            None => {}
        }
        let more = places.peek().is_some();
        let next = async {
            if more {
                Timer::after(STAGGER).await;
            } else {
                std::future::pending::<()>().await;
            }
            None
        };
        match or(async { Some(first_of(&mut asked).await) }, next).await {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => failure = Some(error),
            None => {}
        }
    }
}

/// Does the same work with all `items`, with `most` of them at a time, and tells what has come of it, in the order in which they have ended.
pub(super) async fn together<I, W: Future>(
    most: usize,
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> W,
) -> Vec<W::Output> {
    let mut work = items.into_iter().map(|item| Box::pin(work(item)));
    let mut begun: Vec<Pin<Box<W>>> = work.by_ref().take(most).collect();
    let mut outcomes = Vec::new();
    while !begun.is_empty() {
        outcomes.push(first_of(&mut begun).await);
        begun.extend(work.next());
    }
    outcomes
}

/// What the first one of them that ends comes to. It is taken out.
async fn first_of<F: Future>(asked: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|context| {
        for index in 0..asked.len() {
            if let Poll::Ready(output) = asked[index].as_mut().poll(context) {
                drop(asked.remove(index));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Which places were begun with, and what comes of asking there: `None` never ends.
    fn asked_at(places: &[Option<Result<u32, u32>>]) -> (Result<u32, Option<u32>>, usize) {
        let begun = RefCell::new(0);
        let ask = |place: Option<Result<u32, u32>>| {
            *begun.borrow_mut() += 1;
            async move {
                match place {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            }
        };
        let answer = smol::block_on(staggered(places.iter().copied(), ask));
        (answer, begun.into_inner())
    }

    #[test]
    fn a_dead_address_keeps_nobody_from_the_next_one() {
        assert_eq!(asked_at(&[None, None, Some(Ok(3)), Some(Ok(4))]), (Ok(3), 3));
        assert_eq!(asked_at(&[Some(Ok(1)), Some(Ok(2))]), (Ok(1), 1), "one that answers is enough");
        assert_eq!(asked_at(&[None, Some(Err(2)), Some(Ok(3))]), (Ok(3), 3));
        assert_eq!(asked_at(&[Some(Err(1)), Some(Err(2))]), (Err(Some(2)), 2));
        assert_eq!(asked_at(&[]), (Err(None), 0));
    }

    #[test]
    fn work_goes_on_beside_what_waits_and_has_its_bound() {
        let (running, most) = (RefCell::new(0), RefCell::new(0));
        let (open, opened) = smol::channel::bounded::<()>(1);
        let work = |n: u32| {
            let (opened, open) = (opened.clone(), open.clone());
            let (running, most) = (&running, &most);
            async move {
                *running.borrow_mut() += 1;
                most.replace_with(|most| (*running.borrow()).max(*most));
                // The first one waits for what the last one does.
                match n {
                    0 => opened.recv().await.unwrap(),
                    9 => open.send(()).await.unwrap(),
                    _ => smol::future::yield_now().await,
                }
                *running.borrow_mut() -= 1;
                n
            }
        };
        let mut outcomes = smol::block_on(together(3, 0..10, work));
        assert_eq!(outcomes.last(), Some(&0));
        outcomes.sort_unstable();
        assert_eq!((outcomes, most.into_inner()), ((0..10).collect(), 3));
        assert!(smol::block_on(together(3, [0; 0], async |n: u32| n)).is_empty());
    }
}
