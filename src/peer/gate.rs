//! How many handshakes strangers may cost.
//!
//! Owns: a small budget for each address and one for all, and what of it is kept for members. Must never: remember an address that was not shown to be
//! real, or grow with the number of attackers. Driven by `accept` with the time as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Instant;

/// Handshakes under way at the same time.
const PENDING_MAX: usize = 32;
/// Of these only members' addresses may have the last ones: whoever takes all the others keeps no member out.
const PENDING_FOR_MEMBERS: usize = 8;
/// From this many on, an address has to be shown to be real before anything is computed for it.
const PENDING_UNVALIDATED: usize = 4;
/// Handshakes that one address may begin at once.
const BURST: u32 = 16;
/// The pause after which an address may begin one more.
const REFILL: Duration = Duration::from_millis(500);
/// The same for one whose questions are answered because it is near. All nodes on one machine that gather, and ask each other several times a second, have
/// enough of this, and all that the whole network asks costs a processor little.
const REFILL_NEAR: Duration = Duration::from_millis(50);
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 1024;

/// What to do with somebody who wants to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Begin the handshake.
    Begin,
    /// Have it prove that the address is its own (QUIC's Retry, which costs nothing to remember).
    Prove,
    /// Drop the packet.
    Ignore,
}

/// What somebody has shown by the end of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// That it is a member, or has what one needs to become one.
    Right,
    /// Nothing, but it is near, where nothing is asked for.
    Near,
    /// Nothing.
    Nothing,
}

/// The budgets.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pending: usize,
    /// Where members are, by what they have said themselves or shown.
    members: BTreeSet<IpAddr>,
    /// For each address the time at which its budget is whole again.
    whole_at: BTreeMap<IpAddr, Instant>,
}

impl Gate {
    /// Members are at these addresses from now on.
    pub(super) fn set_members(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        self.members = addresses.map(|address| address.to_canonical()).collect();
    }

    /// Whom an address stands for. A member's has a budget of its own, which its neighbours cannot use up.
    fn origin(&self, address: IpAddr) -> IpAddr {
        let address = address.to_canonical();
        if self.members.contains(&address) { address } else { network(address) }
    }

    /// Asks for a handshake; after [`Admission::Begin`], [`Gate::ended`] has to follow.
    pub(super) fn ask(&mut self, now: Instant, address: IpAddr, is_proven: bool) -> Admission {
        let is_members = self.members.contains(&address.to_canonical());
        let kept = if is_members { 0 } else { PENDING_FOR_MEMBERS };
        if self.pending >= PENDING_MAX - kept {
            return Admission::Ignore;
        }
        let origin = self.origin(address);
        // A Retry's token knows no zone, so that nobody could show a link's own address; whoever forges one is on the link.
        let is_proven = is_proven || is_of_the_link(address);
        if !is_proven && (self.pending >= PENDING_UNVALIDATED || self.whole_at.contains_key(&origin)) {
            return Admission::Prove;
        }
        if self.whole_at.len() >= ADDRESSES_MAX {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
            // Members' addresses are few.
            if self.whole_at.len() >= ADDRESSES_MAX && !is_members && !self.whole_at.contains_key(&origin) {
                return Admission::Ignore;
            }
        }
        let whole_at = self.whole_at.get(&origin).copied().unwrap_or(now).max(now) + REFILL;
        if whole_at.since(now) > REFILL * BURST {
            return Admission::Ignore;
        }
        self.whole_at.insert(origin, whole_at);
        self.pending += 1;
        Admission::Begin
    }

    /// A handshake is over. Whoever has a right to be heard has cost nothing.
    pub(super) fn ended(&mut self, address: IpAddr, shown: Shown) {
        self.pending -= 1;
        let origin = self.origin(address);
        match shown {
            Shown::Right => drop(self.whole_at.remove(&origin)),
            Shown::Near => {
                if let Some(whole_at) = self.whole_at.get_mut(&origin) {
                    *whole_at = Instant::default()
                        + whole_at.since(Instant::default() + REFILL.saturating_sub(REFILL_NEAR));
                }
            }
            Shown::Nothing => {}
        }
    }
}

