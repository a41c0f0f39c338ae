//! The transport between members, joined to the node: what the state says of the members out, what they say in.
//!
//! Owns: whom the transport trusts. Must never: trust a key that the state does not name. Driven by `serve`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use smol::channel::{Receiver, Sender};
use smol::future::or;
use smol::{LocalExecutor, Timer};

use super::addresses::Addresses;
use super::admission::Desk;
use super::encounters::{Encounters, Order};
use super::fates::Fates;
use super::forming;
use super::lan::Lan;
use crate::consensus::Message;
use crate::formation::{Fingerprint, Identity};
use crate::ids::{LogIndex, MemberId, PublicKey, Run};
use crate::limits::QUESTIONS_WAITING_MAX;
use crate::mvcc::Facts;
use crate::node::{Applicants, Roster, TransferMessage};
use crate::peer::{Event, Options, Peer, RefusalKind, RefusedBy, StartError, Transport, Trust};
use crate::prng::Prng;
use crate::runtime::clock::Clock;
use crate::runtime::listening::UdpPort;
use crate::runtime::{Handle, PeerLink, ServeError};
use crate::store::Member;
use crate::telemetry::metrics::PeerTraffic;
use crate::time::Instant;

/// After so long without a leader the members are asked who else there is, and after so long without an answer the next one is.
const LEADERLESS: Duration = Duration::from_secs(2);

/// The pause before the members' port is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What it takes to talk to the other members.
pub(super) struct Members {
    pub(super) handle: Handle,
    pub(super) identity: Identity,
    /// Where this member listens for them.
    pub(super) listen: UdpPort,
    pub(super) clock: Clock,
    pub(super) prng: Prng,
    /// Who is listened to that is in no cluster yet; none: nobody.
    pub(super) trust: Option<Trust>,
    /// Where others may be, if nodes find each other; what is answered to those that have no cluster; and what operators order about other clusters.
    pub(super) found: Option<(Arc<Lan>, Desk, Receiver<Order>)>,
}

impl Members {
    fn start(&mut self) -> Result<Peers, StartError> {
        let Self { handle, identity, listen, clock, prng, trust, found } = self;
        let forming = trust.clone().map(|trust| match found {
            Some((_, desk, _)) => (Trust { tokens: Some(desk.tokens()), ..trust }, desk.clone().answerer()),
            None => (trust, forming::answerer(identity, handle)),
        });
        let found = found.as_ref().map(|(lan, desk, _)| (Arc::clone(lan), desk.clone()));
        let (identity, prng) = (identity.clone(), prng.fork());
        let options = Options { identity, listen: listen.clone(), prng, clock: *clock, forming };
        Peers::start(options, handle, found)
    }

    /// Connects with the other members once there are any, until it is dropped. A node that is alone leaves the port to others, unless they are to find it.
    pub(super) async fn talk(mut self, executor: Rc<LocalExecutor<'static>>) {
        while self.found.is_none() {
            let changed = self.handle.members_changed();
            if self.handle.view().facts().members.len() > 1 {
                break;
            }
            changed.await;
        }
        let peers = loop {
            match self.start() {
                Ok(peers) => break peers,
                Err(error) => tracing::error!(error = %super::chain(&error), "cannot talk to other members"),
            }
            Timer::after(LISTEN_AGAIN).await;
        };
        tracing::info!(addresses = %self.listen, "listening for members");
        let transport = Arc::clone(&peers.transport);
        let meeting = async {
            match self.found {
                Some((lan, desk, orders)) => {
                    let fates = Fates {
                        transport: Arc::clone(&transport),
                        desk: desk.clone(),
                        lan: Arc::clone(&lan),
                    };
                    let encounters = Encounters { transport, desk, lan };
                    or(or(encounters.look_out(), encounters.obey(orders)), fates.decided()).await;
                    // The node stops.
                    std::future::pending::<()>().await;
                }
                None => std::future::pending().await,
            }
        };
        or(or(peers.follow(), peers.answer(&executor)), meeting).await;
    }
}

