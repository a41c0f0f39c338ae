//! Whose turn it is to have a password hashed or compared.
//!
//! Owns: that whoever has many waiting holds up nobody else: addresses take turns, and of an address its connections. Must never: know what is done with a turn. Driven by `passwords`.
//!
//! ```text
//! 10.0.0.1 ──┬── :4711  a b c d e f     the first address has the next turn, by its first connection,
//!            └── :4712  g               and both go behind the others:
//! 10.0.0.2 ───── :4713  h               a, h, g, b, c, …
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

/// How many may wait. Where one more comes, whoever has most of them waiting loses the last of those.
const WAITING_MAX: usize = 64;

/// The part of an address that a host chooses for itself (RFC 4291, section 2.5.1).
const IPV6_HOST: u128 = u64::MAX as u128;

/// Who shows a password, as far as anything is known of somebody who is nobody yet: the other end of the connection. Calls of the Auth service carry it among their extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker(SocketAddr);

impl Asker {
    /// Whoever is at the other end.
    pub fn at(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Whoever is on this box has as many addresses of loopback as it likes, and every host of IPv6 those of its network. Whoever has as many addresses otherwise as there are places can
    /// keep others out, whose turn is theirs alone by their addresses: nothing else is known of them.
    fn address(self) -> IpAddr {
        let address = self.0.ip().to_canonical();
        if address.is_loopback() {
            return IpAddr::V4(Ipv4Addr::LOCALHOST);
        }
        match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !IPV6_HOST)),
        }
    }
}

/// Where turns are waited for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<Queue>>);

/// Nobody else has one until this is dropped.
pub struct Turn(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// Somebody has the turn.
    is_taken: bool,
    entered: u64,
    /// In the order of their turns. Nobody is here who has none waiting.
    addresses: VecDeque<(Option<IpAddr>, Connections)>,
}

/// Those of one address, in the order of their turns.
type Connections = VecDeque<(Option<SocketAddr>, VecDeque<Waiter>)>;

/// One that waits.
struct Waiter {
    number: u64,
    grant: oneshot::Sender<Turn>,
}

/// A place among those that wait, left when it is dropped.
struct Place {
    queue: Arc<Mutex<Queue>>,
    number: u64,
    granted: oneshot::Receiver<Turn>,
}

impl Turns {
    /// Waits for a turn. `None` where too many wait, and nobody has more of them waiting than this one.
    pub async fn take(&self, asker: Option<Asker>) -> Option<Turn> {
        let mut place = self.enter(asker);
        (&mut place.granted).await.ok()
    }

    fn enter(&self, asker: Option<Asker>) -> Place {
        let (grant, granted) = oneshot::channel();
        let mut queue = lock(&self.0);
        let number = queue.entered;
        queue.entered += 1;
        queue.enter(asker, Waiter { number, grant });
        drop(queue);
        give(&self.0);
        Place { queue: Arc::clone(&self.0), number, granted }
    }
}

/// Gives the turn to whoever is next, unless somebody has it.
fn give(queue: &Arc<Mutex<Queue>>) {
    let mut locked = lock(queue);
    if locked.is_taken {
        return;
    }
    let Some(next) = locked.next() else { return };
    locked.is_taken = true;
    drop(locked);
    // Whoever has gone this very moment drops the turn, which gives it to the next.
    drop(next.grant.send(Turn(Arc::clone(queue))));
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.0).is_taken = false;
        give(&self.0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.queue).remove(self.number);
    }
}

impl Queue {
    fn enter(&mut self, asker: Option<Asker>, waiter: Waiter) {
        let connections = of(&mut self.addresses, asker.map(Asker::address));
        of(connections, asker.map(|asker| asker.0)).push_back(waiter);
        let all: usize = self.addresses.iter().map(|(_, connections)| count(connections)).sum();
        if all > WAITING_MAX {
            self.lose_one();
        }
    }

    /// Removes the last of the connection that has most waiting, of the address that has. Of several the one whose turn comes last: that of whoever has just come is behind all others.
    fn lose_one(&mut self) {
        let most = self.addresses.iter().max_by_key(|(_, connections)| count(connections));
        let most = most.and_then(|(_, connections)| connections.iter().max_by_key(|(_, all)| all.len()));
        if let Some(number) = most.and_then(|(_, all)| all.back()).map(|waiter| waiter.number) {
            self.remove(number);
        }
    }

    fn next(&mut self) -> Option<Waiter> {
        let (address, mut connections) = self.addresses.pop_front()?;
        let (connection, mut all) = connections.pop_front()?;
        let next = all.pop_front();
        if !all.is_empty() {
            connections.push_back((connection, all));
        }
        if !connections.is_empty() {
            self.addresses.push_back((address, connections));
        }
        next
    }

    fn remove(&mut self, number: u64) {
        self.addresses.retain_mut(|(_, connections)| {
            connections.retain_mut(|(_, all)| {
                all.retain(|waiter| waiter.number != number);
                !all.is_empty()
            });
            !connections.is_empty()
        });
    }
}

/// What there is of this one, who is last in turn where there was nothing.
fn of<K: Copy + PartialEq, T: Default>(turns: &mut VecDeque<(K, T)>, one: K) -> &mut T {
    let place = turns.iter().position(|(other, _)| *other == one).unwrap_or_else(|| {
        turns.push_back((one, T::default()));
        turns.len() - 1
    });
    &mut turns[place].1
}

