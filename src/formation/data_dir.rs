//! The data directory: made when a cluster is founded, opened again at every later start.
//!
//! Owns: what lies where, the order in which it comes into being, and what a start makes of what it finds. Must never: take a damaged or
//! half lost directory for a fresh one. Driven by `app` before anything serves, and by the simulator.
//!
//! ```text
//! DIR/identity.0 identity.1   who this node is, twice
//! DIR/store.redb              the state
//! DIR/store.redb.staged       a state that is on its way from another member, to take its place
//! DIR/store.redb.suspect      an empty file: the state is not what the other members have, or is damaged
//! DIR/facts.0 facts.1         what a start needs of the state, should it be damaged so that it cannot be opened
//! DIR/wal/*                   the raft log
//! ```
//!
//! # The order, and what a crash leaves
//!
//! ```text
//! record (founding) ──► store ──► its content ──► log ──► names synced ──► record (established) ──► serves
//!     a crash in here: store and log are made anew            │      a crash after: opened as they are
//! ```
//!
//! Without the record's stage a store that was never finished could not be told from one that was lost. What is there before the record
//! is somebody's data; what the record promises and is not there was lost; both are refused.

use std::error::Error;
use std::io;

use super::facts::{NAMES as FACTS_NAMES, drop_facts, facts_for, keep_facts, others_voted};
use super::found::first_state;
use super::identity::{Identity, Promise, Stage};
use super::record::{self, RecordError};
use crate::disk::Directory;
use crate::ids::{ClusterId, Incarnation, MemberId};
use crate::store::{FoldBatch, Member, Meta, Store, StoreError, StoreOptions};
use crate::wal::{self, Position, Recovered, Wal, WalError};

/// The file of the state.
pub const STORE_NAME: &str = "store.redb";
/// The file of a state that comes from another member, until it takes the place of [`STORE_NAME`].
pub const STAGED_NAME: &str = "store.redb.staged";
/// The file that says that what is in [`STORE_NAME`] is not to be trusted; see [`distrust`].
pub const SUSPECT_NAME: &str = "store.redb.suspect";
/// The files that [`keep_facts`] keeps, together.
const FACTS_NAME: &str = "facts.0 and facts.1";
/// The directory of the raft log.
pub const LOG_NAME: &str = "wal";
/// All that a node has of its cluster.
pub const STATE_NAMES: [&str; 6] =
    [STORE_NAME, STAGED_NAME, SUSPECT_NAME, FACTS_NAMES[0], FACTS_NAMES[1], LOG_NAME];
/// So many runs before the last that the cluster has noted are kept until they are forgotten in one go.
const FORGET_FROM: usize = 32;

/// How the store and the log of a node are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOptions {
    /// The store.
    pub store: StoreOptions,
    /// The log; not filled ahead where its filesystem gains nothing by that.
    pub wal: wal::Options,
}

