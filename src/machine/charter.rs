//! What commands about the charter do to the state.
//!
//! Owns: who may come in, by what and for how long; until when the cluster may dissolve. Must never: believe more of a proposer than it alone can know: that a
//! node has proven to hold something, and how much time has gone by. Part of [`Machine`].

use std::sync::Arc;

use bytes::Bytes;

use super::Machine;
use crate::command::{
    Admission, Authority, CharterCommand, ClientKey, CommandVersion, MemberAttributes, Outcome, Rejection,
    TokenId, TokenKey, Tombstone,
};
use crate::ids::{ClusterId, Incarnation, LogIndex, MemberId, PublicKey, Term};
use crate::limits::{
    ADMISSION_SECONDS_MIN, ADMITTED_MEMBERS_MAX, APPROVALS_MAX, AUTHORITY_BYTES_MAX,
    AUTHORITY_OVERLAP_SECONDS, AWAITED_SECONDS, CLIENT_NAME_BYTES_MAX, CLIENTS_MAX, FOUNDING_WINDOW_SECONDS,
    FOUNDING_WINDOW_SECONDS_MAX, NODE_NAME_BYTES_MAX, NODE_URLS_MAX, PEER_URL_BYTES_MAX, TOKEN_KEPT_SECONDS,
    TOKEN_SECONDS_MAX, TOKENS_MAX, TOMBSTONES_MAX, WINDOW_SECONDS_MAX,
};
use crate::mvcc::Facts;
use crate::store::{Awaited, Bridge, Charter, Client, Dissolution, Member, Token, Window};

impl Machine {
    pub(super) fn execute_charter(&mut self, command: &CharterCommand) -> Result<Outcome, Rejection> {
        match command {
            CharterCommand::Admit { key, name, peer_urls, by, run, of } => {
                let id = self.admit(*key, name, peer_urls, *by, *run)?;
                self.wait_longer(id, *of);
                return Ok(Outcome::Member(id));
            }
            CharterCommand::Forget { member } => self.forget(*member)?,
            CharterCommand::Elapsed { to } => self.elapse(*to),
            CharterCommand::OpenWindow { seconds } => self.open_window(*seconds)?,
            CharterCommand::Seal => self.seal(),
            CharterCommand::Approve { fingerprint } => self.approve(*fingerprint)?,
            CharterCommand::CreateToken { id, key, seconds } => self.create_token(*id, *key, *seconds)?,
            CharterCommand::RevokeToken { id } => self.revoke_token(*id)?,
            CharterCommand::Establish(authority) => self.establish(authority)?,
            CharterCommand::ReplaceAuthority { term, exposed, authority, bridge } => {
                self.replace_authority(*term, *exposed, authority, bridge)?;
            }
            CharterCommand::IssueClient { key, name } => self.issue_client(*key, name)?,
            CharterCommand::RevokeClient { key } => self.revoke_client(*key)?,
            CharterCommand::RenewClient { key } => self.renew_client(*key)?,
            CharterCommand::Dissolve { winner } => self.dissolve(*winner)?,
            CharterCommand::Yield { winner, witness, asked } => {
                self.give_up_for(*winner, *witness, *asked)?;
            }
            CharterCommand::Bury(tombstone) => self.bury(tombstone)?,
            CharterCommand::BurySigned { tombstone, ordered } => self.bury_signed(tombstone, *ordered),
        }
        Ok(Outcome::Charter)
    }

    /// Nothing takes effect in a cluster that has dissolved; only that it does may be said again.
    pub(super) fn check_dissolved(&self, command: Option<&CharterCommand>) -> Result<(), Rejection> {
        let said = match command {
            Some(CharterCommand::Dissolve { winner } | CharterCommand::Yield { winner, .. }) => Some(*winner),
            _ => None,
        };
        match self.charter().dissolved {
            Some(Dissolution { winner, .. }) if said != Some(winner) => Err(Rejection::Dissolved),
            _ => Ok(()),
        }
    }

    /// What a user, or an operator, has asked for has taken effect. What was turned down commits nobody to anything: it left nothing behind that
    /// could be missed in another cluster.
    pub(super) fn commit_charter(&mut self) {
        if !self.charter().committed {
            self.edit_charter(|charter| charter.committed = true);
        }
    }

