//! TLS for clients in a cluster that issues its certificates itself: the authority in its state, and what follows from it on this box.
//!
//! Owns: when the authority comes into being, when another one takes its place, and when certificates are made anew. Must never: let the authority's key out
//! of the state, or make another one while somebody who was removed still hears of it. Driven by `serve`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use smol::Timer;
use smol::future::or;

use super::lan::Lan;
use crate::api;
use crate::command::{self, CharterCommand, ClientKey};
use crate::ids::{ClusterId, Term};
use crate::limits::AUTHORITY_OVERLAP_SECONDS;
use crate::mvcc::Facts;
use crate::runtime::Handle;
use crate::store::Charter;
use crate::tls::{
    Authority, AuthorityError, ClusterTls, IsIssued, NewAuthority, Protocol, ServerNames, Successor,
};

/// How often a cluster without an authority, or with one that is to be replaced, is looked at: somebody may have come to lead meanwhile, and who was removed
/// may have left.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// When the log says of a client that it is to be renewed: at once, for so many seconds before it is too late, and when it is.
const REMINDERS: [u64; 4] = [AUTHORITY_OVERLAP_SECONDS, 7 * 24 * 60 * 60, 24 * 60 * 60, 0];

/// See the module.
pub(super) struct Certificates {
    handle: Handle,
    lan: Arc<Lan>,
    cluster: ClusterId,
    /// What the box is called.
    host: String,
    protocol: Protocol,
    tls: OnceLock<ClusterTls>,
}

impl Certificates {
    pub(super) fn new(
        handle: Handle,
        lan: Arc<Lan>,
        cluster: ClusterId,
        host: String,
        protocol: Protocol,
    ) -> Arc<Self> {
        Arc::new(Self { handle, lan, cluster, host, protocol, tls: OnceLock::new() })
    }

    /// The configuration for each handshake, once there is an authority.
    pub(super) fn source(self: &Arc<Self>) -> api::TlsSource {
        let certificates = Arc::clone(self);
        Arc::new(move || certificates.tls.get().map(ClusterTls::current))
    }

    /// Who may stay of those who came through it.
    pub(super) fn admit(self: &Arc<Self>) -> api::Admit {
        let certificates = Arc::clone(self);
        Arc::new(move |shown| {
            let stay = certificates.tls.get()?.clients().admit(shown)?;
            Some(Box::pin(stay))
        })
    }

    /// Keeps what clients see in step with the state and with the box's addresses, until it is dropped.
    pub(super) async fn keep(&self) {
        let mut reminders = 0;
        loop {
            let changed = or(self.handle.charter_changed(), self.lan.changed());
            let charter = Arc::clone(&self.handle.view().facts().charter);
            if let Some(Err(error)) = authority_of(&charter).map(|authority| self.follow(authority)) {
                tracing::error!(%error, "clients on other boxes cannot be served: there is no certificate to show them");
            }
            remind(&charter, &mut reminders);
            if charter.authority.is_some() && charter.authority_is_due().is_none() {
                changed.await;
                continue;
            }
            if let Err(error) = self.provide().await {
                tracing::error!(%error, "cannot make an authority for clients");
            }
            let later = async {
                Timer::after(LOOK_AGAIN).await;
            };
            or(changed, later).await;
        }
    }

    /// Has the log take what is due where this member leads. Of two authorities that two leaders make the first one in the log counts.
    async fn provide(&self) -> Result<(), AuthorityError> {
        // Before the state: what it says then, this leader of this term has acted on.
        let status = self.handle.status();
        if !status.leads() {
            return Ok(());
        }
        let Some(command) = due(self.handle.view().facts(), self.cluster, status.term)? else {
            return Ok(());
        };
        if let Err(error) = self.handle.change_charter(command).await {
            tracing::debug!(%error, "there can be no other authority for clients yet");
        }
        Ok(())
    }

    fn follow(&self, authority: Result<Authority, AuthorityError>) -> Result<(), AuthorityError> {
        let names = ServerNames::of_machine(&self.host, self.lan.addresses());
        let handle = self.handle.clone();
        let is_issued = move |key: &[u8; 32]| handle.view().facts().charter.client(ClientKey(*key)).is_some();
        follow(&self.tls, authority, names, Arc::new(is_issued), &self.protocol)
    }
}

