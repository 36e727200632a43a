//! A file system in memory that behaves badly on demand and always the same way for the same seed.
//!
//! It keeps, for every file, what is durable beside what is visible. [`SimFiles::crash`] keeps durable bytes, and of
//! each page written since the last sync a seeded choice of its 512-byte or 4 KiB sectors; of the directory changes
//! since the last directory sync a seeded prefix (as a journalling file system would). Handles opened before the
//! crash are dead afterwards. Faults are injected through [`SimFiles::inject`].
//!
//! Not modelled: an order between two unsynced writes of one page, and the loss of a file's timestamp.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{File, Files, Space};

const PAGE_LEN: usize = 4096;
type Page = Box<[u8; PAGE_LEN]>;

/// Operations that a fault can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimOp {
    /// [`File::read_at`].
    Read,
    /// [`File::write_at`].
    Write,
    /// [`File::sync_data`].
    Sync,
    /// [`File::allocate`].
    Allocate,
    /// [`File::punch_hole`].
    Punch,
    /// Changes of names: create, remove, rename, `sync_dir`.
    Names,
    /// [`Files::write_small`].
    WriteSmall,
}

/// A fault that waits for its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFault {
    /// The operation after `skip` more of its kind fails with `EIO`, once. A failed sync loses, as on Linux, what it
    /// should have made durable, and later syncs succeed.
    FailOnce {
        /// Which operation.
        op: SimOp,
        /// How many of its kind still succeed.
        skip: u64,
    },
    /// Every operation of this kind fails with `EIO` until [`SimFiles::heal`].
    FailAlways(SimOp),
    /// Every operation takes this much longer.
    Slow(Duration),
    /// The file system has this many bytes in all.
    Capacity(u64),
    /// After so many more changing operations everything fails, as if the machine had stopped in the middle of the
    /// next one; then call [`SimFiles::crash`].
    CrashAfter(u64),
}

#[derive(Default)]
struct Inode {
    len: u64,
    synced_len: u64,
    pages: BTreeMap<u64, Page>,
    allocated: BTreeSet<u64>,
    /// What pages changed since the last sync had before; `None` for no page.
    dirty: BTreeMap<u64, Option<Page>>,
}

struct State {
    rng: SmallRng,
    epoch: u64,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<PathBuf, u64>,
    small: BTreeMap<PathBuf, Vec<u8>>,
    dirs: BTreeSet<PathBuf>,
    /// Directory changes not yet durable, oldest first.
    unsynced_names: Vec<NameChange>,
    synced_names: BTreeMap<PathBuf, u64>,
    faults: Vec<SimFault>,
    delay: Duration,
    debt: Duration,
    capacity: u64,
    ops_left: Option<u64>,
    ops: u64,
    counts: BTreeMap<SimOp, u64>,
}

enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// The simulated file system. A handle: cloning shares it.
#[derive(Clone)]
pub struct SimFiles {
    state: Arc<Mutex<State>>,
    /// Dies at the end of this epoch; `None` for a handle of the test itself.
    epoch: Option<u64>,
}