    /// A member was removed: what might have let its key in is void, and what it may know is to be replaced. A token that it came in with stays used.
    pub(super) fn bar(&mut self, key: PublicKey) {
        let (fingerprint, at) = (key.fingerprint(), self.applied());
        self.edit_charter(|charter| {
            charter.approved.retain(|approved| *approved != fingerprint);
            charter.exposed = Some(at);
        });
    }

    fn charter(&self) -> &Charter {
        &self.tip.view().facts().charter
    }

    /// The digest knows of every change of the charter.
    fn edit_charter(&mut self, edit: impl FnOnce(&mut Charter)) {
        let charter = &mut self.tip.facts_mut().charter;
        edit(Arc::make_mut(charter));
        let charter = Arc::clone(charter);
        self.tip.digest_mut().charter(&charter);
    }

    fn admit(
        &mut self,
        key: PublicKey,
        name: &str,
        peer_urls: &[String],
        by: Admission,
        run: Incarnation,
    ) -> Result<MemberId, Rejection> {
        let facts = self.tip.view().facts();
        let known = facts.members.iter().find(|member| member.key == Some(key));
        // A later word than its asking says that it is this member: it asked before it was answered, or others asked for it.
        let has_left = |member: &Member| member.run().is_some_and(|last| last.incarnation < run);
        if let Some(member) = known.filter(|member| !has_left(member)) {
            return Ok(member.id());
        }
        let left = known.map(Member::id);
        let too_long = name.len() > NODE_NAME_BYTES_MAX
            || peer_urls.len() > NODE_URLS_MAX
            || peer_urls.iter().any(|url| url.len() > PEER_URL_BYTES_MAX);
        if too_long {
            return Err(Rejection::TooLong);
        }
        if left.is_none() {
            check_admission(facts, key, by)?;
        }
        // Where somebody else is said to be does not matter: addresses change hands, and a key is who it is. But a place may be kept for it.
        let kept = facts.members.iter().find(|place| place.key.is_none() && is_at(place, peer_urls));
        let kept = kept.map(Member::id);
        if let Some(left) = left {
            self.drop_member(left);
        }
        let id = if let Some(id) = kept {
            self.edit(id, |place| place.key = Some(key))
        } else {
            let (name, peer_urls) = (name.to_owned(), peer_urls.to_vec());
            let attributes = MemberAttributes { name, peer_urls, ..MemberAttributes::default() };
            self.add(Some(key), false, attributes)
        };
        // For whom an operator has said something, be it that a place is kept for it, is waited for ever, and so is who was a member before.
        let by_itself = matches!(by, Admission::Window | Admission::FleetKey);
        let is_awaited = by_itself && left.is_none() && kept.is_none();
        self.edit_charter(|charter| {
            if is_awaited {
                charter.awaited.push(Awaited { member: id, ends: 0, of: None });
            }
            // An approval is for one time, by whatever the node came in.
            let fingerprint = key.fingerprint();
            charter.approved.retain(|approved| *approved != fingerprint);
            match by {
                // Who was in comes in by nothing of these.
                _ if left.is_some() => {}
                Admission::Window => prolong(&mut charter.window, charter.elapsed),
                Admission::Token(id) => {
                    if let Some(token) = charter.tokens.iter_mut().find(|token| token.id == id) {
                        token.used_by = Some(key);
                    }
                }
                Admission::Approval | Admission::FleetKey => {}
            }
        });
        Ok(id)
    }

    /// A node that has just been let in, or has asked for it again, has all its time before it.
    fn wait_longer(&mut self, member: MemberId, of: Option<ClusterId>) {
        if self.charter().awaited.iter().any(|awaited| awaited.member == member) {
            self.edit_charter(|charter| {
                let ends = charter.elapsed.saturating_add(AWAITED_SECONDS);
                for awaited in charter.awaited.iter_mut().filter(|awaited| awaited.member == member) {
                    (awaited.ends, awaited.of) = (ends, of);
                }
            });
        }
    }

    /// A member has come, or is none any more.
    pub(super) fn wait_no_more(&mut self, member: MemberId) {
        if self.charter().awaited.iter().any(|awaited| awaited.member == member) {
            self.edit_charter(|charter| charter.awaited.retain(|awaited| awaited.member != member));
        }
    }