/// The cluster's authority, or the one that takes its place, made by the leader of `term`, if it is time for that.
fn due(facts: &Facts, cluster: ClusterId, term: Term) -> Result<Option<CharterCommand>, AuthorityError> {
    let charter = &facts.charter;
    let Some(authority) = authority_of(charter) else {
        return Ok(Some(CharterCommand::Establish(kept(Authority::generate(cluster)?))));
    };
    let Some(exposed) = charter.authority_is_due().filter(|_| facts.all_have_left()) else {
        return Ok(None);
    };
    let Successor { authority, bridge_der } = authority?.succeed()?;
    let (authority, bridge) = (kept(authority), Bytes::from(bridge_der));
    Ok(Some(CharterCommand::ReplaceAuthority { term, exposed, authority, bridge }))
}

/// Keeps what clients see in step; only one task does.
fn follow(
    tls: &OnceLock<ClusterTls>,
    authority: Result<Authority, AuthorityError>,
    names: ServerNames,
    is_issued: IsIssued,
    protocol: &Protocol,
) -> Result<(), AuthorityError> {
    // First of all, whatever becomes of the certificate.
    if let Some(tls) = tls.get() {
        tls.clients().review();
    }
    let authority = authority?;
    if let Some(tls) = tls.get() {
        return tls.update(&authority, names);
    }
    let _ = tls.set(ClusterTls::new(&authority, names, is_issued, protocol.clone())?);
    Ok(())
}

/// The authority of a cluster that has one, with what leads to it.
fn authority_of(charter: &Charter) -> Option<Result<Authority, AuthorityError>> {
    let command::Authority { certificate, key } = charter.authority.as_ref()?;
    let bridges = charter.bridges.iter().rev().map(|bridge| &bridge.certificate[..]);
    Some(Authority::load(certificate, key).map(|authority| authority.reached_by(bridges)))
}

fn kept(made: NewAuthority) -> command::Authority {
    command::Authority { certificate: made.certificate_der.into(), key: made.key_pkcs8.into() }
}