/// Something that a member asks.
struct Asked {
    from: MemberId,
    number: u64,
    question: Bytes,
}

/// The node's connections with the other members. Dropped, they end.
struct Peers {
    transport: Arc<Transport>,
    handle: Handle,
    asked: Receiver<Asked>,
    lan: Option<Arc<Lan>>,
    /// Who waits there.
    desk: Option<Desk>,
}

/// The node's way out. It does not keep the transport alive, which brings what comes to the node.
struct Link(Weak<Transport>);

impl PeerLink for Link {
    fn send(&self, messages: Vec<Message>) {
        if let Some(transport) = self.0.upgrade() {
            transport.send(messages);
        }
    }

    fn transfer(&self, to: MemberId, message: TransferMessage) {
        if let Some(transport) = self.0.upgrade() {
            transport.send_parcel(to, message.encode());
        }
    }

    fn ask(&self, to: MemberId, number: u64, question: Bytes) -> bool {
        self.0.upgrade().is_some_and(|transport| transport.ask(to, number, question))
    }

    fn answer(&self, to: MemberId, number: u64, answer: Bytes) {
        if let Some(transport) = self.0.upgrade() {
            transport.answer(to, number, answer);
        }
    }

    fn traffic(&self) -> Vec<PeerTraffic> {
        self.0.upgrade().map(|transport| transport.traffic()).unwrap_or_default()
    }

    fn connected(&self) -> BTreeMap<MemberId, Instant> {
        self.0.upgrade().map(|transport| transport.connected()).unwrap_or_default()
    }
}

impl Peers {
    /// Binds the port and lets members connect whom the state names.
    fn start(options: Options, handle: &Handle, found: Option<(Arc<Lan>, Desk)>) -> Result<Self, StartError> {
        let (asks, asked) = smol::channel::bounded(QUESTIONS_WAITING_MAX);
        let for_events = handle.clone();
        let events = Arc::new(move |event| take(&for_events, &asks, event));
        let transport = Arc::new(Transport::start(options, events)?);
        handle.connect_peers(Arc::new(Link(Arc::downgrade(&transport))));
        let (lan, desk) = found.unzip();
        Ok(Self { transport, handle: handle.clone(), asked, lan, desk })
    }

    /// Keeps the transport's members equal to those of the state, until it is dropped. Without a leader, also those that members know of.
    ///
    /// Whose key counts is known at once; where names lead follows when the resolver has answered.
    async fn follow(&self) {
        let (mut shown, mut roster) = (BTreeMap::new(), Roster::default());
        let mut addresses = Addresses::new(self.handle.clone());
        loop {
            let changed = or(self.handle.members_changed(), self.lan_changed());
            // A view that is held keeps the store's old pages, so that it goes before the wait.
            let urls = {
                let view = self.handle.view();
                let newer = (roster.applied > view.applied()).then_some(&roster.facts);
                let places = places(view.facts(), newer);
                // First of all, so that who is cut off now is told why.
                let gone = view.facts().removed.iter().filter_map(|(id, key)| Some(((*key)?, *id)));
                self.transport.set_removed(gone.collect());
                let heard = self.lan.as_ref().map(|lan| lan.places()).unwrap_or_default();
                let peers = peers_at(&places, &addresses, &heard);
                if peers != shown {
                    self.transport.set_peers(peers.clone());
                    shown = peers;
                }
                places.values().flat_map(|place| place.urls).cloned().collect()
            };
            let lost = async {
                roster = self.newer_roster(roster.applied, shown.keys().copied()).await;
            };
            or(or(changed, addresses.news(urls)), lost).await;
        }
    }

