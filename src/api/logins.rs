//! From what a call brings to the user that it is made by, and to what that user may do.
//!
//! Owns: which of several proofs counts, when a refusal is final, and that nothing is done for a user whose permissions have changed since. Must never: decide what a permission allows
//! ([`crate::auth`] does). Driven by `dispatch` and the services.
//!
//! What is read is read from the very view that the permission was looked up in, so that no change can come in between. What is proposed names the user and the revision that this was found
//! out at, and is judged again while applying.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use super::credentials::{
    Claims, Credentials, Holder, Jwt, LoginOptions, Passwords, SimpleTokens, TokenKind,
};
use super::errors;
use super::node::Node;
use crate::auth::{Access, Auth};
use crate::command::{Applied, AuthCommand, Caller, Command, KeyRange, Outcome, Rejection, TokenSecret};
use crate::ids::{LeaseId, LogIndex, Revision};
use crate::mvcc::{ReadError, View};
use crate::runtime::clock::{Clock, entropy, random_u64, unix_seconds};
use crate::store::Member;

/// How often a write is proposed whose user's permissions change meanwhile.
const TRIES_MAX: usize = 8;

/// How this node finds out who somebody is.
pub struct Logins {
    clock: Clock,
    tokens: Tokens,
    /// See [`Passwords`].
    pub passwords: Passwords,
}

enum Tokens {
    Simple(SimpleTokens),
    Jwt(Arc<Jwt>),
}

impl Logins {
    /// By these options, in the run of a node.
    pub fn new(options: &LoginOptions, run: u64) -> Self {
        let tokens = match &options.tokens {
            TokenKind::Simple(ttl) => Tokens::Simple(SimpleTokens::new(*ttl, run)),
            TokenKind::Jwt(jwt) => Tokens::Jwt(Arc::clone(jwt)),
        };
        Self { clock: Clock::start(), tokens, passwords: Passwords::new(options.bcrypt_cost) }
    }

    /// Who a token is, as of a view. Of other members' counts what they have made since this one was there: see [`Handle::published_at`](crate::runtime::Handle::published_at).
    fn holder(&self, token: &str, view: &View, there_since: Option<LogIndex>) -> Option<Caller> {
        let auth = &view.facts().auth;
        match &self.tokens {
            Tokens::Simple(tokens) => {
                let is_known = |run: u64, at: LogIndex| {
                    let mut runs = view.facts().members.iter().filter_map(Member::run);
                    there_since.is_some_and(|since| at >= since) && runs.any(|known| known.boot_nonce == run)
                };
                let Holder { user, since } =
                    tokens.check(auth.token_secret.as_ref()?, token, self.clock.now(), is_known)?;
                let is_same = auth.user(&user).is_some_and(|user| user.since == since);
                is_same.then_some(Caller { user, revision: auth.revision })
            }
            Tokens::Jwt(jwt) => {
                let Claims { user, revision } = jwt.check(token, unix_seconds())?;
                Some(Caller { user, revision })
            }
        }
    }

    /// Whether a call is good for one revision of users and roles alone: then nobody but the client can try again.
    fn is_pinned(&self, credentials: &Credentials) -> bool {
        matches!(self.tokens, Tokens::Jwt(_)) && credentials.token().is_some()
    }
}

/// What whoever makes a call may do.
#[derive(Clone, Copy)]
pub struct Permits<'v> {
    auth: &'v Auth,
    /// With keys and commands.
    pub access: Access<'v>,
    user: Option<&'v str>,
}

impl Permits<'_> {
    /// Whether it is this user.
    pub fn is_user(&self, name: &str) -> bool {
        self.user == Some(name)
    }

    /// Whether it is a user with this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.user.and_then(|user| self.auth.user(user)).is_some_and(|user| user.has_role(role))
    }
}

impl Node {
    /// Who makes a call, as of a view; `None` while everybody may do everything.
    pub fn caller(&self, credentials: &Credentials, view: &View) -> Result<Option<Caller>, Status> {
        let auth = &view.facts().auth;
        if !auth.enabled {
            return Ok(None);
        }
        if let Some(token) = credentials.token() {
            let holder = self.logins().holder(token, view, self.handle().published_at());
            return holder.ok_or_else(errors::invalid_auth_token).map(Some);
        }
        let user = credentials.common_name().unwrap_or_default().to_owned();
        Ok(Some(Caller { user, revision: auth.revision }))
    }

