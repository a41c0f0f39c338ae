//! A disk in memory that fails on demand: the disk of the simulator and of crash tests.
//!
//! Owns: what survives a crash (see [`crate::disk`]), the plan of faults, the count of operations. Must never: be more forgiving than a
//! real disk, or differ between two runs with one seed. Driven by tests of `wal`, `store` and `formation`, and by the simulator.
//!
//! A test enumerates crash points: run a history once and ask [`SimDir::operations`]; then run it again for each number up to that with
//! [`FaultPlan::crash_at`], take [`SimDir::crash`], and open what is left.

mod content;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::content::Content;
use super::{Directory, File};
use crate::prng::Prng;

/// `EIO`, as Linux numbers it.
const EIO: i32 = 5;
/// `ENOSPC`, as Linux numbers it.
const ENOSPC: i32 = 28;

/// What goes wrong, and when. Operations that change something are counted from 1 on: writes, changes of length, syncs of files and
/// of the directory, and changes of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The machine dies in this operation: it may have taken effect in part, and every call from then on fails.
    pub crash_at: Option<u64>,
    /// These operations fail. A write may have written some of its sectors; a failed sync has synced nothing, and no later sync covers
    /// what it should have.
    pub fail_at: BTreeMap<u64, Fault>,
    /// This read fails with `EIO`; reads are counted by themselves, from 1 on.
    pub fail_read_at: Option<u64>,
    /// The device has no room left: a write that makes its file longer fails, one that stays inside of it does not.
    pub full: bool,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device failed.
    Eio,
    /// The device is full.
    Enospc,
}

/// What a crash leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// Each sector and each change of a name by a throw of the dice.
    Random,
}

/// A directory of a simulated disk. Clones are the same directory; it and those below it share the disk, its faults and its fate.
#[derive(Clone, Debug)]
pub struct SimDir {
    disk: Arc<Mutex<Disk>>,
    id: u64,
}

/// The directory that a disk begins with.
const ROOT: u64 = 0;

#[derive(Debug)]
struct Disk {
    prng: Prng,
    plan: FaultPlan,
    operations: u64,
    reads: u64,
    halted: bool,
    tree: Tree,
}

/// Files and directories, which share their numbers.
#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<u64, Inode>,
    directories: BTreeMap<u64, Names>,
    next_id: u64,
}

/// The names in one directory.
#[derive(Clone, Debug, Default)]
struct Names {
    /// As programs see them.
    current: BTreeMap<String, u64>,
    /// As of the last sync of the directory.
    stable: BTreeMap<String, u64>,
    /// Changes since then.
    pending: Vec<NameChange>,
}

#[derive(Debug, Default)]
struct Inode {
    content: Content,
    handles: usize,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, u64),
    Move(String, String),
    Remove(String),
}

/// What the plan says of the operation at hand.
enum Verdict {
    Proceed,
    /// Take effect in part, then answer with this.
    Fail(io::Error),
}

impl SimDir {
    /// The root of an empty disk; `seed` decides what crashes keep.
    pub fn new(seed: u64) -> Self {
        let directories = BTreeMap::from([(ROOT, Names::default())]);
        Self::with(Prng::new(seed), Tree { directories, next_id: ROOT + 1, ..Tree::default() })
    }