/// Why a data directory cannot be used. Nothing in it was changed by the refusal, save for the count of starts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory failed.
    #[error("cannot {action} {name}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory in it.
        name: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is neither a record nor data.
    #[error("nothing is founded here yet")]
    Fresh,
    /// The identity record is damaged or of another version.
    #[error("the identity record cannot be used")]
    Record(#[from] RecordError),
    /// There is data without a record of whose it is.
    #[error(
        "{name} is there but the identity record is not: the directory is incomplete, and starting afresh would lose its data"
    )]
    IdentityLost {
        /// What was found.
        name: &'static str,
    },
    /// The record is older than the data.
    #[error(
        "the identity record says that founding was never finished, but the log is in use: the newer copy of the record is damaged"
    )]
    RecordOutdated,
    /// The directory is a copy, or an older state of itself, and the cluster has said so.
    #[error(
        "this data directory is an old copy of member {member}, or one of two that are in use: it must not vote again; remove the member from the cluster, add it anew and start it with an empty data directory"
    )]
    Fenced {
        /// Whose it was.
        member: MemberId,
    },
    /// The node's cluster has ended for it, and what it has of that is not archived yet.
    #[error("the cluster of this data directory has ended: what is in it has to be archived first")]
    Leaving,
    /// The node is between two generations.
    #[error("making this node the only member of its cluster was not finished: run \"covey recover\" again")]
    RecoveryUnfinished,
    /// The state names a run that the record does not.
    #[error(
        "the identity record is older than the state: it knows nothing of start {incarnation} of this member, which the cluster has noted"
    )]
    RecordRolledBack {
        /// Which start.
        incarnation: Incarnation,
    },
    /// The state that the record promises is not there.
    #[error("{name} is missing: the directory is incomplete, restore it whole")]
    StateLost {
        /// What was not found.
        name: &'static str,
    },
    /// Content was being put in when that was cut off; only whoever has it can go on.
    #[error("content was being restored into the directory, and that was not finished: restore it again")]
    Unfinished,
    /// Content came for a directory that was not founded for it.
    #[error("the directory was not founded to be restored into")]
    NotRestoring,
    /// The content that the store should begin with could not be read to its end.
    #[error("the content of the new store cannot be read")]
    Content(#[source] ContentError),
    /// The log is damaged, of another version or another member's.
    #[error("the log cannot be used")]
    Wal(#[from] WalError),
    /// The store is damaged or of another version.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether no further start helps, as long as nobody puts another program or another directory in place, or finishes what
    /// was begun in this one. Damage does not count: a disk may read again what it
    /// did not read before.
    pub fn is_for_ever(&self) -> bool {
        match self {
            Self::Fenced { .. } | Self::Unfinished | Self::RecoveryUnfinished => true,
            Self::Record(error) => {
                matches!(error, RecordError::UnknownVersion { .. } | RecordError::Contradiction)
            }
            Self::Wal(error) => {
                matches!(error, WalError::UnsupportedVersion { .. } | WalError::WrongIdentity { .. })
            }
            Self::Store(error) => error.is_of_another_build(),
            _ => false,
        }
    }
}

/// Why the source of content failed.
pub type ContentError = Box<dyn Error + Send + Sync>;

/// What a new store begins with, other than nothing.
pub struct Content<'a> {
    /// The facts before the first batch.
    pub meta: Meta,
    /// What is folded in after that: each a commit of its own, so that none needs to be large; one may end inside of a revision. What the last one
    /// says of `applied` must be the position that the log continues.
    pub batches: &'a mut dyn Iterator<Item = Result<FoldBatch, ContentError>>,
    /// The position that the log continues.
    pub log_start: Position,
}

/// What a start finds, or has made.
pub struct DataDir<D: Directory> {
    /// Who the node is in this run; its incarnation is on disk.
    pub identity: Identity,
    /// Where all of it lies.
    pub root: D,
    /// The state.
    pub store: Store,
    /// The log, ready for the next batch.
    pub wal: Wal<D>,
    /// What the log holds.
    pub recovered: Recovered,
    /// Why the store on the disk could not be opened, where one without rows stands in for it until another member's has come.
    pub damage: Option<StoreError>,
}

/// Who the node was in its last run; `None` where nothing is founded yet and [`found`] may.
///
/// # Errors
/// A state without an identity is somebody's data, never a fresh start: [`OpenError::IdentityLost`]. A damaged record is no absent one.
pub fn founded<D: Directory>(root: &D) -> Result<Option<Identity>, OpenError> {
    let identity = record::load(root)?;
    if identity.is_none() {
        for name in [STORE_NAME, LOG_NAME] {
            if exists(root, name)? {
                return Err(OpenError::IdentityLost { name });
            }
        }
    }
    Ok(identity)
}

/// Writes the record of a new node; its stage says whether its store begins with nothing ([`Stage::Founding`]) or with content
/// ([`Stage::Restoring`]), or that the node has only a key so far ([`Stage::Fresh`], see [`take_up`]). [`open`] does the rest, after a crash too.
pub fn found<D: Directory>(root: &D, identity: &Identity) -> Result<(), OpenError> {
    assert!(identity.stage != Stage::Established, "what is founded has neither store nor log yet");
    if founded(root)?.is_some() {
        return Err(RecordError::Exists.into());
    }
    Ok(record::create(root, identity)?)
}

/// Notes which cluster a node begins that was in none so far: `begun` says which, and how (its stage). [`open`] does the rest.
pub fn take_up<D: Directory>(root: &D, begun: &Identity) -> Result<(), OpenError> {
    let identity = founded(root)?.ok_or(OpenError::Fresh)?;
    if !matches!(identity.stage, Stage::Fresh | Stage::Forming) {
        return Err(RecordError::Exists.into());
    }
    Ok(record::take_up(root, begun)?)
}

/// Notes whom a node that is in no cluster leaves the founding to. Only when this has returned may the promise be answered: it must outlive any crash.
pub fn note_promise<D: Directory>(root: &D, promise: Option<Promise>) -> Result<(), OpenError> {
    let identity = founded(root)?.ok_or(OpenError::Fresh)?;
    if !matches!(identity.stage, Stage::Fresh | Stage::Forming) {
        return Err(RecordError::Exists.into());
    }
    Ok(record::note_promise(root, promise)?)
}