    /// Whether a caller may do this, as of a view.
    pub fn check(
        &self,
        credentials: &Credentials,
        view: &View,
        permits: impl Fn(Permits<'_>) -> bool,
    ) -> Result<Option<Caller>, Status> {
        let caller = self.caller(credentials, view)?;
        let auth = &view.facts().auth;
        let access = auth.access(caller.as_ref())?;
        let user = caller.as_ref().map(|caller| caller.user.as_str());
        if permits(Permits { auth, access, user }) {
            Ok(caller)
        } else {
            Err(Rejection::PermissionDenied.into())
        }
    }

    /// A view in which the caller may do this, and who that is.
    pub async fn permitted(
        &self,
        credentials: &Credentials,
        view: Arc<View>,
        permits: impl Fn(Permits<'_>) -> bool,
    ) -> Result<(Arc<View>, Option<Caller>), Status> {
        self.found_out(credentials, view, |view| self.check(credentials, view, &permits)).await
    }

    /// A view in which the caller, who need not be anybody, shows nothing that is wrong.
    pub async fn not_mistaken(
        &self,
        credentials: &Credentials,
        view: Arc<View>,
    ) -> Result<Arc<View>, Status> {
        let judge = |view: &View| {
            let caller = self.caller(credentials, view)?;
            let is_old = |caller: &Caller| caller.revision != view.facts().auth.revision;
            if caller.as_ref().is_some_and(is_old) {
                Err(Rejection::AuthRevisionOld.into())
            } else {
                Ok(caller)
            }
        };
        Ok(self.found_out(credentials, view, judge).await?.0)
    }

    /// A view in which who makes a call passes, and who that is. A refusal counts only where this member has all that was acknowledged before: what permits it may have been said to another one.
    async fn found_out(
        &self,
        credentials: &Credentials,
        view: Arc<View>,
        judge: impl Fn(&View) -> Result<Option<Caller>, Status>,
    ) -> Result<(Arc<View>, Option<Caller>), Status> {
        let refusal = match judge(&view) {
            Ok(caller) => return Ok((view, caller)),
            Err(refusal) => refusal,
        };
        drop(view);
        if self.handle().status().leader.is_none() || self.handle().read_barrier().await.is_err() {
            return Err(refusal);
        }
        if self.comes_too_early(credentials) && self.handle().until_published().await.is_err() {
            return Err(refusal);
        }
        let view = self.handle().view();
        let caller = judge(&view)?;
        Ok((view, caller))
    }

    /// Whether a call shows a token of another member before this one, which has just begun, can know which of those count: it will as soon as it is published.
    fn comes_too_early(&self, credentials: &Credentials) -> bool {
        self.handle().published_at().is_none()
            && credentials.token().is_some_and(|token| {
                let view = self.handle().view();
                let is_good = |there_since| self.logins().holder(token, &view, there_since).is_some();
                !is_good(None) && is_good(Some(LogIndex(0)))
            })
    }

    /// Refuses who is nobody.
    pub async fn require_user(&self, credentials: &Credentials) -> Result<(), Status> {
        self.permitted(credentials, self.handle().view(), |_| true).await.map(drop)
    }

    /// Refuses who may not do everything.
    pub async fn require_root(&self, credentials: &Credentials) -> Result<(), Status> {
        self.permitted(credentials, self.handle().view(), |permits| permits.access.is_root()).await.map(drop)
    }

    /// Refuses who may not do everything, before something that the state refuses to nobody in particular. Says on whose behalf it is to be proposed.
    pub async fn root(&self, credentials: &Credentials) -> Result<Option<Caller>, Status> {
        self.learn_whether_open().await?;
        let root = |permits: Permits<'_>| permits.access.is_root();
        let (_, caller) = self.permitted(credentials, self.handle().view(), root).await?;
        Ok(caller)
    }

    /// A member that lags may not know yet that authentication is on. Where the state does not ask who makes a proposal, since nodes make it, too (see
    /// [`Command::takes_caller`]), that it is off counts only as of all that was acknowledged before.
    pub async fn learn_whether_open(&self) -> Result<(), Status> {
        if !self.handle().view().facts().auth.enabled {
            self.handle().read_barrier().await?;
        }
        Ok(())
    }

    /// Proposes a command on behalf of whoever makes a call, and waits until its effect can be read.
    pub async fn propose(
        &self,
        credentials: &Credentials,
        command: Command,
    ) -> Result<(Revision, Outcome), Status> {
        if !command.takes_caller() {
            self.learn_whether_open().await?;
        }
        // Whoever shows something may have to: this member may not know yet that authentication is on.
        let applied = if !credentials.is_empty() || self.handle().view().facts().auth.enabled {
            self.propose_for(credentials, &command).await?
        } else {
            self.handle().propose(command).await?
        };
        match applied.outcome? {
            Outcome::AnswerTooLarge => Err(errors::answer_too_large()),
            outcome => Ok((applied.revision, outcome)),
        }
    }

    async fn propose_for(&self, credentials: &Credentials, command: &Command) -> Result<Applied, Status> {
        let mut tries = 1;
        loop {
            let permits = |permits: Permits<'_>| permits.access.check(command).is_ok();
            let (_, caller) = self.permitted(credentials, self.handle().view(), permits).await?;
            let as_nobody = caller.is_none();
            let applied = self.handle().propose_for(caller, command.clone()).await?;
            if !self.may_try_again(credentials, as_nobody, &applied, tries) {
                return Ok(applied);
            }
            tries += 1;
        }
    }

    /// Grants a lease on behalf of whoever makes a call: see [`Handle::grant_lease`](crate::runtime::Handle::grant_lease).
    pub async fn grant_lease(
        &self,
        credentials: &Credentials,
        id: LeaseId,
        ttl: i64,
    ) -> Result<(LeaseId, Applied), Status> {
        let mut tries = 1;
        loop {
            let (_, caller) = self.permitted(credentials, self.handle().view(), |_| true).await?;
            let as_nobody = caller.is_none();
            let (id, applied) = self.handle().grant_lease(caller, id, ttl).await?;
            if !self.may_try_again(credentials, as_nobody, &applied, tries) {
                return Ok((id, applied));
            }
            tries += 1;
        }
    }

    /// Whether a proposal was refused because users or roles have changed since it was found out who asks, or because authentication is on since, and may be made once more: nothing has happened
    /// then, and this member knows better by now.
    fn may_try_again(
        &self,
        credentials: &Credentials,
        as_nobody: bool,
        applied: &Applied,
        tries: usize,
    ) -> bool {
        let knows_better = match applied.outcome {
            Err(Rejection::AuthRevisionOld) => !self.logins().is_pinned(credentials),
            Err(Rejection::UserNameEmpty) => as_nobody && self.handle().view().facts().auth.enabled,
            _ => false,
        };
        knows_better && tries < TRIES_MAX
    }

    /// Refuses a caller who may not write all keys of a lease.
    pub async fn may_write_lease(&self, credentials: &Credentials, lease: LeaseId) -> Result<(), Status> {
        let (view, caller) = self.permitted(credentials, self.handle().view(), |_| true).await?;
        let Some(caller) = caller else { return Ok(()) };
        let keys =
            move |view: &View| view.authorize_lease(view.facts().auth.access(Some(&caller))?, lease, true);
        self.read(view, false, keys).await.map_err(Status::from)
    }

    /// Refuses a caller who may not read all keys of these leases.
    pub async fn may_read_leases(
        &self,
        credentials: &Credentials,
        leases: Vec<LeaseId>,
    ) -> Result<(), Status> {
        let (view, caller) = self.permitted(credentials, self.handle().view(), |_| true).await?;
        let Some(caller) = caller else { return Ok(()) };
        let mut leases = leases.into_iter();
        let permitted = self.handle().in_slices(move || {
            let Some(lease) = leases.next() else { return Some(Ok(())) };
            let access = view.facts().auth.access(Some(&caller)).map_err(ReadError::from);
            let looked = access.and_then(|access| view.authorize_lease(access, lease, false));
            looked.err().map(|error| Err(error.into()))
        });
        permitted.await
    }

    /// The same keys, if all of them may be read by somebody, as of the view that they are from.
    pub async fn may_read_keys(
        &self,
        view: Arc<View>,
        caller: Option<Caller>,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, Status> {
        let Some(caller) = caller else { return Ok(keys) };
        let permitted = move |view: &View| {
            let access = view.facts().auth.access(Some(&caller))?;
            let permitted = keys.iter().all(|key| access.may_read(&KeyRange::single(key.clone())));
            if permitted { Ok(keys) } else { Err(Rejection::PermissionDenied) }
        };
        self.read(view, false, permitted).await.map_err(Status::from)
    }

    /// A token for a user who has shown a password.
    pub async fn token_for(&self, view: Arc<View>, holder: Holder) -> Result<String, Status> {
        let logins = self.logins();
        // Others take it only once they know of this run.
        if matches!(logins.tokens, Tokens::Simple(_)) && self.handle().others_vote() {
            self.handle().until_published().await?;
        }
        match &logins.tokens {
            Tokens::Simple(tokens) => {
                let at = view.applied();
                let secret = self.token_secret(view).await?;
                Ok(tokens.make(&secret, &holder, drawn()?, at, logins.clock.now()))
            }
            Tokens::Jwt(jwt) if !jwt.can_sign() => Err(errors::verify_only()),
            Tokens::Jwt(jwt) => {
                let claims = Claims { user: holder.user, revision: view.facts().auth.revision };
                drop(view);
                let (jwt, now) = (Arc::clone(jwt), unix_seconds());
                let made = self.handle().blocking(move || jwt.make(&claims, now)).await;
                made.ok_or_else(|| Status::internal("covey: a token could not be signed"))
            }
        }
    }

    /// What the members share for tokens. Whoever finds none makes one.
    async fn token_secret(&self, view: Arc<View>) -> Result<TokenSecret, Status> {
        if let Some(secret) = view.facts().auth.token_secret {
            return Ok(secret);
        }
        drop(view);
        let mut secret = TokenSecret([0; 32]);
        entropy(&mut secret.0).map_err(|error| no_randomness(&error))?;
        self.handle().propose(Command::Auth(AuthCommand::EstablishTokens { secret })).await?.outcome?;
        // Not necessarily the one that was made here; and none, where authentication was disabled meanwhile.
        self.handle().view().facts().auth.token_secret.ok_or_else(errors::auth_not_enabled)
    }
}

fn drawn() -> Result<u64, Status> {
    random_u64().map_err(|error| no_randomness(&error))
}

fn no_randomness(error: &std::io::Error) -> Status {
    Status::internal(format!("covey: no randomness: {error}"))
}
