//! A meter around redb's byte seam: how long the file is, and how much was written and synced.
//!
//! Owns: the counters, and the end of all writing after a failure. Must never: change, delay or swallow a call. Put by `Store::open` around every backend, so that the size of
//! the file is known without asking the disk and the bytes per put can be published.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{BackendError, StorageBackend};

/// What the store has asked of its file since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// The length of the file now, in bytes.
    pub file_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Syncs.
    pub syncs: u64,
}

#[derive(Debug, Default)]
struct Counters {
    file_bytes: AtomicU64,
    written_bytes: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    refuses_writes: AtomicBool,
}

/// Reads the counters of a [`Metered`] backend that redb owns.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counters>);

impl Meter {
    /// Lets no write, sync or change of length through from now on.
    pub(super) fn refuse_writes(&self) {
        self.0.refuses_writes.store(true, Ordering::SeqCst);
    }

    fn check_writes(&self) -> io::Result<()> {
        if self.0.refuses_writes.load(Ordering::SeqCst) {
            return Err(io::Error::other("nothing is written to a store that has failed"));
        }
        Ok(())
    }

    /// The counts now. Each is exact; together they are of about the same moment.
    pub fn read(&self) -> IoCounts {
        IoCounts {
            file_bytes: self.0.file_bytes.load(Ordering::Relaxed),
            written_bytes: self.0.written_bytes.load(Ordering::Relaxed),
            writes: self.0.writes.load(Ordering::Relaxed),
            syncs: self.0.syncs.load(Ordering::Relaxed),
        }
    }
}

/// A backend whose calls are counted.
#[derive(Debug)]
pub struct Metered<B> {
    inner: B,
    meter: Meter,
}

impl<B: StorageBackend> Metered<B> {
    /// Puts a meter around `inner`.
    pub fn new(inner: B) -> Result<(Self, Meter), io::Error> {
        let meter = Meter::default();
        meter.0.file_bytes.store(inner.len()?, Ordering::Relaxed);
        Ok((Self { inner, meter: meter.clone() }, meter))
    }
}

impl<B: StorageBackend> StorageBackend for Metered<B> {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.meter.check_writes()?;
        self.inner.set_len(len)?;
        self.meter.0.file_bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.meter.check_writes()?;
        self.inner.sync_data()?;
        self.meter.0.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.meter.check_writes()?;
        self.inner.write(offset, data)?;
        let counters = &self.meter.0;
        counters.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