    fn lan_changed(&self) -> impl Future<Output = ()> + use<> {
        let changed = self.lan.as_ref().map(|lan| lan.changed());
        async move {
            match changed {
                Some(changed) => changed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until there has been no leader for a while and a member knows a newer roster than the one before, which `held` is of, and than this
    /// one's state is.
    async fn newer_roster(&self, held: LogIndex, members: impl Iterator<Item = MemberId> + Clone) -> Roster {
        loop {
            let changed = self.handle.leader_changed();
            if self.handle.status().leader.is_some() {
                changed.await;
                continue;
            }
            Timer::after(LEADERLESS).await;
            if self.handle.status().leader.is_some() {
                continue;
            }
            for member in members.clone() {
                let late = async {
                    Timer::after(LEADERLESS).await;
                    Err(ServeError::TimedOut)
                };
                match or(self.handle.ask_roster(member), late).await {
                    Ok(roster) if is_news(&roster, held, self.handle.view().applied()) => return roster,
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }

    /// Answers what members ask, until it is dropped.
    async fn answer(&self, executor: &LocalExecutor<'static>) {
        while let Ok(Asked { from, number, question }) = self.asked.recv().await {
            if Applicants::is_asked_by(&question) {
                let applicants = self.desk.as_ref().map(Desk::applicants).unwrap_or_default();
                self.transport.answer(from, number, applicants.encode());
                continue;
            }
            let handle = self.handle.clone();
            executor.spawn(async move { handle.answer_question(from, number, question).await }).detach();
        }
    }
}

/// Hands on what comes, on the transport's thread.
fn take(handle: &Handle, asks: &Sender<Asked>, event: Event) {
    match event {
        Event::Messages(received) => {
            let (messages, hold) = received.into_parts();
            handle.peer_messages(messages, Box::new(hold));
        }
        Event::Unreachable(member) => handle.peer_unreachable(member),
        Event::Parcel { from, body, hold } => match TransferMessage::decode(body) {
            Ok(message) => handle.peer_transfer(from, message, Box::new(hold)),
            Err(error) => tracing::warn!(%from, %error, "dropped what a member sent"),
        },
        // Who asks more than can be looked at asks again.
        Event::Question { from, number, body } => drop(asks.try_send(Asked { from, number, question: body })),
        Event::Answer { from, number, body } => handle.peer_answer(from, number, body),
        // Only a member's word counts: whoever was removed, or never was one, says what it likes.
        Event::Refused { member: Some(_), by, why, .. } => match (by, why.kind) {
            (RefusedBy::Them, RefusalKind::Removed) => handle.peer_says_removed(),
            (RefusedBy::Them, RefusalKind::OldRun) | (RefusedBy::Us, RefusalKind::Fenced) => {
                handle.peer_says_fenced();
            }
            _ => {}
        },
        // The transport has logged both.
        Event::Connected { .. } | Event::Refused { .. } => {}
    }
}

/// An answer that is older than the one before would lose members that were found since.
fn is_news(told: &Roster, held: LogIndex, applied: LogIndex) -> bool {
    told.applied > held.max(applied)
}

/// What the state, or a roster, says of somebody who takes part.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    key: PublicKey,
    urls: &'a [String],
    seen: Option<Run>,
}

/// Everybody who takes part by what this member's state says or by what is newer, which is right where they differ.
fn places<'a>(facts: &'a Facts, newer: Option<&'a Facts>) -> BTreeMap<MemberId, Place<'a>> {
    let mut places: BTreeMap<MemberId, Place<'_>> = places_of(facts).collect();
    for (id, mut place) in newer.into_iter().flat_map(places_of) {
        // Of one that leaves the newer facts do not say where it is.
        if let Some(before) =
            places.remove(&id).filter(|before| place.urls.is_empty() && before.key == place.key)
        {
            place = before;
        }
        places.insert(id, place);
    }
    places
}

/// Of those that were removed and still take part nobody knows any more where they are; they know where the others are.
fn places_of(facts: &Facts) -> impl Iterator<Item = (MemberId, Place<'_>)> {
    facts.keys().map(|(id, key)| {
        let member = facts.members.iter().find(|member| member.id() == id);
        let urls = member.map(|member| &member.attributes.peer_urls[..]).unwrap_or_default();
        (id, Place { key, urls, seen: member.and_then(Member::run) })
    })
}

/// What the transport has to know of them. What the state says may be where they were before, and what was heard may be anybody's word.
fn peers_at(
    places: &BTreeMap<MemberId, Place<'_>>,
    addresses: &Addresses,
    heard: &BTreeMap<Fingerprint, Vec<SocketAddr>>,
) -> BTreeMap<MemberId, Peer> {
    let peer = |(id, place): (&MemberId, &Place<'_>)| {
        let heard = heard.get(&Fingerprint::of(&place.key)).cloned().unwrap_or_default();
        let addresses = place.urls.iter().flat_map(|url| addresses.of(url)).collect();
        (*id, Peer { key: place.key, addresses, heard, seen: place.seen })
    };
    places.iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::MemberAttributes;
    use crate::store::ConfState;

    const OLD: &str = "https://10.0.0.1:2380";
    const NEW: &str = "https://10.0.0.2:2380";

    fn member(id: u64, url: &str, incarnation: u64) -> Member {
        let attributes = MemberAttributes {
            member: MemberId(id),
            peer_urls: vec![url.to_owned()],
            incarnation,
            boot_nonce: incarnation,
            ..MemberAttributes::default()
        };
        Member { key: Some(key(id)), votes: true, attributes }
    }

    fn key(id: u64) -> PublicKey {
        PublicKey([u8::try_from(id).unwrap(); 32])
    }

    fn shown(places: &BTreeMap<MemberId, Place<'_>>) -> Vec<(u64, PublicKey, Vec<String>, u64)> {
        let row = |(id, place): (&MemberId, &Place<'_>)| {
            (id.0, place.key, place.urls.to_vec(), place.seen.map_or(0, |run| run.incarnation.0))
        };
        places.iter().map(row).collect()
    }

    /// A member has moved and started anew while this one was away: found at its old address it would never be, and a run that it has left behind
    /// would be taken for its latest.
    #[test]
    fn what_is_newer_is_right_and_nobody_is_lost() {
        let facts = Facts { members: vec![member(2, OLD, 1), member(3, OLD, 1)], ..Facts::default() };
        let mut newer = Facts { members: vec![member(2, NEW, 4), member(4, NEW, 1)], ..Facts::default() };
        let (old, new) = (vec![OLD.to_owned()], vec![NEW.to_owned()]);
        let two = (2, key(2), old.clone(), 1);
        let three = (3, key(3), old, 1);
        assert_eq!(shown(&places(&facts, None)), [two, three.clone()]);
        let (two, four) = ((2, key(2), new.clone(), 4), (4, key(4), new, 1));
        assert_eq!(shown(&places(&facts, Some(&newer))), [two.clone(), three.clone(), four.clone()]);
        // Removed, and it may still take its vote to let it go.
        newer.removed = vec![(MemberId(5), Some(key(5))), (MemberId(6), Some(key(6)))];
        newer.conf_state = ConfState { voters: vec![MemberId(5)], ..ConfState::default() };
        let five = (5, key(5), vec![], 0);
        assert_eq!(shown(&places(&facts, Some(&newer))), [two.clone(), three.clone(), four.clone(), five]);
        // Where it was, as long as nobody says otherwise.
        let known = Facts { members: [&facts.members[..], &[member(5, OLD, 3)]].concat(), ..facts };
        let five = (5, key(5), vec![OLD.to_owned()], 3);
        assert_eq!(shown(&places(&known, Some(&newer))), [two, three, four, five]);
    }

    #[test]
    fn a_roster_is_never_replaced_by_an_older_one() {
        let told = Roster { applied: LogIndex(7), ..Roster::default() };
        for (held, applied, expected) in
            [(0, 6, true), (6, 5, true), (7, 5, false), (8, 5, false), (0, 7, false)]
        {
            assert_eq!(is_news(&told, LogIndex(held), LogIndex(applied)), expected, "{held} {applied}");
        }
    }
}
