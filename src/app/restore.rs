//! A new node from an image.
//!
//! Owns: the order: the whole file is checked before anything is made, what is made is founded as any other node is, and only what is whole gets the name that
//! was asked for. Must never: write into a directory that holds anything but a restore that was cut off. Driven by the command line.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::data_dir::{Claimed, OpenError, restored_beside};
use super::image_file::{FileError, HashCheck, ImageFile, ImageSummary, Records};
use crate::command::NotUnderstood;
use crate::formation::{Content, ContentError, DiskOptions, first_state};
use crate::ids::{ClusterId, MemberId, Revision};
use crate::snapshot::{NewRevisions, Record, Refold, RevisionTooHigh};
use crate::store::{FoldBatch, Meta};

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The file.
    pub file: PathBuf,
    /// Where the new node's data goes. What does not exist yet has this name once it is whole; a directory that does, and is empty, is filled: it may be
    /// one that a disk is mounted on, or that only its owner could make anew.
    pub data_dir: PathBuf,
    /// Whether the file's hash is looked at.
    pub hash: HashCheck,
    /// What happens to revisions.
    pub revisions: NewRevisions,
}

/// What was made.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Its only member.
    pub member: MemberId,
    /// The revision of the image.
    pub from: Revision,
    /// The revision that the node begins with.
    pub revision: Revision,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is of no use; the directory was not touched.
    #[error(transparent)]
    File(#[from] FileError),
    /// The revision would be raised too far; the directory was not touched.
    #[error(transparent)]
    Revision(#[from] RevisionTooHigh),
    /// The file is of a cluster that was ahead of this build; the directory was not touched.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
    /// There is something in the directory; etcd's words.
    #[error("data-dir {0:?} not empty or could not be read")]
    NotEmpty(PathBuf),
    /// Something else has the name of what would be made first. It is not removed: a node may have run in it.
    #[error("{} is in the way: rename or remove it. If it is what a restore has left that was cut off at its very end, it is whole", .0.display())]
    InTheWay(PathBuf),
    /// The directory could not be made into a node's. A restore that is run again begins anew; where it was cut off at its very end, what it has made is whole
    /// and in the way ([`Self::InTheWay`], [`Self::NotEmpty`]).
    #[error("{}", super::chain(.0))]
    Directory(#[from] OpenError),
}

/// Checks the image and makes a node of it: the only member of a new cluster.
pub fn restore(options: &RestoreOptions) -> Result<Restored, RestoreError> {
    let mut file = ImageFile::open(&options.file)?;
    let ImageSummary { facts, .. } = file.examine(options.hash)?;
    facts.commands.check()?;
    Refold::new(&facts, &facts, options.revisions)?;
    let (place, name) = place_for(&options.data_dir);
    let Some(claimed) = Claimed::found(&place)? else {
        return Err(if place == name {
            RestoreError::NotEmpty(place)
        } else {
            RestoreError::InTheWay(place)
        });
    };
    let (cluster, member) = (claimed.identity.cluster(), claimed.identity.member);
    let (first, log_start) = first_state(&claimed.identity);
    let mut batches = Batches::new(&mut file, &first, &facts, options.revisions)?;
    let content = Content { meta: first, batches: &mut batches, log_start };
    let revision = claimed.fill(content, DiskOptions::default(), &name)?;
    Ok(Restored { cluster, member, from: facts.revision, revision })
}

/// Where the node is made, and the name of that in the end: beside what is to be its directory, or in that if there is one. The next restore goes on with what one
/// that was cut off has left.
fn place_for(data_dir: &Path) -> (PathBuf, PathBuf) {
    let is_free = fs::symlink_metadata(data_dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let beside = if is_free { restored_beside(data_dir) } else { None };
    beside.unwrap_or_else(|| (data_dir.to_owned(), data_dir.to_owned()))
}

/// The image as batches of changes; an error is the last item.
struct Batches<'f> {
    records: Records<'f>,
    refold: Option<Refold>,
}

impl<'f> Batches<'f> {
    fn new(
        file: &'f mut ImageFile,
        first: &Meta,
        image: &Meta,
        revisions: NewRevisions,
    ) -> Result<Self, RestoreError> {
        let refold = Refold::new(first, image, revisions)?;
        Ok(Self { records: file.records()?, refold: Some(refold) })
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<FoldBatch, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let refold = self.refold.as_mut()?;
            match self.records.next() {
                Some(Ok(Record::Change(id, change))) => {
                    if let Some(batch) = refold.change(id, change) {
                        return Some(Ok(batch));
                    }
                }
                Some(Ok(Record::Lease(id, lease))) => refold.lease(id, lease),
                Some(Ok(Record::Facts(_) | Record::End { .. })) => {}
                Some(Err(error)) => {
                    self.refold = None;
                    return Some(Err(error.into()));
                }
                None => return self.refold.take().map(|refold| Ok(refold.finish())),
            }
        }
    }
}
