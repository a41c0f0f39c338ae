//! Whose turn it is to have a password hashed or compared.
//!
//! Owns: that whoever has many waiting holds up nobody else: networks take turns, of a network its addresses, and of an address its connections. Must never: know what is done with a turn. Driven by `passwords`.
//!
//! ```text
//! 10.0.0.1 ──┬── :4711  a b c d e f     the first address has the next turn, by its first connection,
//!            └── :4712  g               and both go behind the others:
//! 10.0.0.2 ───── :4713  h               a, h, g, b, c, …
//! ```
//!
//! An address of IPv4 is a network by itself.

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

    /// Whoever is on this box has as many addresses of loopback as it likes, and every host of IPv6 those of its network: all of them have one turn.
    fn network(self) -> IpAddr {
        let address = self.address();
        if address.is_loopback() {
            return IpAddr::V4(Ipv4Addr::LOCALHOST);
        }
        match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !IPV6_HOST)),
        }
    }

    /// Others of its network may have their own. Whoever has as many addresses as there are places can keep those out, whose turn is theirs alone by their addresses: nothing else is known
    /// of them.
    fn address(self) -> IpAddr {
        self.0.ip().to_canonical()
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
    networks: Row<IpAddr, Row<IpAddr, Row<SocketAddr, Line>>>,
}

/// Those that wait, by something of theirs that takes turns, in the order of these. Of whom nothing is known is together. Nothing is here that has none waiting.
struct Row<K, T>(VecDeque<(Option<K>, T)>);

/// Those of one connection.
type Line = VecDeque<Waiter>;

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
    let Some(next) = locked.networks.next() else { return };
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
        lock(&self.queue).networks.remove(self.number);
    }
}

impl Queue {
    fn enter(&mut self, asker: Option<Asker>, waiter: Waiter) {
        let addresses = self.networks.of(asker.map(Asker::network));
        let connections = addresses.of(asker.map(Asker::address));
        connections.of(asker.map(|asker| asker.0)).push_back(waiter);
        if self.networks.count() > WAITING_MAX
            && let Some(number) = self.networks.last_of_most()
        {
            self.networks.remove(number);
        }
    }
}

/// Those that wait for their turns.
trait Waiting {
    fn count(&self) -> usize;
    fn next(&mut self) -> Option<Waiter>;
    /// The last of the connection that has most waiting, of the address that has, of the network that has. Of several the one whose turn comes last: that of whoever has just come is behind all
    /// others.
    fn last_of_most(&self) -> Option<u64>;
    fn remove(&mut self, number: u64);
}

impl Waiting for Line {
    fn count(&self) -> usize {
        self.len()
    }

    fn next(&mut self) -> Option<Waiter> {
        self.pop_front()
    }

    fn last_of_most(&self) -> Option<u64> {
        self.back().map(|waiter| waiter.number)
    }

    fn remove(&mut self, number: u64) {
        self.retain(|waiter| waiter.number != number);
    }
}

impl<K, T: Waiting> Waiting for Row<K, T> {
    fn count(&self) -> usize {
        self.0.iter().map(|(_, part)| part.count()).sum()
    }

    fn next(&mut self) -> Option<Waiter> {
        let (key, mut part) = self.0.pop_front()?;
        let next = part.next();
        if part.count() > 0 {
            self.0.push_back((key, part));
        }
        next
    }

    fn last_of_most(&self) -> Option<u64> {
        self.0.iter().max_by_key(|(_, part)| part.count())?.1.last_of_most()
    }

    fn remove(&mut self, number: u64) {
        self.0.retain_mut(|(_, part)| {
            part.remove(number);
            part.count() > 0
        });
    }
}

impl<K: PartialEq, T: Default> Row<K, T> {
    /// What there is of this one, who is last in turn where there was nothing.
    fn of(&mut self, one: Option<K>) -> &mut T {
        let place = self.0.iter().position(|(other, _)| *other == one).unwrap_or_else(|| {
            self.0.push_back((one, T::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

impl<K, T> Default for Row<K, T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
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
        assert!(queue.networks.0.is_empty() && !queue.is_taken);
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
    fn a_network_of_ipv6_has_one_turn_and_its_addresses_share_it() {
        let turns = Turns::default();
        let held = turn(&mut turns.enter(None));
        let enter = |name, address| (name, enter(&turns, address, 1));
        let places = vec![
            enter("a", "2001:db8::1"),
            enter("b", "2001:db8::1"),
            enter("c", "2001:db8::2"),
            enter("d", "2001:db8:0:1::1"),
            enter("e", "2001:db8::3"),
            enter("f", "127.0.0.2"),
            enter("g", "::1"),
            enter("h", "10.0.0.1"),
        ];
        assert_eq!(order(held, places), ["a", "d", "f", "h", "c", "g", "e", "b"]);
    }

    #[test]
    fn of_two_networks_that_which_has_more_waiting_makes_room() {
        let turns = Turns::default();
        let _held = turn(&mut turns.enter(None));
        let mut flood: Vec<_> =
            (0..=WAITING_MAX).map(|n| enter(&turns, &format!("2001:db8::{n:x}"), 1)).collect();
        assert_eq!(flood.iter_mut().map(is_lost).filter(|lost| *lost).count(), 1);
        let mut other = enter(&turns, "2001:db8:0:1::1", 1);
        assert!(!is_lost(&mut other));
        assert_eq!(flood.iter_mut().map(is_lost).filter(|lost| *lost).count(), 2);
    }

    /// All hosts of a LAN are of one network of IPv6, and one of them kept the others out by its connections.
    #[test]
    fn another_address_of_a_network_comes_in_beside_one_with_many_connections() {
        let turns = Turns::default();
        let held = turn(&mut turns.enter(None));
        let mut flood: Vec<_> =
            (1..).map(|port| enter(&turns, "2001:db8::1", port)).take(WAITING_MAX).collect();
        let lost = |flood: &mut [Place]| flood.iter_mut().map(is_lost).filter(|lost| *lost).count();
        assert_eq!(lost(&mut flood), 0);
        let mut other = enter(&turns, "2001:db8::2", 1);
        assert!(!is_lost(&mut other));
        assert_eq!(lost(&mut flood), 1);
        drop(held);
        let first = flood.iter_mut().find_map(turn);
        assert!(first.is_some());
        drop(first);
        assert!(turn(&mut other).is_some(), "the second turn");
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
