//! A disk in memory that can lose power: what was not synced may be gone, in part, in any order.
//!
//! # The model
//!
//! Every file and every directory has a *current* state, which reads see, and a *durable* one,
//! plus the list of pending changes between them. [`Disk::sync`] makes a file's bytes and length
//! durable, [`Disk::sync_dir`] the entries of a directory. A file's sync says nothing about the
//! directory that names it, as POSIX has it.
//!
//! [`MemoryDisk::crash`] makes the durable state plus some of the pending changes the current
//! one. A seed decides which: none, all, those up to some moment, or any subset. Of a surviving
//! write, whole 512-byte sectors may be missing (at the end, or anywhere); a lost write that would
//! have made its file longer may leave zeros instead. A rename within a directory survives whole
//! or not at all; between directories its two halves are separate changes.
//!
//! Deliberately not modelled: reordering across a sync (a sync that returned holds), and loss of
//! synced bytes; for that there is [`MemoryDisk::flip_bit`].
//!
//! # Faults
//!
//! [`MemoryDisk::fail_write`], [`MemoryDisk::fail_sync`], [`MemoryDisk::fail_read`] arm one. After
//! a failed sync the pending changes are forgotten as far as durability goes and the next sync
//! succeeds, as Linux does it. [`MemoryDisk::cut_power_after`] makes everything fail from the n-th
//! change on, until [`MemoryDisk::crash`]: a crash at every step of an operation can be tested.

use super::Random;
use crate::disk::Disk;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

const SECTOR_BYTES: u64 = 512;
const ROOT: NodeId = 0;

type NodeId = u64;

#[derive(Debug)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO, once.
    Io,
    /// ENOSPC, from then on until [`MemoryDisk::clear_faults`]; part of the write may be done.
    NoSpace,
}

#[derive(Clone, Debug)]
struct State {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    changes: u64,
    writes: Countdown,
    syncs: Countdown,
    reads: Countdown,
    power_cut_at: Option<u64>,
}

/// A fault that strikes after this many more operations of its kind.
#[derive(Clone, Copy, Debug, Default)]
struct Countdown(Option<(u64, Fault)>);

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Dir(Dir),
}

#[derive(Clone, Debug, Default)]
struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: u64, bytes: Vec<u8> },
    Truncate { length: u64 },
}

#[derive(Clone, Debug, Default)]
struct Dir {
    current: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    pending: Vec<EntryChange>,
}

#[derive(Clone, Debug)]
enum EntryChange {
    Link {
        name: String,
        node: NodeId,
    },
    Unlink {
        name: String,
        node: NodeId,
    },
    Move {
        from: String,
        to: String,
        node: NodeId,
    },
}

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::new()
    }
}

impl MemoryDisk {
    pub fn new() -> MemoryDisk {
        let root = Node::Dir(Dir::default());
        MemoryDisk {
            state: Mutex::new(State {
                nodes: BTreeMap::from([(ROOT, root)]),
                next_node: ROOT + 1,
                changes: 0,
                writes: Countdown::default(),
                syncs: Countdown::default(),
                reads: Countdown::default(),
                power_cut_at: None,
            }),
        }
    }

    /// An independent copy, pending changes and armed faults included.
    pub fn fork(&self) -> MemoryDisk {
        MemoryDisk {
            state: Mutex::new(self.lock().clone()),
        }
    }

    /// The power goes and comes back; `seed` decides what unsynced changes survive. Armed faults
    /// are cleared.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut random = Random::new(seed);
        let mut survival = Survival::draw(&mut random);
        for node in state.nodes.values_mut() {
            match node {
                Node::File(file) => file.crash(&mut survival, &mut random),
                Node::Dir(dir) => dir.crash(&mut survival, &mut random),
            }
        }
        state.forget_unreachable();
        state.clear_faults();
    }

    /// Like a crash that loses nothing: what a killed process leaves to the next one.
    pub fn sync_everything(&self) {
        for node in self.lock().nodes.values_mut() {
            match node {
                Node::File(file) => file.sync(),
                Node::Dir(dir) => dir.sync(),
            }
        }
    }

    /// The write after `after` more ones fails.
    pub fn fail_write(&self, after: u64, fault: Fault) {
        self.lock().writes = Countdown(Some((after, fault)));
    }

    /// The sync (of a file or a directory) after `after` more ones fails.
    pub fn fail_sync(&self, after: u64, fault: Fault) {
        self.lock().syncs = Countdown(Some((after, fault)));
    }

    /// The read after `after` more ones fails.
    pub fn fail_read(&self, after: u64, fault: Fault) {
        self.lock().reads = Countdown(Some((after, fault)));
    }

    /// From the change (write, sync, rename, ...) after `after` more ones on, everything fails
    /// until [`MemoryDisk::crash`].
    pub fn cut_power_after(&self, after: u64) {
        let mut state = self.lock();
        state.power_cut_at = Some(state.changes + after);
    }

    pub fn clear_faults(&self) {
        self.lock().clear_faults();
    }

    /// How many changes (writes, syncs, renames, removals, truncations) were made so far.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Bit rot: flips bit `bit % 8` of the byte at `position`, durably.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip_bit(&self, file: &str, position: u64, bit: u8) {
        let mut state = self.lock();
        let file = state.file_mut(file).expect("the file to damage exists");
        let mask = 1 << (bit % 8);
        file.current[position as usize] ^= mask;
        if let Some(byte) = file.durable.get_mut(position as usize) {
            *byte ^= mask;
        }
        for change in &mut file.pending {
            if let Change::Write {
                position: at,
                bytes,
            } = change
            {
                let offset = position.checked_sub(*at).map(|offset| offset as usize);
                if let Some(byte) = offset.and_then(|offset| bytes.get_mut(offset)) {
                    *byte ^= mask;
                }
            }
        }
    }

    /// The whole current content of a file, if there is one.
    pub fn content(&self, file: &str) -> Option<Vec<u8>> {
        self.lock().file(file).ok().map(|file| file.current.clone())
    }

    /// Bytes that [`MemoryDisk::crash`] could lose, over all files.
    pub fn unsynced_bytes(&self) -> u64 {
        let state = self.lock();
        let files = state.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        });
        let bytes = files
            .flat_map(|file| &file.pending)
            .map(|change| match change {
                Change::Write { bytes, .. } => bytes.len() as u64,
                Change::Truncate { .. } => 0,
            });
        bytes.sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no holder of this lock panics half way")
    }
}

