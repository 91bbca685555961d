//! Open files by name, bounded.
//!
//! A hit takes a shared lock for a look-up and nothing else. When the cache is full, the eighth
//! that was used longest ago goes at once, so that the cost of choosing is spread. A file that is
//! dropped here stays open for those who still hold it.
//!
//! Invariant: a descriptor is kept under a name only if nothing was renamed or removed between
//! opening the name and keeping it (the generation is still the same); so no name ever leads to
//! a file that it used to bear.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub struct Descriptors {
    limit: usize,
    clock: AtomicU64,
    open: RwLock<Open>,
}

struct Open {
    generation: u64,
    files: HashMap<Box<str>, Entry>,
}

struct Entry {
    file: Arc<File>,
    used: AtomicU64,
}

impl Descriptors {
    pub fn new(limit: usize) -> Descriptors {
        Descriptors {
            limit: limit.max(8),
            clock: AtomicU64::new(0),
            open: RwLock::new(Open {
                generation: 0,
                files: HashMap::new(),
            }),
        }
    }

    pub fn get(&self, name: &str) -> Option<Arc<File>> {
        let open = self.read();
        let entry = open.files.get(name)?;
        entry.used.store(self.tick(), Ordering::Relaxed);
        Some(entry.file.clone())
    }

    /// To be asked for before the name is opened.
    pub fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Keeps a file that was opened at `generation`; returns the one to use, which is another
    /// thread's if that was faster.
    pub fn insert(&self, name: &str, file: Arc<File>, generation: u64) -> Arc<File> {
        let used = self.tick();
        let mut open = self.write();
        if open.generation != generation {
            return file;
        }
        if let Some(entry) = open.files.get(name) {
            return entry.file.clone();
        }
        if open.files.len() >= self.limit {
            evict(&mut open, self.limit / 8 + 1);
        }
        let entry = Entry {
            file: file.clone(),
            used: AtomicU64::new(used),
        };
        open.files.insert(name.into(), entry);
        file
    }

    /// Drops a file, or a directory with all that is in it; to be called after the name changed.
    pub fn forget(&self, name: &str) {
        let mut open = self.write();
        open.generation += 1;
        let dropped = open.files.remove(name);
        if dropped.is_none() {
            let inside = |path: &str| {
                path.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            open.files.retain(|path, _| !inside(path));
        }
    }

    pub fn clear(&self) {
        self.write().files.clear();
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.read().files.len()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    // Nothing in here panics between two changes that belong together, so a poisoned lock is fine.
    fn read(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn evict(open: &mut Open, count: usize) {
    let used = |entry: &Entry| entry.used.load(Ordering::Relaxed);
    let mut times: Vec<u64> = open.files.values().map(used).collect();
    let last = count.min(times.len()) - 1;
    let (_, threshold, _) = times.select_nth_unstable(last);
    let threshold = *threshold;
    open.files.retain(|_, entry| used(entry) > threshold);
}