/// Begins a run: opens what is there, or finishes the founding, with `content` where the node was founded for that.
pub fn open<D: Directory>(
    root: &D,
    boot_nonce: u64,
    content: Option<Content<'_>>,
    options: DiskOptions,
) -> Result<DataDir<D>, OpenError> {
    founded(root)?.ok_or(OpenError::Fresh)?;
    // On disk before anything else happens in this run: a copy of this directory that starts too can be told apart.
    let identity = record::start(root, boot_nonce)?.ok_or(OpenError::Fresh)?;
    let begun = begin(root, identity, content, options);
    // Whoever has no cluster asks others from here on, too.
    if matches!(begun, Ok(_) | Err(OpenError::Fresh)) {
        record::note_shown(root)?;
    }
    let mut data = begun?;
    data.identity.shown = true;
    if !data.store.is_suspect() {
        // There may be none yet, or a crash came between a fold and them.
        let kept = keep_facts(root, data.identity.member, data.store.meta());
        kept.map_err(failed("keep", FACTS_NAME))?;
    }
    Ok(data)
}

fn begin<D: Directory>(
    root: &D,
    identity: Identity,
    content: Option<Content<'_>>,
    options: DiskOptions,
) -> Result<DataDir<D>, OpenError> {
    match (identity.stage, content) {
        (Stage::Fresh, _) | (Stage::Forming, None) => Err(OpenError::Fresh),
        (Stage::Recovering, _) => Err(OpenError::RecoveryUnfinished),
        (Stage::Fenced, _) => Err(OpenError::Fenced { member: identity.member }),
        (Stage::Leaving, _) => Err(OpenError::Leaving),
        (Stage::Established, None) => {
            let data = reopen(root, identity, options, |identity, log| {
                stand_in(root, identity.member, log, options.store)
            })?;
            check_runs(root, &data.identity, &data.store)?;
            Ok(data)
        }
        (Stage::Founding, None) => {
            let (meta, log_start) = first_state(&identity);
            let content = Content { meta, batches: &mut std::iter::empty(), log_start };
            establish(root, identity, content, options)
        }
        (Stage::Restoring | Stage::Forming, Some(content)) => establish(root, identity, content, options),
        (Stage::Restoring, None) => Err(OpenError::Unfinished),
        (Stage::Founding | Stage::Established, Some(_)) => Err(OpenError::NotRestoring),
    }
}

/// Makes store and log anew: the record says that nothing was ever acknowledged from what may lie there.
fn establish<D: Directory>(
    root: &D,
    identity: Identity,
    content: Content<'_>,
    options: DiskOptions,
) -> Result<DataDir<D>, OpenError> {
    refuse_used(root, &identity, options)?;
    if exists(root, STORE_NAME)? {
        root.remove(STORE_NAME).map_err(failed("remove", STORE_NAME))?;
    }
    let mut store = Store::open_in(root, STORE_NAME, options.store)?;
    store.initialise(&content.meta)?;
    for batch in content.batches {
        store.fold_part(&batch.map_err(OpenError::Content)?)?;
    }
    let (log, wal_options) = log_directory(root, options)?;
    for name in log.list().map_err(failed("list", LOG_NAME))? {
        log.remove(&name).map_err(failed("empty", LOG_NAME))?;
    }
    let wal = Wal::create(log, wal_identity(&identity), content.log_start, wal_options)?;
    // The names of store and log must be durable before the record promises that they are there.
    root.sync().map_err(failed("sync", LOG_NAME))?;
    let identity = record::mark_established(root)?;
    let recovered =
        Recovered { hard_state: wal.hard_state(), start: wal.start(), entries: Vec::new(), tear: None };
    Ok(DataDir { identity, root: root.clone(), store, wal, recovered, damage: None })
}