    /// It may have come meanwhile, or been given a vote.
    fn forget(&mut self, member: MemberId) -> Result<(), Rejection> {
        let facts = self.tip.view().facts();
        let listens = facts.members.iter().any(|known| known.id() == member && !known.votes);
        if !listens || !facts.charter.is_overdue(member) {
            return Err(Rejection::MemberNotFound);
        }
        self.drop_member(member);
        let at = self.applied();
        self.edit_charter(|charter| charter.forgot = at);
        Ok(())
    }

    fn elapse(&mut self, to: u64) {
        if to > self.charter().elapsed {
            let members = self.tip.view().facts().members.iter();
            let waits: Vec<PublicKey> =
                members.filter(|member| member.run().is_none()).filter_map(|member| member.key).collect();
            // Whoever was let in by it and has lost the answer knows the cluster by this alone.
            let is_kept = |token: &Token| {
                let ends = token.expires.saturating_add(TOKEN_KEPT_SECONDS);
                ends > to && token.used_by.is_some_and(|key| waits.contains(&key))
            };
            self.edit_charter(|charter| {
                charter.elapsed = to;
                charter.tokens.retain(|token| token.expires > to || is_kept(token));
                charter.bridges.retain(|bridge| bridge.ends > to);
            });
        }
    }

    fn open_window(&mut self, seconds: u64) -> Result<(), Rejection> {
        if !self.charter().automatic {
            return Err(Rejection::NotAutomatic);
        }
        let closes = self.end_of(seconds, WINDOW_SECONDS_MAX)?;
        let opened = self.charter().elapsed;
        self.edit_charter(|charter| charter.window = Window { opened, closes, grows: false });
        Ok(())
    }

    fn seal(&mut self) {
        let Charter { elapsed, .. } = *self.charter();
        if self.charter().is_open() {
            self.edit_charter(|charter| charter.window.closes = elapsed);
        }
    }

    fn approve(&mut self, fingerprint: [u8; 32]) -> Result<(), Rejection> {
        let facts = self.tip.view().facts();
        let mut keys = facts.members.iter().filter_map(|member| member.key);
        // Who is a member needs none, and would come in again by it after it was removed.
        let is_in = keys.any(|key| key.fingerprint() == fingerprint);
        if is_in || facts.charter.approved.contains(&fingerprint) {
            return Ok(());
        }
        if facts.charter.approved.len() >= APPROVALS_MAX {
            return Err(Rejection::TooManyApprovals);
        }
        self.edit_charter(|charter| charter.approved.push(fingerprint));
        Ok(())
    }

    fn create_token(&mut self, id: TokenId, key: TokenKey, seconds: u64) -> Result<(), Rejection> {
        let expires = self.end_of(seconds, TOKEN_SECONDS_MAX)?;
        let charter = self.charter();
        match charter.token(id) {
            Some(token) if token.key == key => return Ok(()),
            Some(_) => return Err(Rejection::TokenExists),
            None => {}
        }
        // A used one is only kept for its node to be answered again.
        let spent = charter.tokens.iter().position(|token| token.used_by.is_some());
        let spent = spent.filter(|_| charter.tokens.len() >= TOKENS_MAX);
        if charter.tokens.len() >= TOKENS_MAX && spent.is_none() {
            return Err(Rejection::TooManyTokens);
        }
        self.edit_charter(|charter| {
            if let Some(spent) = spent {
                charter.tokens.remove(spent);
            }
            charter.tokens.push(Token { id, key, expires, used_by: None });
        });
        Ok(())
    }

    fn revoke_token(&mut self, id: TokenId) -> Result<(), Rejection> {
        self.charter().token(id).ok_or(Rejection::TokenNotFound)?;
        self.edit_charter(|charter| charter.tokens.retain(|token| token.id != id));
        Ok(())
    }

    fn establish(&mut self, authority: &Authority) -> Result<(), Rejection> {
        if authority.certificate.len().max(authority.key.len()) > AUTHORITY_BYTES_MAX {
            return Err(Rejection::TooLong);
        }
        match &self.charter().authority {
            Some(there) if there == authority => Ok(()),
            Some(_) => Err(Rejection::AuthorityExists),
            None => {
                self.edit_charter(|charter| charter.authority = Some(authority.clone()));
                Ok(())
            }
        }
    }