fn is_of_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// One host has a whole /64 of IPv6, except on a link's own addresses.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if !is_of_the_link(address) => {
            let network = u128::from(v6) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(gate: &mut Gate, now: Instant, address: &str) -> Admission {
        let admission = gate.ask(now, address.parse().unwrap(), true);
        if admission == Admission::Begin {
            gate.ended(address.parse().unwrap(), Shown::Nothing);
        }
        admission
    }

    fn begun(gate: &mut Gate, now: Instant, address: &str) -> usize {
        (0..1000).filter(|_| ask(gate, now, address) == Admission::Begin).count()
    }

    /// What it would have to show it for would not be understood.
    #[test]
    fn an_address_of_the_link_alone_is_never_asked_to_be_shown() {
        let mut gate = Gate::default();
        let mut asks = |address: &str| -> Vec<Admission> {
            let address = address.parse().unwrap();
            (0..3)
                .map(|_| {
                    let admission = gate.ask(Instant(1), address, false);
                    if admission == Admission::Begin {
                        gate.ended(address, Shown::Near);
                    }
                    admission
                })
                .collect()
        };
        assert_eq!(asks("fe80::1"), [Admission::Begin; 3]);
        assert_eq!(asks("10.0.0.1"), [Admission::Begin, Admission::Prove, Admission::Prove]);
    }

    #[test]
    fn an_address_has_a_burst_and_then_a_rate() {
        let mut gate = Gate::default();
        let start = Instant(1);
        assert_eq!(begun(&mut gate, start, "10.0.0.1"), 16);
        assert_eq!(begun(&mut gate, start, "::ffff:10.0.0.1"), 0, "the same address in its other form");
        assert_eq!(begun(&mut gate, start, "10.0.0.2"), 16, "another one has its own");
        assert_eq!(begun(&mut gate, start + REFILL * 3, "10.0.0.1"), 3);
        assert_eq!(begun(&mut gate, start + REFILL * 1000, "10.0.0.1"), 16);
    }

    #[test]
    fn a_host_has_one_budget_for_its_network_and_neighbours_have_their_own() {
        let mut gate = Gate::default();
        assert_eq!(begun(&mut gate, Instant(1), "2001:db8::1"), 16);
        assert_eq!(begun(&mut gate, Instant(1), "2001:db8::2"), 0);
        assert_eq!(begun(&mut gate, Instant(1), "fe80::1"), 16);
        assert_eq!(begun(&mut gate, Instant(1), "fe80::2"), 16);
    }

    #[test]
    fn a_member_gets_its_budget_back() {
        let (mut gate, address) = (Gate::default(), "10.0.0.1".parse().unwrap());
        for _ in 0..100 {
            assert_eq!(gate.ask(Instant(1), address, true), Admission::Begin);
            gate.ended(address, Shown::Right);
        }
    }

    /// It asks and is answered, which anybody on the network is.
    #[test]
    fn who_is_near_has_a_rate_of_its_own() {
        let (mut gate, address) = (Gate::default(), "10.0.0.1".parse().unwrap());
        let mut asked = |now: Instant| {
            let mut count = 0;
            while gate.ask(now, address, true) == Admission::Begin {
                gate.ended(address, Shown::Near);
                count += 1;
                assert!(count < 1000, "there is no bound");
            }
            count
        };
        let start = Instant(1) + Duration::from_secs(60);
        assert!(asked(start) >= 100, "a burst");
        let second = asked(start + Duration::from_secs(1));
        assert!((19..=21).contains(&second), "{second}");
    }

    #[test]
    fn strangers_keep_no_member_out() {
        let mut gate = Gate::default();
        let member: IpAddr = "2001:db8::1".parse().unwrap();
        gate.set_members([member].into_iter());
        // Next to it, until that network has nothing left, and then everywhere.
        assert_eq!(begun(&mut gate, Instant(1), "2001:db8::2"), 16);
        let mut stranger = 0;
        while gate.ask(Instant(1), IpAddr::V4(stranger.into()), true) == Admission::Begin {
            stranger += 1;
        }
        for _ in 0..PENDING_FOR_MEMBERS {
            assert_eq!(gate.ask(Instant(1), member, true), Admission::Begin);
        }
        assert_eq!(gate.ask(Instant(1), member, true), Admission::Ignore, "all together are bounded");
        gate.ended(member, Shown::Right);
        assert_eq!(gate.ask(Instant(1), IpAddr::V4(99.into()), true), Admission::Ignore);
        assert_eq!(gate.ask(Instant(1), member, true), Admission::Begin);
    }

    #[test]
    fn strangers_that_fill_the_table_keep_no_member_out_either() {
        let mut gate = Gate::default();
        let address = |n: usize| IpAddr::V4(u32::try_from(n).unwrap().into());
        for n in 0..ADDRESSES_MAX {
            assert_eq!(ask(&mut gate, Instant(1), &address(n).to_string()), Admission::Begin);
        }
        assert_eq!(ask(&mut gate, Instant(1), "99.9.9.9"), Admission::Ignore);
        gate.set_members(["99.9.9.9".parse().unwrap()].into_iter());
        assert_eq!(begun(&mut gate, Instant(1), "99.9.9.9"), 16, "it has its own budget");
        assert_eq!(ask(&mut gate, Instant(1), "99.9.9.8"), Admission::Ignore);
    }

    #[test]
    fn all_together_are_bounded_and_have_to_prove_their_addresses() {
        let mut gate = Gate::default();
        let address = |n: usize| IpAddr::V4(u32::try_from(n).unwrap().into());
        for n in 0..PENDING_UNVALIDATED {
            assert_eq!(gate.ask(Instant(1), address(n), false), Admission::Begin);
        }
        assert_eq!(gate.ask(Instant(1), address(99), false), Admission::Prove);
        for n in PENDING_UNVALIDATED..PENDING_MAX - PENDING_FOR_MEMBERS {
            assert_eq!(gate.ask(Instant(1), address(n), true), Admission::Begin);
        }
        assert_eq!(gate.ask(Instant(1), address(99), true), Admission::Ignore);
        gate.ended(address(0), Shown::Nothing);
        assert_eq!(gate.ask(Instant(1), address(99), true), Admission::Begin);
        let mut gate = Gate::default();
        for n in 0..ADDRESSES_MAX {
            assert_eq!(ask(&mut gate, Instant(1), &address(n).to_string()), Admission::Begin);
        }
        assert_eq!(ask(&mut gate, Instant(1), "99.9.9.9"), Admission::Ignore);
        assert_eq!(ask(&mut gate, Instant(1) + REFILL, "99.9.9.9"), Admission::Begin, "the others are whole");
    }
}