/// The record says that founding was not finished, yet the log holds entries: it is not the newest copy of the record that was read.
fn refuse_used<D: Directory>(root: &D, identity: &Identity, options: DiskOptions) -> Result<(), OpenError> {
    if !exists(root, LOG_NAME)? {
        return Ok(());
    }
    let (log, options) = log_directory(root, options)?;
    // A log that does not open is half made, as it may be.
    match Wal::open(log, wal_identity(identity), options) {
        Ok((_, recovered)) if !recovered.entries.is_empty() => Err(OpenError::RecordOutdated),
        Err(error @ WalError::Io { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Opens what is there. `instead` says what takes the place of a state that is not to be trusted, or cannot be opened, if anything may.
fn reopen<D: Directory>(
    root: &D,
    identity: Identity,
    options: DiskOptions,
    instead: impl Fn(&Identity, &Recovered) -> Result<Option<Store>, OpenError>,
) -> Result<DataDir<D>, OpenError> {
    for name in [STORE_NAME, LOG_NAME] {
        if !exists(root, name)? {
            return Err(OpenError::StateLost { name });
        }
    }
    let (log, wal_options) = log_directory(root, options)?;
    let (mut wal, recovered) = Wal::open(log, wal_identity(&identity), wal_options)?;
    let (store, damage) = open_state(root, options.store, || instead(&identity, &recovered))?;
    let recovered = finish_install(root, identity.member, &store, &mut wal, recovered)?;
    Ok(DataDir { identity, root: root.clone(), store, wal, recovered, damage })
}

fn open_state<D: Directory>(
    root: &D,
    options: StoreOptions,
    instead: impl Fn() -> Result<Option<Store>, OpenError>,
) -> Result<(Store, Option<StoreError>), OpenError> {
    let suspect = exists(root, SUSPECT_NAME)?;
    // Of a store that is noted already nothing is read: where it is damaged, redb could end the process over it at each start.
    if suspect && let Some(store) = instead()? {
        return Ok((store, None));
    }
    match Store::open_in(root, STORE_NAME, options) {
        Ok(store) if !store.is_initialised() => Err(OpenError::StateLost { name: STORE_NAME }),
        Ok(mut store) => {
            if suspect {
                store.distrust();
            }
            Ok((store, None))
        }
        Err(error) if error.is_damage() => match instead()? {
            Some(store) => {
                distrust(root)?;
                Ok((store, Some(error)))
            }
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The facts that are kept beside a store, as a store of their own, where other members can make good what it has lost.
fn stand_in<D: Directory>(
    root: &D,
    member: MemberId,
    log: &Recovered,
    options: StoreOptions,
) -> Result<Option<Store>, OpenError> {
    let facts = facts_for(root, member, log).map_err(failed("read", FACTS_NAME))?;
    if let Some(meta) = &facts {
        // They may be those of a process that was killed before they were durable.
        keep_facts(root, member, meta).map_err(failed("keep", FACTS_NAME))?;
    }
    Ok(facts.map(|meta| Store::stand_in(&meta, options)).transpose()?)
}

/// Opens what is there so that its node can be made the only member of its cluster. Nothing is changed by that, and it is no start.
pub fn open_to_recover<D: Directory>(root: &D, options: DiskOptions) -> Result<DataDir<D>, OpenError> {
    let identity = founded(root)?.ok_or(OpenError::Fresh)?;
    match identity.stage {
        Stage::Established | Stage::Fenced | Stage::Recovering => {
            reopen(root, identity, options, |_, _| Ok(None))
        }
        Stage::Fresh | Stage::Forming | Stage::Founding => Err(OpenError::Fresh),
        Stage::Restoring => Err(OpenError::Unfinished),
        Stage::Leaving => Err(OpenError::Leaving),
    }
}

/// What the cluster has noted of this member's runs must be known to the record. So a record, or a whole directory, that was put back from an
/// earlier time is found out as soon as the state says more.
fn check_runs<D: Directory>(root: &D, identity: &Identity, store: &Store) -> Result<(), OpenError> {
    let members = &store.meta().members;
    let noted = members.iter().find(|member| member.id() == identity.member).and_then(Member::run);
    let Some(noted) = noted else { return Ok(()) };
    if !identity.knows(noted) {
        return Err(OpenError::RecordRolledBack { incarnation: noted.incarnation });
    }
    let before = identity.earlier.iter().filter(|run| run.incarnation < noted.incarnation);
    if before.count() > FORGET_FROM {
        record::forget_before(root, noted)?;
    }
    Ok(())
}

/// The node is about to be the only member of a new generation. Until [`end_recovery`] no start goes on with it, so that it never serves
/// with half of that. Facts that say who voted before are dropped: its log continues them, too.
pub fn begin_recovery<D: Directory>(root: &D) -> Result<(), OpenError> {
    record::begin_recovery(root)?;
    drop_facts(root).map_err(failed("remove", FACTS_NAME))
}

/// See [`begin_recovery`]. Whatever was thought of the state before, it is the cluster's from now on.
pub fn end_recovery<D: Directory>(root: &D) -> Result<(), OpenError> {
    trust(root).map_err(failed("remove", SUSPECT_NAME))?;
    Ok(record::end_recovery(root)?)
}

/// Notes, where there are other voters, that the state is not to be trusted: it is damaged, or has come apart from the other members'. Log and promises are as good as before, so
/// that the member goes on voting, but from the next start on it makes nothing of its state until another member's has taken its place.
pub fn distrust<D: Directory>(root: &D) -> Result<(), OpenError> {
    if !exists(root, SUSPECT_NAME)? {
        root.create(SUSPECT_NAME).map_err(failed("create", SUSPECT_NAME))?;
    }
    root.sync().map_err(failed("sync", SUSPECT_NAME))
}

/// Notes that redb has stopped at one of its files, where there are other voters. It may be that of a state on its way, which is only a copy: without it
/// the transfer begins anew, which it would have to in any case.
pub fn note_damage<D: Directory>(root: &D) -> Result<(), OpenError> {
    if exists(root, STAGED_NAME)? {
        root.remove(STAGED_NAME).map_err(failed("remove", STAGED_NAME))?;
    }
    distrust(root)
}

/// The same at a start, before there is a state that says who votes; whether another member's can take its place.
pub fn note_damage_at_start<D: Directory>(root: &D) -> Result<bool, OpenError> {
    let identity = founded(root)?.ok_or(OpenError::Fresh)?;
    let others = others_voted(root, identity.member).map_err(failed("read", FACTS_NAME))?;
    if others {
        note_damage(root)?;
    }
    Ok(others)
}

/// Takes back what [`distrust`] has noted.
pub fn trust<D: Directory>(root: &D) -> io::Result<()> {
    if root.list()?.iter().any(|name| name == SUSPECT_NAME) {
        root.remove(SUSPECT_NAME)?;
        root.sync()?;
    }
    Ok(())
}

/// Notes that the node's cluster has ended for it, and for which other one, if for any. From then on nothing opens what it has of that, and whoever holds the directory archives it
/// ([`STATE_NAMES`]), however often that is cut off, and says [`become_fresh`].
pub fn leave<D: Directory>(root: &D, winner: Option<ClusterId>) -> Result<(), OpenError> {
    Ok(record::leave(root, winner)?)
}

/// See [`leave`]: nothing of the state is left. The node keeps its key.
pub fn become_fresh<D: Directory>(root: &D) -> Result<Identity, OpenError> {
    for name in STATE_NAMES {
        if exists(root, name)? {
            return Err(OpenError::Leaving);
        }
    }
    Ok(record::become_fresh(root)?)
}

/// Notes that this directory must never take part in its cluster again: another run of the member was seen that it knows nothing of.
pub fn fence<D: Directory>(root: &D) -> Result<(), OpenError> {
    Ok(record::fence(root)?)
}

/// Does what an install had left to do when it was cut off: the store is another member's by then, the log is still the old one.
///
/// Only a store that says of itself that it came that way and has not moved since is believed; where the log lacks that store's
/// position, all of it is from before. What it has up to the position is in the store, and what it has above follows an
/// entry other than the committed one, or none: nothing of it was committed. Term and vote stay: they are promises, not history.
/// A crash in the reset leaves one log or the other, so the next start does it again or finds it done.
fn finish_install<D: Directory>(
    root: &D,
    member: MemberId,
    store: &Store,
    wal: &mut Wal<D>,
    recovered: Recovered,
) -> Result<Recovered, OpenError> {
    let meta = store.meta();
    let position = Position { index: meta.applied, term: meta.applied_term };
    if recovered.contains(position) || !store.is_as_installed()? {
        return Ok(recovered);
    }
    // After the process alone had died the store's name may be as young: with the log reset and the name lost there would be neither.
    root.sync().map_err(failed("sync", STORE_NAME))?;
    // The log loses the position of those that are kept so far.
    keep_facts(root, member, meta).map_err(failed("keep", FACTS_NAME))?;
    wal.reset(position)?;
    Ok(Recovered { hard_state: wal.hard_state(), start: wal.start(), entries: Vec::new(), ..recovered })
}

fn exists<D: Directory>(root: &D, name: &'static str) -> Result<bool, OpenError> {
    let names = root.list().map_err(failed("look for", name))?;
    Ok(names.iter().any(|found| found == name))
}

fn log_directory<D: Directory>(root: &D, options: DiskOptions) -> Result<(D, wal::Options), OpenError> {
    let log = root.subdirectory(LOG_NAME).map_err(failed("open", LOG_NAME))?;
    let in_place = log.overwrites_in_place().map_err(failed("examine the filesystem of", LOG_NAME))?;
    Ok((log, wal::Options { prefill: options.wal.prefill && in_place, ..options.wal }))
}

fn wal_identity(identity: &Identity) -> wal::Identity {
    wal::Identity { cluster: identity.cluster(), member: identity.member }
}

fn failed(action: &'static str, name: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, name, source }
}