fn count(connections: &Connections) -> usize {
    connections.iter().map(|(_, all)| all.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(turns: &Turns, address: &str, port: u16) -> Place {
        turns.enter(Some(Asker::at(SocketAddr::new(address.parse().unwrap(), port))))
    }

    /// What has become of a place: its turn, if it is that.
    fn turn(place: &mut Place) -> Option<Turn> {
        place.granted.try_recv().ok().flatten()
    }

    fn is_lost(place: &mut Place) -> bool {
        place.granted.try_recv().is_err()
    }

    /// The names of those that wait, in the order in which they have their turns.
    fn order(mut turn_of_another: Option<Turn>, mut places: Vec<(&str, Place)>) -> Vec<&str> {
        let mut order = Vec::new();
        while turn_of_another.take().is_some() {
            let mut next = places.iter_mut().filter_map(|(name, place)| Some((*name, turn(place)?)));
            if let Some((name, turn)) = next.next() {
                order.push(name);
                turn_of_another = Some(turn);
            }
        }
        order
    }

    #[test]
    fn addresses_take_turns_and_so_do_the_connections_of_one() {
        let turns = Turns::default();
        let held = turn(&mut enter(&turns, "10.0.0.9", 1));
        assert!(held.is_some(), "nobody else waits");
        let enter = |name, address, port| (name, enter(&turns, address, port));
        let mut places: Vec<_> =
            ["a", "b", "c", "d"].into_iter().map(|name| enter(name, "10.0.0.1", 4711)).collect();
        places.extend([
            enter("g", "::ffff:10.0.0.1", 4712),
            enter("h", "10.0.0.2", 4713),
            enter("i", "10.0.0.2", 4713),
        ]);
        assert_eq!(order(held, places), ["a", "h", "g", "i", "b", "c", "d"]);
        let queue = lock(&turns.0);
        assert!(queue.addresses.is_empty() && !queue.is_taken);
    }

    /// However many connections somebody floods by, others wait for one turn, and it is not they who are refused.
    #[test]
    fn whoever_has_most_waiting_makes_room() {
        let turns = Turns::default();
        let held = turn(&mut turns.enter(None));
        let mut flood: Vec<_> =
            (0..2 * WAITING_MAX).map(|n| enter(&turns, "10.0.0.1", u16::try_from(n % 8).unwrap())).collect();
        let lost = |flood: &mut [Place]| flood.iter_mut().map(is_lost).filter(|lost| *lost).count();
        assert_eq!(lost(&mut flood), WAITING_MAX);
        assert_eq!(lost(&mut flood[..WAITING_MAX]), 0, "those that were first");
        let mut other = enter(&turns, "10.0.0.2", 1);
        assert!(!is_lost(&mut other));
        assert_eq!(lost(&mut flood), WAITING_MAX + 1);
        // Another connection of the address that floods comes in, too.
        let mut beside = enter(&turns, "10.0.0.1", 99);
        assert!(!is_lost(&mut beside));
        assert_eq!(lost(&mut flood), WAITING_MAX + 2);
        drop(held);
        let first = flood.iter_mut().find_map(turn);
        assert!(first.is_some());
        drop(first);
        assert!(turn(&mut other).is_some(), "the second turn");
    }

    #[test]
    fn of_many_who_have_as_much_whoever_comes_last_is_refused() {
        let turns = Turns::default();
        let _held = turn(&mut turns.enter(None));
        let mut places: Vec<_> =
            (0..=WAITING_MAX).map(|n| enter(&turns, &format!("10.0.0.{n}"), 1)).collect();
        let lost: Vec<_> = places.iter_mut().map(is_lost).collect();
        assert_eq!(lost.iter().position(|lost| *lost), Some(WAITING_MAX));
    }

    /// A host can have as many addresses of its network as it likes.
    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let turns = Turns::default();
        let _held = turn(&mut turns.enter(None));
        let mut flood: Vec<_> =
            (0..=WAITING_MAX).map(|n| enter(&turns, &format!("2001:db8::{n:x}"), 1)).collect();
        assert_eq!(flood.iter_mut().map(is_lost).filter(|lost| *lost).count(), 1);
        let mut other = enter(&turns, "2001:db8:0:1::1", 1);
        assert!(!is_lost(&mut other));
        assert_eq!(flood.iter_mut().map(is_lost).filter(|lost| *lost).count(), 2);
    }

    #[test]
    fn whoever_goes_away_has_no_turn_and_keeps_nobody_waiting() {
        let turns = Turns::default();
        let held = turn(&mut turns.enter(None));
        let (gone, mut here) = (enter(&turns, "10.0.0.1", 1), enter(&turns, "10.0.0.1", 1));
        drop(gone);
        drop(held);
        let first = turn(&mut here);
        assert!(first.is_some());
        // One that was granted a turn, and has gone before it took it.
        let (granted, mut next) = (turns.enter(None), turns.enter(None));
        drop(first);
        assert!(turn(&mut next).is_none());
        drop(granted);
        assert!(turn(&mut next).is_some());
    }
}