    fn replace_authority(
        &mut self,
        term: Term,
        exposed: LogIndex,
        authority: &Authority,
        bridge: &Bytes,
    ) -> Result<(), Rejection> {
        let Authority { certificate, key } = authority;
        if [certificate, key, bridge].into_iter().any(|bytes| bytes.len() > AUTHORITY_BYTES_MAX) {
            return Err(Rejection::TooLong);
        }
        if self.tip.view().applied_term() != term || self.charter().authority_is_due() != Some(exposed) {
            return Err(Rejection::AuthorityExists);
        }
        self.edit_charter(|charter| {
            charter.authority = Some(authority.clone());
            charter.edition += 1;
            charter.exposed = None;
            if charter.clients.is_empty() {
                // Nobody has to find the way.
                charter.bridges.clear();
            } else {
                let ends = charter.elapsed.saturating_add(AUTHORITY_OVERLAP_SECONDS);
                charter.bridges.push(Bridge { certificate: bridge.clone(), ends });
            }
        });
        Ok(())
    }

    fn issue_client(&mut self, key: ClientKey, name: &str) -> Result<(), Rejection> {
        if name.len() > CLIENT_NAME_BYTES_MAX {
            return Err(Rejection::TooLong);
        }
        let charter = self.charter();
        match charter.client(key) {
            Some(client) if client.name == name => return Ok(()),
            Some(_) => return Err(Rejection::ClientExists),
            None if charter.clients.len() >= CLIENTS_MAX => return Err(Rejection::TooManyClients),
            None => {}
        }
        self.edit_charter(|charter| {
            let place = charter.clients.partition_point(|client| client.key < key);
            let (issued, edition) = (charter.elapsed, charter.edition);
            let client = Client { key, name: name.to_owned(), issued, edition };
            charter.clients.insert(place, client);
        });
        Ok(())
    }

    fn revoke_client(&mut self, key: ClientKey) -> Result<(), Rejection> {
        self.charter().client(key).ok_or(Rejection::ClientNotFound)?;
        self.edit_charter(|charter| charter.clients.retain(|client| client.key != key));
        Ok(())
    }

    fn renew_client(&mut self, key: ClientKey) -> Result<(), Rejection> {
        let edition = self.charter().edition;
        let client = self.charter().client(key).ok_or(Rejection::ClientNotFound)?;
        if client.edition != edition {
            self.edit_charter(|charter| {
                if let Some(client) = charter.clients.iter_mut().find(|client| client.key == key) {
                    client.edition = edition;
                }
            });
        }
        Ok(())
    }

    fn dissolve(&mut self, winner: ClusterId) -> Result<(), Rejection> {
        let Charter { committed, dissolved, .. } = *self.charter();
        if committed && dissolved.is_none() {
            return Err(Rejection::Committed);
        }
        self.end_for(winner, false);
        Ok(())
    }

    /// Two clusters whose operators order the same at the same time would both end. But before one of them does, the other one has taken its members in; and
    /// who has taken in the members of a cluster does not give itself up for that one. Nor where it has forgotten one since it `asked` that other one to take in
    /// its own: whoever is forgotten may have been of that one, which has ended. Asked after that it would still have been there.
    fn give_up_for(
        &mut self,
        winner: ClusterId,
        witness: PublicKey,
        asked: LogIndex,
    ) -> Result<(), Rejection> {
        let facts = self.tip.view().facts();
        let is_in = facts.members.iter().any(|member| member.key == Some(witness));
        if is_in || asked < facts.charter.forgot {
            return Err(Rejection::Entangled);
        }
        self.end_for(winner, true);
        Ok(())
    }

    /// Once and for all.
    fn end_for(&mut self, winner: ClusterId, ordered: bool) {
        if self.charter().dissolved.is_none() {
            let at = self.applied();
            self.edit_charter(|charter| charter.dissolved = Some(Dissolution { winner, at, ordered }));
        }
    }