struct SimFile {
    state: Arc<Mutex<State>>,
    inode: u64,
    epoch: u64,
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimFiles {
    /// An empty file system of 1 TiB whose choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                epoch: 0,
                inodes: BTreeMap::new(),
                inode_next: 0,
                names: BTreeMap::new(),
                small: BTreeMap::new(),
                dirs: BTreeSet::new(),
                unsynced_names: Vec::new(),
                synced_names: BTreeMap::new(),
                faults: Vec::new(),
                delay: Duration::ZERO,
                debt: Duration::ZERO,
                capacity: 1 << 40,
                ops_left: None,
                ops: 0,
                counts: BTreeMap::new(),
            })),
            epoch: None,
        }
    }

    /// The file system as a process sees it: a handle that dies, like all files opened through it, at the next
    /// [`SimFiles::crash`]. Give this one to a drive, so that what is left of it cannot act after the crash.
    pub fn mount(&self) -> Self {
        let epoch = lock(&self.state).epoch;
        Self { state: self.state.clone(), epoch: Some(epoch) }
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        match self.epoch {
            Some(epoch) if epoch != state.epoch => Err(eio()),
            _ => Ok(state),
        }
    }

    /// Adds a fault to those in force.
    pub fn inject(&self, fault: SimFault) {
        let mut state = lock(&self.state);
        match fault {
            SimFault::Slow(delay) => state.delay = delay,
            SimFault::Capacity(bytes) => state.capacity = bytes,
            SimFault::CrashAfter(ops) => state.ops_left = Some(ops),
            SimFault::FailOnce { .. } | SimFault::FailAlways(_) => state.faults.push(fault),
        }
    }

    /// Ends all faults but a crash that has happened; the capacity is 1 TiB again.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.faults.clear();
        state.delay = Duration::ZERO;
        state.capacity = 1 << 40;
    }

    /// Loses power and comes back: unsynced bytes and names are lost, torn or kept by the seed, handles are dead, faults
    /// of the crash kind are over.
    pub fn crash(&self) {
        let mut state = lock(&self.state);
        state.epoch += 1;
        state.ops_left = None;
        state.debt = Duration::ZERO;
        let State { rng, inodes, .. } = &mut *state;
        for inode in inodes.values_mut() {
            inode.crash(rng);
        }
        state.crash_names();
    }

    /// Changing operations so far, for crash matrices.
    pub fn op_count(&self) -> u64 {
        lock(&self.state).ops
    }

    /// Operations of one kind so far, failed ones included.
    pub fn count(&self, op: SimOp) -> u64 {
        lock(&self.state).counts.get(&op).copied().unwrap_or(0)
    }

    /// Flips one bit of the byte at `offset` of a file, durably and unnoticed. Bytes never written stay as they are.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        self.damage(path, offset..offset + 1, |byte| byte ^ (1 << (bit % 8)));
    }

    /// Zeroes a range of a file, durably and unnoticed.
    pub fn zero(&self, path: &Path, range: std::ops::Range<u64>) {
        self.damage(path, range, |_| 0);
    }

    /// Replaces a small file or removes it, durably and unnoticed.
    pub fn set_small(&self, path: &Path, bytes: Option<Vec<u8>>) {
        let mut state = lock(&self.state);
        match bytes {
            Some(bytes) => state.small.insert(path.to_owned(), bytes),
            None => state.small.remove(path),
        };
    }

    /// All segment files under `dir`, sorted.
    pub fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        lock(&self.state).names.keys().filter(|path| path.starts_with(dir)).cloned().collect()
    }

    fn damage(&self, path: &Path, range: std::ops::Range<u64>, change: impl Fn(u8) -> u8) {
        let mut state = lock(&self.state);
        let Some(inode) = state.names.get(path).copied() else {
            return;
        };
        let Some(inode) = state.inodes.get_mut(&inode) else {
            return;
        };
        for offset in range {
            let (page, within) = split(offset);
            if let Some(page) = inode.pages.get_mut(&page) {
                page[within] = change(page[within]);
            }
            if let Some(Some(page)) = inode.dirty.get_mut(&page) {
                page[within] = change(page[within]);
            }
        }
    }
}

fn split(offset: u64) -> (u64, usize) {
    let page_len = PAGE_LEN as u64;
    (offset / page_len, usize::try_from(offset % page_len).unwrap_or(0))
}

impl Inode {
    fn touch(&mut self, page: u64) {
        let before = self.pages.get(&page).cloned();
        self.dirty.entry(page).or_insert(before);
    }

    fn sync(&mut self) {
        self.dirty.clear();
        self.synced_len = self.len;
    }

    /// As Linux treats pages whose write-back failed: marked clean although they never reached the drive.
    fn lose_dirty(&mut self) {
        for (index, before) in std::mem::take(&mut self.dirty) {
            match before {
                Some(page) => self.pages.insert(index, page),
                None => self.pages.remove(&index),
            };
        }
    }