    fn with(prng: Prng, tree: Tree) -> Self {
        let plan = FaultPlan::default();
        let disk = Disk { prng, plan, operations: 0, reads: 0, halted: false, tree };
        Self { disk: Arc::new(Mutex::new(disk)), id: ROOT }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the disk's plan; its numbers count from the disk's birth (or its last crash).
    pub fn plan(&self, plan: FaultPlan) {
        self.lock().plan = plan;
    }

    /// Operations of the disk that changed something so far, counted as [`FaultPlan`] does.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Reads of the disk so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Turns the power off: every call through this disk's directories and files fails from now on.
    pub fn halt(&self) {
        self.lock().halted = true;
    }

    /// What the next start of the machine finds: the root of a disk of its own, without faults. This one stays as it is, so that many
    /// outcomes of one crash can be looked at.
    pub fn crash(&self, survival: Survival) -> SimDir {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let mut left = Tree { next_id: disk.tree.next_id, ..Tree::default() };
        disk.tree.crash(ROOT, survival, &mut disk.prng, &mut left);
        Self::with(disk.prng.fork(), left)
    }

    /// What the next process finds after this one was killed while the machine runs on: everything that was written, of which no more is
    /// durable than before. Calls through this disk fail from now on; the plan of faults stays behind. Answers the root.
    pub fn detach(&self) -> SimDir {
        let mut guard = self.lock();
        let disk = &mut *guard;
        disk.halted = true;
        let Tree { files, directories, next_id } = &disk.tree;
        let files = directories.values().flat_map(Names::ids).filter_map(|id| {
            let content = files.get(&id)?.content.clone();
            Some((id, Inode { content, handles: 0 }))
        });
        let tree = Tree { files: files.collect(), directories: directories.clone(), next_id: *next_id };
        Self::with(disk.prng.fork(), tree)
    }

    /// Flips one bit of a file on the medium; a name that does not exist changes nothing.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let mut disk = self.lock();
        if let Some(id) = disk.find(self.id, name)
            && let Some(inode) = disk.tree.files.get_mut(&id)
        {
            inode.content.flip_bit(offset, bit);
        }
    }

    fn handle(&self, disk: &mut Disk, id: u64) -> SimFile {
        disk.tree.files.entry(id).or_default().handles += 1;
        SimFile { disk: Arc::clone(&self.disk), id }
    }
}

impl Tree {
    /// Puts into `left` what a crash leaves of a directory and of all below it.
    fn crash(&self, id: u64, survival: Survival, prng: &mut Prng, left: &mut Tree) {
        let names =
            self.directories.get(&id).map(|names| names.surviving(survival, prng)).unwrap_or_default();
        for id in names.values() {
            if let Some(inode) = self.files.get(id) {
                let content = inode.content.crash(survival, prng);
                left.files.insert(*id, Inode { content, handles: 0 });
            } else {
                self.crash(*id, survival, prng, left);
            }
        }
        left.directories.insert(id, Names { stable: names.clone(), current: names, pending: Vec::new() });
    }

    /// Forgets files that have neither a name nor a handle.
    fn collect(&mut self) {
        let Self { files, directories, .. } = self;
        let is_named = |id| directories.values().any(|names| names.ids().any(|named| named == id));
        files.retain(|id, inode| inode.handles > 0 || is_named(*id));
    }
}

impl Names {
    /// Everything that has a name, or may have one after a crash: one that was given and taken away since the last sync may come back.
    fn ids(&self) -> impl Iterator<Item = u64> {
        let given = self.pending.iter().filter_map(|change| match change {
            NameChange::Add(_, id) => Some(*id),
            NameChange::Move(..) | NameChange::Remove(_) => None,
        });
        self.current.values().chain(self.stable.values()).copied().chain(given)
    }

