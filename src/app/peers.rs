//! The transport between members, joined to the node: what the state says of the members out, what they say in.
//!
//! Owns: whom the transport trusts and where it looks for them. Must never: trust a key that the state does not name. Driven by `serve`.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use smol::channel::{Receiver, Sender};
use smol::{LocalExecutor, Timer};

use super::forming;
use crate::config::Url;
use crate::consensus::Message;
use crate::formation::Identity;
use crate::ids::{LogIndex, MemberId};
use crate::limits::QUESTIONS_WAITING_MAX;
use crate::mvcc::Facts;
use crate::node::{Roster, TransferMessage};
use crate::peer::{Event, Options, Peer, RefusalKind, RefusedBy, StartError, Transport, Trust};
use crate::prng::Prng;
use crate::runtime::clock::Clock;
use crate::runtime::{Handle, PeerLink, ServeError};
use crate::store::Member;

/// How often names in peer URLs are looked up again: their addresses may change, and a name may not resolve yet.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);

/// After so long without a leader the members are asked who else there is, and after so long without an answer the next one is.
const LEADERLESS: Duration = Duration::from_secs(2);

/// The pause before the members' port is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What it takes to talk to the other members.
pub(super) struct Members {
    pub(super) handle: Handle,
    pub(super) identity: Identity,
    /// Where this member listens for them.
    pub(super) listen: SocketAddr,
    pub(super) clock: Clock,
    pub(super) prng: Prng,
    /// Who is listened to that is in no cluster yet; none: nobody.
    pub(super) trust: Option<Trust>,
}

impl Members {
    fn start(&mut self) -> Result<Peers, StartError> {
        let Self { handle, identity, listen, clock, prng, trust } = self;
        let forming = trust.clone().map(|trust| (trust, forming::answerer(identity, handle)));
        let (identity, prng) = (identity.clone(), prng.fork());
        Peers::start(Options { identity, listen: *listen, prng, clock: *clock, forming }, handle)
    }

    /// Connects with the other members once there are any, until it is dropped. A node that is alone leaves the port to others.
    pub(super) async fn talk(mut self, executor: Rc<LocalExecutor<'static>>) {
        loop {
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
        tracing::info!(address = %self.listen, "listening for members");
        smol::future::or(peers.follow(), peers.answer(&executor)).await;
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
}

impl Peers {
    /// Binds the port and lets members connect whom the state names.
    fn start(options: Options, handle: &Handle) -> Result<Self, StartError> {
        let (asks, asked) = smol::channel::bounded(QUESTIONS_WAITING_MAX);
        let for_events = handle.clone();
        let events = Arc::new(move |event| take(&for_events, &asks, event));
        let transport = Arc::new(Transport::start(options, events)?);
        handle.connect_peers(Arc::new(Link(Arc::downgrade(&transport))));
        Ok(Self { transport, handle: handle.clone(), asked })
    }

    /// Keeps the transport's members equal to those of the state, until it is dropped. Without a leader, also those that members know of.
    async fn follow(&self) {
        let (mut shown, mut roster) = (BTreeMap::new(), Roster::default());
        loop {
            let changed = self.handle.members_changed();
            let view = self.handle.view();
            let facts = view.facts().clone();
            let newer = (roster.applied > view.applied()).then(|| roster.facts.clone());
            let has_names = facts.members.iter().any(|member| !addresses_are_literal(member));
            let peers = self.handle.blocking(move || {
                let mut peers = peers_of(&facts);
                peers.extend(newer.as_ref().map(peers_of).unwrap_or_default());
                peers
            });
            let peers = peers.await;
            let gone = view.facts().removed.iter().filter_map(|(id, key)| Some(((*key)?, *id)));
            self.transport.set_removed(gone.collect());
            if peers != shown {
                self.transport.set_peers(peers.clone());
                shown = peers;
            }
            let lost = async {
                roster = self.newer_roster(roster.applied, shown.keys().copied()).await;
            };
            let look_again = async {
                if has_names {
                    Timer::after(LOOK_UP_AGAIN).await;
                } else {
                    smol::future::pending::<()>().await;
                }
            };
            smol::future::or(smol::future::or(changed, look_again), lost).await;
        }
    }

    /// Waits until there has been no leader for a while and a member knows a newer roster than the one before, which `held` is of, and than this
    /// one's state is.
    async fn newer_roster(&self, held: LogIndex, members: impl Iterator<Item = MemberId> + Clone) -> Roster {
        loop {
            Timer::after(LEADERLESS).await;
            if self.handle.status().leader.is_some() {
                continue;
            }
            for member in members.clone() {
                let late = async {
                    Timer::after(LEADERLESS).await;
                    Err(ServeError::TimedOut)
                };
                match smol::future::or(self.handle.ask_roster(member), late).await {
                    Ok(roster) if is_news(&roster, held, self.handle.view().applied()) => return roster,
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }

    /// Answers what members ask, until it is dropped.
    async fn answer(&self, executor: &LocalExecutor<'static>) {
        while let Ok(Asked { from, number, question }) = self.asked.recv().await {
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
        Event::Refused { by: RefusedBy::Them, why, .. } if why.kind == RefusalKind::Removed => {
            handle.peer_says_removed();
        }
        Event::Refused { by: RefusedBy::Them, why, .. } if why.kind == RefusalKind::OldRun => {
            handle.peer_says_fenced();
        }
        Event::Refused { by: RefusedBy::Us, why, .. } if why.kind == RefusalKind::Fenced => {
            handle.peer_says_fenced();
        }
        // The transport has logged both.
        Event::Connected { .. } | Event::Refused { .. } => {}
    }
}

/// An answer that is older than the one before would lose members that were found since.
fn is_news(told: &Roster, held: LogIndex, applied: LogIndex) -> bool {
    told.applied > held.max(applied)
}

fn addresses_are_literal(member: &Member) -> bool {
    let is_literal =
        |url: &String| Url::parse(url).is_ok_and(|url| url.host.parse::<std::net::IpAddr>().is_ok());
    member.attributes.peer_urls.iter().all(is_literal)
}

/// What the transport has to know of the members. Waits for the resolver.
///
/// Of those that were removed and still take part nobody knows any more where they are; they know where the others are.
fn peers_of(facts: &Facts) -> BTreeMap<MemberId, Peer> {
    let peer = |(id, key)| {
        let member = facts.members.iter().find(|member| member.id() == id);
        let urls = member.iter().flat_map(|member| &member.attributes.peer_urls);
        let addresses = urls.flat_map(|url| addresses_of(url)).collect();
        (id, Peer { key, addresses, seen: member.and_then(Member::run) })
    };
    facts.keys().map(peer).collect()
}

fn addresses_of(url: &str) -> Vec<SocketAddr> {
    let Ok(url) = Url::parse(url) else { return Vec::new() };
    // A name that does not resolve now may do so later.
    (url.host.as_str(), url.port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