/// Says in the log that clients are to be renewed, whenever that has become more urgent for one of them.
fn remind(charter: &Charter, said: &mut usize) {
    let due = |left: u64| REMINDERS.iter().filter(|from| left <= **from).count();
    let (mut outdated, mut lost, mut reminders) = (0, 0, 0);
    let mut soonest = u64::MAX;
    for (_, left) in charter.outdated() {
        reminders += due(left);
        if left == 0 {
            lost += 1;
        } else {
            outdated += 1;
            soonest = soonest.min(left);
        }
    }
    if reminders > *said {
        let hours = if outdated == 0 { 0 } else { soonest / 3600 };
        tracing::warn!(
            outdated,
            hours,
            lost,
            "clients know servers by an authority that was replaced when a member was removed, for so many hours of running time, or no longer: covey client renew gives them the new one"
        );
    }
    *said = reminders;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use smol::future::{block_on, poll_once};

    use super::*;
    use crate::command::MemberAttributes;
    use crate::ids::{LogIndex, MemberId};
    use crate::store::{Bridge, Client, ConfState, Member};

    /// Who was removed and is still sent the log would have the new key as well.
    #[test]
    fn an_authority_is_replaced_once_nobody_takes_part_who_is_no_member() {
        let due = |facts: &Facts| due(facts, ClusterId(1), Term(5)).unwrap();
        let made = Authority::generate(ClusterId(1)).unwrap();
        let charter = Charter { authority: Some(kept(made)), ..Charter::default() };
        let attributes = MemberAttributes { member: MemberId(1), ..MemberAttributes::default() };
        let mut facts = Facts {
            members: vec![Member { key: None, votes: true, attributes }],
            conf_state: ConfState { voters: vec![MemberId(1)], ..ConfState::default() },
            ..Facts::default()
        };
        assert!(matches!(due(&facts), Some(CharterCommand::Establish(_))));
        facts.charter = Arc::new(charter.clone());
        assert_eq!(due(&facts), None, "nobody was removed");
        facts.charter = Arc::new(Charter { exposed: Some(LogIndex(9)), ..charter });
        facts.conf_state.learners = vec![MemberId(2)];
        assert_eq!(due(&facts), None, "who was removed still listens");
        (facts.conf_state.learners, facts.conf_state.voters_outgoing) = (Vec::new(), vec![MemberId(2)]);
        assert_eq!(due(&facts), None, "its vote is still asked for");
        facts.conf_state.voters_outgoing.clear();
        let Some(CharterCommand::ReplaceAuthority { term, exposed, .. }) = due(&facts) else { panic!() };
        assert_eq!((term, exposed), (Term(5), LogIndex(9)));
    }

    /// A client that was revoked must be gone whether or not there is a certificate to show to the others.
    #[test]
    fn who_was_revoked_is_cut_off_at_the_next_change_whatever_becomes_of_the_certificate() {
        let made = Authority::generate(ClusterId(1)).unwrap();
        let authority = || Authority::load(&made.certificate_der, &made.key_pkcs8);
        let issued = authority().unwrap().issue_client("a").unwrap();
        let shown = [CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
        for fails in [false, true] {
            let (tls, counts) = (OnceLock::new(), Arc::new(AtomicBool::new(true)));
            let flag = Arc::clone(&counts);
            let is_issued: IsIssued = Arc::new(move |_| flag.load(Relaxed));
            let follows = |authority| {
                follow(&tls, authority, ServerNames::default(), Arc::clone(&is_issued), &Protocol::default())
            };
            follows(authority()).unwrap();
            let mut ends = Box::pin(tls.get().unwrap().clients().admit(&shown).unwrap());
            follows(authority()).unwrap();
            assert!(block_on(poll_once(&mut ends)).is_none());
            counts.store(false, Relaxed);
            let outcome = follows(if fails { Err(AuthorityError::Mismatch) } else { authority() });
            assert_eq!(outcome.is_err(), fails);
            assert!(block_on(poll_once(&mut ends)).is_some(), "{fails}");
        }
    }

    /// Who trusts an older one finds the way from the last to the first: what leads to the newest comes first.
    #[test]
    fn the_authority_of_a_charter_is_reached_by_its_bridges_the_newest_first() {
        assert!(authority_of(&Charter::default()).is_none());
        let first = Authority::generate(ClusterId(1)).unwrap();
        let (mut last, mut bridges) = (first, Vec::new());
        for ends in [1, 2] {
            let before = Authority::load(&last.certificate_der, &last.key_pkcs8).unwrap();
            let Successor { authority, bridge_der } = before.succeed().unwrap();
            bridges.push(Bridge { certificate: bridge_der.into(), ends });
            last = authority;
        }
        let shown: Vec<Bytes> = bridges.iter().rev().map(|bridge| bridge.certificate.clone()).collect();
        let charter = Charter { authority: Some(kept(last)), bridges, ..Charter::default() };
        let authority = authority_of(&charter).unwrap().unwrap();
        let key = crate::tls::ServerKey::generate().unwrap();
        let chain = authority.issue_server(&key, &ServerNames::default()).unwrap();
        assert_eq!(chain[1..].iter().map(|der| Bytes::copy_from_slice(der)).collect::<Vec<_>>(), shown);
    }

    #[test]
    fn the_log_says_of_each_client_once_for_each_time_that_it_is_to_be_renewed() {
        let client = |n, edition| Client { key: ClientKey([n; 32]), name: String::new(), issued: 0, edition };
        let bridge = Bridge { certificate: Bytes::new(), ends: AUTHORITY_OVERLAP_SECONDS };
        let clients = vec![client(1, 0), client(2, 0), client(3, 1)];
        let mut charter = Charter { edition: 1, bridges: vec![bridge], clients, ..Charter::default() };
        let mut said = 0;
        let day = 24 * 60 * 60;
        for (elapsed, reminders) in [(0, 2), (22 * day, 2), (23 * day, 4), (29 * day, 6), (30 * day, 8)] {
            charter.elapsed = elapsed;
            charter.bridges.retain(|bridge| bridge.ends > elapsed);
            remind(&charter, &mut said);
            assert_eq!(said, reminders, "{elapsed}");
        }
        charter.clients[0].edition = 1;
        remind(&charter, &mut said);
        assert_eq!(said, 4, "who was renewed makes room for the next one that has to be");
    }
}
