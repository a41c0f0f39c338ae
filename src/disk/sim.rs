//! A directory in memory that fails on demand: the disk of the simulator and of crash tests.
//!
//! Owns: what survives a crash (see [`crate::disk`]), the plan of faults, the count of operations. Must never: be more forgiving than a
//! real disk, or differ between two runs with one seed. Driven by tests of `wal` and `formation`, and by the simulator; [`SimBackend`]
//! carries redb.
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

/// A simulated directory. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct SimDir {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct Disk {
    prng: Prng,
    plan: FaultPlan,
    operations: u64,
    reads: u64,
    halted: bool,
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    /// Names as programs see them.
    names: BTreeMap<String, u64>,
    /// Names as of the last sync of the directory.
    stable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
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
    /// An empty directory; `seed` decides what crashes keep.
    pub fn new(seed: u64) -> Self {
        Self::with(Prng::new(seed), BTreeMap::new(), BTreeMap::new(), 0)
    }

    fn with(prng: Prng, files: BTreeMap<u64, Inode>, names: BTreeMap<String, u64>, next_file: u64) -> Self {
        let disk = Disk {
            prng,
            plan: FaultPlan::default(),
            operations: 0,
            reads: 0,
            halted: false,
            files,
            next_file,
            stable_names: names.clone(),
            names,
            pending_names: Vec::new(),
        };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the plan; its numbers count from the directory's birth (or its last crash).
    pub fn plan(&self, plan: FaultPlan) {
        self.lock().plan = plan;
    }

    /// Operations that changed something so far, counted as [`FaultPlan`] does.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Turns the power off: every call through this directory and its files fails from now on.
    pub fn halt(&self) {
        self.lock().halted = true;
    }

    /// What the next start of the machine finds: a directory of its own, without faults. This one stays as it is, so that many
    /// outcomes of one crash can be looked at.
    pub fn crash(&self, survival: Survival) -> SimDir {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let names = disk.surviving_names(survival);
        let mut files = BTreeMap::new();
        for id in names.values() {
            if let Some(inode) = disk.files.get(id) {
                let content = inode.content.crash(survival, &mut disk.prng);
                files.insert(*id, Inode { content, handles: 0 });
            }
        }
        Self::with(disk.prng.fork(), files, names, disk.next_file)
    }

    /// What the next process finds after this one was killed while the machine runs on: everything that was written, of which no more is
    /// durable than before. Calls through this directory and its files fail from now on; the plan of faults stays behind.
    pub fn detach(&self) -> SimDir {
        let mut guard = self.lock();
        let disk = &mut *guard;
        disk.halted = true;
        let named = disk.names.values().chain(disk.stable_names.values());
        let files = named.filter_map(|id| {
            let content = disk.files.get(id)?.content.clone();
            Some((*id, Inode { content, handles: 0 }))
        });
        let files = files.collect();
        let next = Self::with(disk.prng.fork(), files, disk.names.clone(), disk.next_file);
        {
            let mut next = next.lock();
            next.stable_names.clone_from(&disk.stable_names);
            next.pending_names.clone_from(&disk.pending_names);
        }
        next
    }

    /// Flips one bit of a file on the medium; a name that does not exist changes nothing.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let mut disk = self.lock();
        if let Some(id) = disk.names.get(name).copied()
            && let Some(inode) = disk.files.get_mut(&id)
        {
            inode.content.flip_bit(offset, bit);
        }
    }

    fn handle(&self, disk: &mut Disk, id: u64) -> SimFile {
        disk.files.entry(id).or_default().handles += 1;
        SimFile { dir: self.clone(), id }
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
        &mut self.files.entry(id).or_default().content
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let verdict = self.begin()?;
        // An operation in which the machine dies may yet reach the disk; one that merely fails has changed nothing.
        if matches!(verdict, Verdict::Proceed) || self.halted {
            change.apply(&mut self.names);
            self.pending_names.push(change);
        }
        verdict.into_result()
    }

    fn surviving_names(&mut self, survival: Survival) -> BTreeMap<String, u64> {
        let mut names = self.stable_names.clone();
        for change in &self.pending_names {
            let kept = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Random => self.prng.one_in(2),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        names
    }

    /// Forgets files that have neither a name nor a handle.
    fn collect(&mut self) {
        let Self { files, names, stable_names, .. } = self;
        files.retain(|id, inode| {
            inode.handles > 0 || names.values().chain(stable_names.values()).any(|named| named == id)
        });
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
        let disk = self.lock();
        disk.check_power()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = self.lock();
        if disk.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let id = disk.next_file;
        disk.next_file += 1;
        disk.change_name(NameChange::Add(name.to_owned(), id))?;
        Ok(self.handle(&mut disk, id))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = self.lock();
        disk.check_power()?;
        let id = *disk.names.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        disk.content(id).forget_abandoned();
        Ok(self.handle(&mut disk, id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.names.contains_key(from) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        disk.change_name(NameChange::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        disk.change_name(NameChange::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.begin()?.into_result()?;
        disk.stable_names = disk.names.clone();
        disk.pending_names.clear();
        disk.collect();
        Ok(())
    }
}

/// An open file of a [`SimDir`].
#[derive(Debug)]
pub struct SimFile {
    dir: SimDir,
    id: u64,
}

impl SimFile {
    fn length(&self) -> io::Result<u64> {
        let mut disk = self.dir.lock();
        disk.check_power()?;
        Ok(disk.content(self.id).len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut disk = self.dir.lock();
        disk.check_power()?;
        disk.reads += 1;
        if disk.plan.fail_read_at == Some(disk.reads) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        disk.content(self.id).read_at(offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.dir.lock();
        let verdict = disk.begin()?;
        let mut reached = bytes.len();
        if matches!(verdict, Verdict::Fail(_)) && !disk.halted {
            // A write that fails half way has ended between two sectors.
            let end = disk.prng.range(offset, offset + reached as u64 + 1);
            let whole = (end - end % content::SECTOR as u64).saturating_sub(offset);
            reached = usize::try_from(whole).unwrap_or(reached).min(reached);
        }
        disk.content(self.id).write_at(offset, &bytes[..reached]);
        verdict.into_result()
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        let mut disk = self.dir.lock();
        let verdict = disk.begin()?;
        if matches!(verdict, Verdict::Proceed) || disk.halted {
            disk.content(self.id).set_len(length);
        }
        verdict.into_result()
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.dir.lock();
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

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(inode) = self.dir.lock().files.get_mut(&self.id) {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.resize(length)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }
}

/// A simulated file for redb to keep its database in.
#[derive(Debug)]
pub struct SimBackend(SimFile);

impl SimBackend {
    /// A database in `file`.
    pub fn new(file: SimFile) -> Self {
        Self(file)
    }
}

impl redb::StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.resize(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the simulated machine is off")
}

#[cfg(test)]
#[path = "sim_test.rs"]
mod tests;