    fn crash(&mut self, rng: &mut SmallRng) {
        let sector = if rng.random::<bool>() { 512 } else { PAGE_LEN };
        // All unsynced pages reached the drive, none, or each sector by its own luck.
        let luck = [0.0, 1.0, 0.5, 0.9][rng.random_range(0..4)];
        for (index, before) in std::mem::take(&mut self.dirty) {
            let mut page = before.unwrap_or_else(|| Box::new([0; PAGE_LEN]));
            let zero = Box::new([0; PAGE_LEN]);
            let after = self.pages.get(&index).unwrap_or(&zero);
            for start in (0..PAGE_LEN).step_by(sector) {
                if rng.random_bool(luck) {
                    page[start..start + sector].copy_from_slice(&after[start..start + sector]);
                }
            }
            self.pages.insert(index, page);
        }
        if self.len > self.synced_len && rng.random::<bool>() {
            self.len = self.synced_len;
        }
        self.synced_len = self.len;
        let end = self.len.div_ceil(PAGE_LEN as u64);
        self.pages.retain(|page, _| *page < end);
        self.allocated.retain(|page| *page < end);
    }
}

impl State {
    /// Counts the operation and decides whether it fails. `Ok(true)`: the power goes in the middle of it.
    fn begin(&mut self, op: SimOp, epoch: Option<u64>) -> io::Result<bool> {
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            return Err(eio());
        }
        *self.counts.entry(op).or_default() += 1;
        self.debt += self.delay;
        if op != SimOp::Read {
            self.ops += 1;
        }
        match &mut self.ops_left {
            Some(0) => return Err(eio()),
            Some(left) if op != SimOp::Read => {
                *left -= 1;
                if *left == 0 {
                    return Ok(true);
                }
            }
            _ => {}
        }
        let mut fails = false;
        self.faults.retain_mut(|fault| match fault {
            SimFault::FailAlways(kind) if *kind == op => {
                fails = true;
                true
            }
            SimFault::FailOnce { op: kind, skip } if *kind == op => {
                if *skip == 0 && !fails {
                    fails = true;
                    return false;
                }
                *skip = skip.saturating_sub(1);
                true
            }
            _ => true,
        });
        if fails { Err(eio()) } else { Ok(false) }
    }

    fn used_bytes(&self) -> u64 {
        let linked: BTreeSet<u64> = self.names.values().copied().collect();
        let pages: usize = linked.iter().filter_map(|inode| self.inodes.get(inode)).map(|i| i.allocated.len()).sum();
        (pages * PAGE_LEN) as u64
    }

    fn reserve(&mut self, inode: u64, pages: std::ops::Range<u64>) -> io::Result<()> {
        let used = self.used_bytes();
        let capacity = self.capacity;
        let Some(file) = self.inodes.get_mut(&inode) else {
            return Err(eio());
        };
        let fresh: Vec<u64> = pages.filter(|page| !file.allocated.contains(page)).collect();
        if !fresh.is_empty() && used + (fresh.len() * PAGE_LEN) as u64 > capacity {
            return Err(no_space());
        }
        file.allocated.extend(fresh);
        Ok(())
    }

    fn crash_names(&mut self) {
        let kept = self.rng.random_range(0..=self.unsynced_names.len());
        let mut names = std::mem::take(&mut self.synced_names);
        for change in self.unsynced_names.drain(..).take(kept) {
            match change {
                NameChange::Link(path, inode) => {
                    names.insert(path, inode);
                }
                NameChange::Unlink(path) => {
                    names.remove(&path);
                }
                NameChange::Rename(from, to) => {
                    if let Some(inode) = names.remove(&from) {
                        names.insert(to, inode);
                    }
                }
            }
        }
        self.names.clone_from(&names);
        self.synced_names = names;
        let linked: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| linked.contains(inode));
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Files for SimFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.alive()?;
        let cut = state.begin(SimOp::Names, None)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(not_found());
        }
        let inode = state.inode_next;
        state.inode_next += 1;
        state.inodes.insert(inode, Inode::default());
        state.names.insert(path.to_owned(), inode);
        state.unsynced_names.push(NameChange::Link(path.to_owned(), inode));
        if cut {
            return Err(eio());
        }
        Ok(Arc::new(SimFile { state: self.state.clone(), inode, epoch: state.epoch }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = self.alive()?;
        let inode = *state.names.get(path).ok_or_else(not_found)?;
        Ok(Arc::new(SimFile { state: self.state.clone(), inode, epoch: state.epoch }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.alive()?;
        if !state.dirs.contains(dir) {
            return Err(not_found());
        }
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for path in state.names.keys().filter(inside).chain(state.small.keys().filter(inside)) {
            names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
        Ok(names.into_iter().collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // Directories are made once, before anything that matters; they are durable at once here.
        self.alive()?.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let cut = state.begin(SimOp::Names, None)?;
        state.names.remove(path).ok_or_else(not_found)?;
        state.unsynced_names.push(NameChange::Unlink(path.to_owned()));
        if cut { Err(eio()) } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let cut = state.begin(SimOp::Names, None)?;
        let inode = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_owned(), inode);
        state.unsynced_names.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        if cut { Err(eio()) } else { Ok(()) }
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        if state.begin(SimOp::Names, None)? {
            return Err(eio());
        }
        state.synced_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = self.alive()?;
        Ok(Space { total_bytes: state.capacity, available_bytes: state.capacity.saturating_sub(state.used_bytes()) })
    }

    fn read_small(&self, path: &Path, len_max: usize) -> io::Result<Option<Vec<u8>>> {
        let state = self.alive()?;
        match state.small.get(path) {
            Some(bytes) if bytes.len() > len_max => Err(io::ErrorKind::InvalidData.into()),
            found => Ok(found.cloned()),
        }
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.alive()?;
        let cut = state.begin(SimOp::WriteSmall, None)?;
        if cut && state.rng.random::<bool>() {
            return Err(eio());
        }
        state.small.insert(path.to_owned(), bytes.to_owned());
        if cut { Err(eio()) } else { Ok(()) }
    }

    fn take_debt(&self) -> Duration {
        std::mem::take(&mut lock(&self.state).debt)
    }
}

impl SimFile {
    fn with<T>(&self, op: SimOp, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = lock(&self.state);
        let cut = state.begin(op, Some(self.epoch))?;
        let result = act(&mut state);
        if cut { Err(eio()) } else { result }
    }
}

impl File for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let page_len = PAGE_LEN as u64;
        if !offset.is_multiple_of(page_len)
            || !bytes.len().is_multiple_of(PAGE_LEN)
            || !(bytes.as_ptr() as usize).is_multiple_of(PAGE_LEN)
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.with(SimOp::Write, |state| {
            let first = offset / page_len;
            state.reserve(self.inode, first..first + bytes.len().div_ceil(PAGE_LEN) as u64)?;
            let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
            for (page, chunk) in (first..).zip(bytes.as_chunks::<PAGE_LEN>().0) {
                inode.touch(page);
                inode.pages.insert(page, Box::new(*chunk));
            }
            inode.len = inode.len.max(offset + bytes.len() as u64);
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.with(SimOp::Read, |state| {
            let inode = state.inodes.get(&self.inode).ok_or_else(eio)?;
            let available = usize::try_from(inode.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            let len = into.len().min(available);
            let mut done = 0;
            while done < len {
                let (page, within) = split(offset + done as u64);
                let now = (PAGE_LEN - within).min(len - done);
                match inode.pages.get(&page) {
                    Some(page) => into[done..done + now].copy_from_slice(&page[within..within + now]),
                    None => into[done..done + now].fill(0),
                }
                done += now;
            }
            Ok(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let began = state.begin(SimOp::Sync, Some(self.epoch));
        let crashed = state.ops_left == Some(0) || self.epoch != state.epoch;
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
        match began {
            Ok(false) => {
                inode.sync();
                Ok(())
            }
            // The power goes while the drive is writing: what reached it is decided by `crash`.
            Ok(true) => Err(eio()),
            Err(error) => {
                if !crashed {
                    inode.lose_dirty();
                }
                Err(error)
            }
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(SimOp::Allocate, |state| {
            let page_len = PAGE_LEN as u64;
            state.reserve(self.inode, offset / page_len..(offset + len).div_ceil(page_len))?;
            let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
            inode.len = inode.len.max(offset + len);
            Ok(())
        })
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(SimOp::Punch, |state| {
            let page_len = PAGE_LEN as u64;
            let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
            for page in offset / page_len..(offset + len) / page_len {
                inode.touch(page);
                inode.pages.remove(&page);
                inode.allocated.remove(&page);
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.state).inodes.get(&self.inode).ok_or_else(eio)?.len)
    }

    fn allocated(&self) -> io::Result<u64> {
        let state = lock(&self.state);
        Ok((state.inodes.get(&self.inode).ok_or_else(eio)?.allocated.len() * PAGE_LEN) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuf;

    fn page(fill: u8) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(PAGE_LEN);
        buf.fill(fill);
        buf
    }

    #[test]
    fn synced_bytes_survive_every_crash_and_unsynced_ones_not_all() {
        let (mut kept, mut lost, mut torn, mut nameless) = (0, 0, 0, 0);
        for seed in 0..64 {
            let files = SimFiles::new(seed);
            let (dir, path) = (PathBuf::from("/d"), PathBuf::from("/d/a"));
            files.create_dir(&dir).unwrap();
            let file = files.create(&path).unwrap();
            file.write_at(0, &page(1)).unwrap();
            file.sync_data().unwrap();
            files.sync_dir(&dir).unwrap();
            file.write_at(0, &page(2)).unwrap();
            files.create(&dir.join("b")).unwrap();
            files.crash();
            assert!(file.sync_data().is_err(), "handles die in a crash");
            let mut back = vec![0; PAGE_LEN];
            files.open(&path).unwrap().read_at(0, &mut back).unwrap();
            assert!(back.iter().all(|byte| *byte == 1 || *byte == 2));
            match (back.contains(&1), back.contains(&2)) {
                (true, true) => torn += 1,
                (true, false) => lost += 1,
                _ => kept += 1,
            }
            nameless += u32::from(files.open(&dir.join("b")).is_err());
        }
        assert!(kept > 0 && lost > 0 && torn > 0 && nameless > 0, "{kept} {lost} {torn} {nameless}");
    }

    #[test]
    fn a_failed_sync_loses_the_bytes_and_the_next_one_succeeds() {
        let files = SimFiles::new(1);
        files.create_dir(Path::new("/d")).unwrap();
        let file = files.create(Path::new("/d/a")).unwrap();
        file.write_at(0, &page(1)).unwrap();
        file.sync_data().unwrap();
        file.write_at(0, &page(2)).unwrap();
        files.inject(SimFault::FailOnce { op: SimOp::Sync, skip: 0 });
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let mut back = [0; 1];
        file.read_at(0, &mut back).unwrap();
        assert_eq!(back, [1]);
    }

    #[test]
    fn room_is_accounted_by_page() {
        let files = SimFiles::new(1);
        files.create_dir(Path::new("/d")).unwrap();
        files.inject(SimFault::Capacity(8192));
        let file = files.create(Path::new("/d/a")).unwrap();
        file.allocate(0, 8192).unwrap();
        file.write_at(0, &page(1)).unwrap();
        let error = file.allocate(8192, 4096).unwrap_err();
        assert!(crate::files::is_out_of_space(&error));
        file.punch_hole(0, 4096).unwrap();
        file.allocate(8192, 4096).unwrap();
    }
}