    fn surviving(&self, survival: Survival, prng: &mut Prng) -> BTreeMap<String, u64> {
        let mut names = self.stable.clone();
        for change in &self.pending {
            let kept = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Random => prng.one_in(2),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl Disk {
    /// Counts an operation and looks its fate up.
    fn begin(&mut self) -> io::Result<Verdict> {
        self.check_power()?;
        self.operations += 1;
        if self.plan.crash_at == Some(self.operations) {
            self.halted = true;
            return Ok(Verdict::Fail(power_is_off()));
        }
        Ok(match self.plan.fail_at.get(&self.operations) {
            None => Verdict::Proceed,
            Some(Fault::Eio) => Verdict::Fail(io::Error::from_raw_os_error(EIO)),
            Some(Fault::Enospc) => Verdict::Fail(io::Error::from_raw_os_error(ENOSPC)),
        })
    }

    fn check_power(&self) -> io::Result<()> {
        if self.halted { Err(power_is_off()) } else { Ok(()) }
    }

    fn content(&mut self, id: u64) -> &mut Content {
        &mut self.tree.files.entry(id).or_default().content
    }

    fn names(&mut self, directory: u64) -> &mut Names {
        self.tree.directories.entry(directory).or_default()
    }

    /// What has this name in this directory.
    fn find(&mut self, directory: u64, name: &str) -> Option<u64> {
        self.names(directory).current.get(name).copied()
    }

    /// The file that has this name.
    fn find_file(&mut self, directory: u64, name: &str) -> io::Result<u64> {
        let id = self.find(directory, name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        if self.tree.directories.contains_key(&id) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(id)
    }

    fn new_id(&mut self) -> u64 {
        self.tree.next_id += 1;
        self.tree.next_id - 1
    }

    fn change_name(&mut self, directory: u64, change: NameChange) -> io::Result<()> {
        let verdict = self.begin()?;
        // An operation in which the machine dies may yet reach the disk; one that merely fails has changed nothing.
        if matches!(verdict, Verdict::Proceed) || self.halted {
            let names = self.names(directory);
            change.apply(&mut names.current);
            names.pending.push(change);
        }
        verdict.into_result()
    }
}

impl NameChange {
    /// Without effect where an earlier change that it builds on was lost.
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Add(name, id) => {
                names.insert(name.clone(), *id);
            }
            NameChange::Move(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Verdict {
    fn into_result(self) -> io::Result<()> {
        match self {
            Verdict::Proceed => Ok(()),
            Verdict::Fail(error) => Err(error),
        }
    }
}

impl Directory for SimDir {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.lock();
        disk.check_power()?;
        Ok(disk.names(self.id).current.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = self.lock();
        if disk.find(self.id, name).is_some() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let id = disk.new_id();
        // Before its name: the machine may die in the operation, and the name be kept.
        disk.tree.files.insert(id, Inode::default());
        disk.change_name(self.id, NameChange::Add(name.to_owned(), id))?;
        Ok(self.handle(&mut disk, id))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = self.lock();
        disk.check_power()?;
        let id = disk.find_file(self.id, name)?;
        disk.content(id).forget_abandoned();
        Ok(self.handle(&mut disk, id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.find_file(self.id, from)?;
        disk.change_name(self.id, NameChange::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.find_file(self.id, name)?;
        disk.change_name(self.id, NameChange::Remove(name.to_owned()))
    }

    fn subdirectory(&self, name: &str) -> io::Result<Self> {
        let mut disk = self.lock();
        disk.check_power()?;
        let id = match disk.find(self.id, name) {
            Some(id) if disk.tree.files.contains_key(&id) => {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
            Some(id) => id,
            None => {
                let id = disk.new_id();
                disk.tree.directories.insert(id, Names::default());
                disk.change_name(self.id, NameChange::Add(name.to_owned(), id))?;
                id
            }
        };
        Ok(Self { disk: Arc::clone(&self.disk), id })
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.begin()?.into_result()?;
        let names = disk.names(self.id);
        names.stable = names.current.clone();
        names.pending.clear();
        disk.tree.collect();
        Ok(())
    }

    fn overwrites_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// An open file of a [`SimDir`].
#[derive(Debug)]
pub struct SimFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
}

impl SimFile {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(inode) = self.lock().tree.files.get_mut(&self.id) {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut disk = self.lock();
        disk.check_power()?;
        Ok(disk.content(self.id).len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut disk = self.lock();
        disk.check_power()?;
        disk.reads += 1;
        if disk.plan.fail_read_at == Some(disk.reads) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        disk.content(self.id).read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.lock();
        let mut verdict = disk.begin()?;
        let mut reached = bytes.len();
        if disk.plan.full && offset + reached as u64 > disk.content(self.id).len() {
            verdict = Verdict::Fail(io::Error::from_raw_os_error(ENOSPC));
        }
        if matches!(verdict, Verdict::Fail(_)) && !disk.halted {
            // A write that fails half way has ended between two sectors.
            let end = disk.prng.range(offset, offset + reached as u64 + 1);
            let whole = (end - end % content::SECTOR as u64).saturating_sub(offset);
            reached = usize::try_from(whole).unwrap_or(reached).min(reached);
        }
        disk.content(self.id).write_at(offset, &bytes[..reached]);
        verdict.into_result()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.lock();
        let verdict = disk.begin()?;
        if matches!(verdict, Verdict::Proceed) || disk.halted {
            disk.content(self.id).set_len(length);
        }
        verdict.into_result()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        match disk.begin()? {
            Verdict::Proceed => {
                disk.content(self.id).sync();
                Ok(())
            }
            Verdict::Fail(error) => {
                disk.content(self.id).fail_sync();
                Err(error)
            }
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the simulated machine is off")
}

#[cfg(test)]
#[path = "sim_test.rs"]
mod tests;