    /// A member's word for each cluster is enough. Whether it is right, whoever it concerns finds out. Where words are looked at, one that nobody looks at would push out the others.
    fn bury(&mut self, tombstone: &Tombstone) -> Result<(), Rejection> {
        let facts = self.tip.view().facts();
        if facts.commands >= CommandVersion::SIGNED_WORDS {
            return Err(Rejection::NotCapable);
        }
        let of = |tombstone: &Tombstone| (tombstone.cluster, tombstone.signer);
        let mut buried = facts.charter.buried.clone();
        if !buried.iter().any(|known| of(known) == of(tombstone)) {
            buried.drain(..(buried.len() + 1).saturating_sub(TOMBSTONES_MAX));
            buried.push(*tombstone);
            self.keep_words(buried, tombstone.cluster);
        }
        Ok(())
    }

    /// Somebody's word is what was signed with its key, so that whoever makes up words pushes out its own. A word of nobody who is a member pushes out none.
    fn bury_signed(&mut self, tombstone: &Tombstone, ordered: Option<u64>) {
        let facts = self.tip.view().facts();
        let is_member = |signer| facts.members.iter().any(|member| member.key == Some(signer));
        let mut buried = facts.charter.buried.clone();
        let has_room = buried.len() < TOMBSTONES_MAX || is_member(tombstone.signer);
        if has_room && !buried.contains(tombstone) && tombstone.is_signed(ordered) {
            buried.push(*tombstone);
            Tombstone::keep_some(&mut buried, is_member);
            self.keep_words(buried, tombstone.cluster);
        }
    }

    /// What is said of a cluster is among these.
    fn keep_words(&mut self, buried: Vec<Tombstone>, of: ClusterId) {
        self.edit_charter(|charter| {
            charter.buried = buried;
            // It has ended for this one, so that its members come, however long they are away.
            charter.awaited.retain(|awaited| awaited.of != Some(of));
        });
    }

    /// When something ends that begins now.
    fn end_of(&self, seconds: u64, max: u64) -> Result<u64, Rejection> {
        if (ADMISSION_SECONDS_MIN..=max).contains(&seconds) {
            Ok(self.charter().elapsed.saturating_add(seconds))
        } else {
            Err(Rejection::TimeOutOfRange)
        }
    }
}

/// Whether the node that holds a key would be let in now. One that is a member already is, whatever this says.
pub fn check_admission(facts: &Facts, key: PublicKey, by: Admission) -> Result<(), Rejection> {
    let charter = &facts.charter;
    match by {
        Admission::Window | Admission::FleetKey => {
            if !charter.automatic {
                return Err(Rejection::NotAutomatic);
            }
            if by == Admission::Window && !charter.is_open() {
                return Err(Rejection::Sealed);
            }
            // Trust is lost by an operator's word only, and won back by another.
            if facts.removed.iter().any(|(_, removed)| *removed == Some(key)) {
                return Err(Rejection::NodeRemoved);
            }
        }
        Admission::Token(id) => {
            let token = charter.token(id).ok_or(Rejection::TokenNotFound)?;
            if token.used_by.is_some() {
                return Err(Rejection::TokenUsed);
            }
        }
        Admission::Approval => {
            if !charter.approved.contains(&key.fingerprint()) {
                return Err(Rejection::NotApproved);
            }
        }
    }
    if facts.members.len() >= ADMITTED_MEMBERS_MAX {
        return Err(Rejection::TooManyMembers);
    }
    Ok(())
}

/// Somebody has come in by the window. It never closes earlier for that.
fn prolong(window: &mut Window, now: u64) {
    if window.grows {
        let last = window.opened.saturating_add(FOUNDING_WINDOW_SECONDS_MAX);
        let longer = now.saturating_add(FOUNDING_WINDOW_SECONDS).min(last);
        window.closes = window.closes.max(longer);
    }
}

/// Whether a place is kept at just these URLs, in whatever order.
fn is_at(place: &Member, peer_urls: &[String]) -> bool {
    let kept = &place.attributes.peer_urls;
    !kept.is_empty() && kept.len() == peer_urls.len() && kept.iter().all(|url| peer_urls.contains(url))
}

#[cfg(test)]
#[path = "authority_test.rs"]
mod authority_tests;
#[cfg(test)]
#[path = "charter_test.rs"]
mod tests;