impl Disk for MemoryDisk {
    fn read_at(&self, file: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        state.check_power()?;
        if let Some(fault) = state.reads.strike() {
            return Err(fault.error());
        }
        let content = &state.file(file)?.current;
        let from = content.len().min(position as usize);
        let count = buffer.len().min(content.len() - from);
        buffer[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn len(&self, file: &str) -> io::Result<Option<u64>> {
        let state = self.lock();
        state.check_power()?;
        match state.file(file) {
            Ok(file) => Ok(Some(file.current.len() as u64)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.check_power()?;
        match state.find(dir).map(|node| &state.nodes[&node]) {
            Some(Node::Dir(dir)) => Ok(dir.current.keys().cloned().collect()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Ok(Vec::new()),
        }
    }

    fn write_at(&self, file: &str, position: u64, buffers: &[&[u8]]) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let mut bytes = buffers.concat();
        let fault = state.writes.strike();
        if fault == Some(Fault::Io) {
            return Err(Fault::Io.error());
        }
        if fault == Some(Fault::NoSpace) {
            bytes.truncate(bytes.len() / 2);
        }
        let file = state.file_or_create(file)?;
        file.change(Change::Write { position, bytes });
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn truncate(&self, file: &str, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        state.file_mut(file)?.change(Change::Truncate { length });
        Ok(())
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let fault = state.syncs.strike();
        let file = state.file_mut(file)?;
        match fault {
            None => file.sync(),
            Some(fault) => {
                file.pending.clear(); // the kernel drops the dirty pages and forgets the error
                return Err(fault.error());
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        if let Some(fault) = state.syncs.strike() {
            return Err(fault.error());
        }
        state.dir_mut(dir)?.sync();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let node = state.find(from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(Node::Dir(dir)) = state.find(to).map(|node| &state.nodes[&node])
            && !dir.current.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let ((from_dir, from), (to_dir, to)) = (split(from), split(to));
        state.create_dirs(to_dir)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        if from_dir == to_dir {
            let change = EntryChange::Move { from, to, node };
            state.dir_mut(from_dir)?.change(change);
        } else {
            let link = EntryChange::Link { name: to, node };
            state.dir_mut(to_dir)?.change(link);
            let unlink = EntryChange::Unlink { name: from, node };
            state.dir_mut(from_dir)?.change(unlink);
        }
        Ok(())
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.lock().unlink(file)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.lock().unlink(dir)
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::Io => io::Error::other("injected EIO"),
            Fault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "injected ENOSPC"),
        }
    }
}

impl Countdown {
    fn strike(&mut self) -> Option<Fault> {
        let (left, fault) = self.0?;
        if left > 0 {
            self.0 = Some((left - 1, fault));
            return None;
        }
        if fault == Fault::Io {
            self.0 = None;
        }
        Some(fault)
    }
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        match self.power_cut_at {
            Some(at) if self.changes >= at => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }

    fn change(&mut self) -> io::Result<()> {
        self.check_power()?;
        self.changes += 1;
        Ok(())
    }

    fn clear_faults(&mut self) {
        self.writes = Countdown::default();
        self.syncs = Countdown::default();
        self.reads = Countdown::default();
        self.power_cut_at = None;
    }

    fn find(&self, path: &str) -> Option<NodeId> {
        let mut node = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match &self.nodes[&node] {
                Node::Dir(dir) => node = *dir.current.get(part)?,
                Node::File(_) => return None,
            }
        }
        Some(node)
    }

    fn file(&self, path: &str) -> io::Result<&File> {
        match self.find(path).map(|node| &self.nodes[&node]) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found(path)),
        }
    }

    fn file_mut(&mut self, path: &str) -> io::Result<&mut File> {
        let node = self.find(path).ok_or_else(|| not_found(path))?;
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn dir_mut(&mut self, path: &str) -> io::Result<&mut Dir> {
        let node = self.find(path).ok_or_else(|| not_found(path))?;
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file_or_create(&mut self, path: &str) -> io::Result<&mut File> {
        if self.find(path).is_none() {
            let (dir, name) = split(path);
            self.create_dirs(dir)?;
            self.create(dir, name, Node::File(File::default()))?;
        }
        self.file_mut(path)
    }

    fn create_dirs(&mut self, path: &str) -> io::Result<()> {
        if self.find(path).is_none() {
            let (dir, name) = split(path);
            self.create_dirs(dir)?;
            self.create(dir, name, Node::Dir(Dir::default()))?;
        }
        Ok(())
    }

    fn create(&mut self, dir: &str, name: &str, node: Node) -> io::Result<()> {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        let name = name.to_owned();
        self.dir_mut(dir)?
            .change(EntryChange::Link { name, node: id });
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> io::Result<()> {
        self.change()?;
        if let Some(node) = self.find(path) {
            let (dir, name) = split(path);
            let name = name.to_owned();
            self.dir_mut(dir)?
                .change(EntryChange::Unlink { name, node });
        }
        Ok(())
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = vec![ROOT];
        let mut next = 0;
        while let Some(node) = reachable.get(next).copied() {
            next += 1;
            if let Node::Dir(dir) = &self.nodes[&node] {
                reachable.extend(dir.current.values());
            }
        }
        self.nodes.retain(|node, _| reachable.contains(node));
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn crash(&mut self, survival: &mut Survival, random: &mut Random) {
        let mut content = std::mem::take(&mut self.durable);
        for change in std::mem::take(&mut self.pending) {
            let survives = survival.decide(random);
            change.crash(&mut content, survives, random);
        }
        self.durable = content.clone();
        self.current = content;
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { position, bytes } => write(content, *position, bytes),
            Change::Truncate { length } => content.resize(*length as usize, 0),
        }
    }

    fn crash(&self, content: &mut Vec<u8>, survives: bool, random: &mut Random) {
        match self {
            Change::Write { position, bytes } => {
                let torn = survives && random.one_in(4);
                if survives && !torn {
                    return write(content, *position, bytes);
                }
                if torn {
                    tear(content, *position, bytes, random);
                }
                let end = *position as usize + bytes.len();
                if content.len() < end && random.one_in(4) {
                    content.resize(end, 0); // the length made it to the disk, the data did not
                }
            }
            Change::Truncate { .. } if survives => self.apply(content),
            Change::Truncate { .. } => {}
        }
    }
}

fn write(content: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let (start, end) = (position as usize, position as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// Some sectors of the write survive: the first few, or any.
fn tear(content: &mut Vec<u8>, position: u64, bytes: &[u8], random: &mut Random) {
    let end = position + bytes.len() as u64;
    let sectors = (end.div_ceil(SECTOR_BYTES)) - position / SECTOR_BYTES;
    let first_lost = random.one_in(2).then(|| random.below(sectors));
    let mut from = position;
    for sector in 0..sectors {
        let to = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
        let survives = match first_lost {
            Some(first_lost) => sector < first_lost,
            None => random.one_in(2),
        };
        if survives {
            let part = &bytes[(from - position) as usize..(to - position) as usize];
            write(content, from, part);
        }
        from = to;
    }
}

impl Dir {
    fn change(&mut self, change: EntryChange) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.durable = self.current.clone();
        self.pending.clear();
    }

    fn crash(&mut self, survival: &mut Survival, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            if survival.decide(random) {
                change.apply(&mut self.durable);
            }
        }
        self.current = self.durable.clone();
    }
}

impl EntryChange {
    /// Also to entries that an earlier, lost change would have made: a rename that survives
    /// brings its file along; an unlink or a rename leaves alone what meanwhile has its name.
    fn apply(&self, entries: &mut BTreeMap<String, NodeId>) {
        let mut unlink = |name: &String, node: &NodeId| {
            if entries.get(name) == Some(node) {
                entries.remove(name);
            }
        };
        match self {
            EntryChange::Link { name, node } => {
                entries.insert(name.clone(), *node);
            }
            EntryChange::Unlink { name, node } => unlink(name, node),
            EntryChange::Move { from, to, node } => {
                unlink(from, node);
                entries.insert(to.clone(), *node);
            }
        }
    }
}

/// How kind a crash is.
enum Survival {
    Nothing,
    Everything,
    /// So many changes, file by file, in order; then nothing.
    First(u64),
    OneIn(u64),
}

impl Survival {
    fn draw(random: &mut Random) -> Survival {
        match random.below(6) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::First(random.below(8)),
            _ => Survival::OneIn(2 + random.below(2)),
        }
    }

    fn decide(&mut self, random: &mut Random) -> bool {
        match self {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::First(left) => {
                let survives = *left > 0;
                *left = left.saturating_sub(1);
                survives
            }
            Survival::OneIn(n) => random.one_in(*n),
        }
    }
}

/// Directory and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such file: {path}"))
}

#[cfg(test)]
mod tests;
