//! The disk as the recovery of many partitions sees it: synced once as a whole, so that what
//! nobody has changed since needs no sync of its own.
//!
//! Recovery syncs every directory and every tail that it has read, since a process that was killed
//! may not have. On a file system that is busy each of these waits for the device: thousands of
//! partitions took half a minute. One `syncfs` makes all of it durable, and reports a failed
//! write-back like any other sync (Linux 5.8).
//!
//! Invariants: a sync is left out only if the file or directory lies on the file system that was
//! synced and was not changed through this value since. Nothing else may change the directory
//! meanwhile (its lock sees to that).

use super::RealDisk;
use oncelog_commitlog::Disk;
use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct SettledDisk<'a> {
    disk: &'a RealDisk,
    /// Files and directories that were changed and not synced since.
    changed: Mutex<HashSet<String>>,
}

impl<'a> SettledDisk<'a> {
    /// Syncs the whole file system.
    pub fn settle(disk: &'a RealDisk) -> io::Result<SettledDisk<'a>> {
        disk.sync_file_system()?;
        Ok(SettledDisk {
            disk,
            changed: Mutex::default(),
        })
    }

    /// Whether everything of this name was durable already; if not, it is about to be.
    fn is_settled(&self, name: &str) -> io::Result<bool> {
        if self.lock().remove(name) {
            return Ok(false);
        }
        Ok(!self.disk.is_elsewhere(name)?)
    }

    fn note(&self, name: &str) {
        self.lock().insert(name.to_owned());
    }

    /// The directories above may have got or lost an entry.
    fn note_entry(&self, name: &str) {
        let mut above = name;
        while !above.is_empty() {
            above = above.rsplit_once('/').map_or("", |(parent, _)| parent);
            self.note(above);
        }
    }

    // Each change is a single insert or remove: sound after any panic.
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SettledDisk<'_> {
    fn read_at(&self, file: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, position, buffer)
    }

    fn len(&self, file: &str) -> io::Result<Option<u64>> {
        self.disk.len(file)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn write_at(&self, file: &str, position: u64, buffers: &[&[u8]]) -> io::Result<()> {
        self.note(file);
        self.note_entry(file);
        self.disk.write_at(file, position, buffers)
    }

    fn truncate(&self, file: &str, length: u64) -> io::Result<()> {
        self.note(file);
        self.disk.truncate(file, length)
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        match self.is_settled(file)? {
            true => Ok(()),
            false => self.disk.sync(file),
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        match self.is_settled(dir)? {
            true => Ok(()),
            false => self.disk.sync_dir(dir),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        for name in [from, to] {
            self.note(name);
            self.note_entry(name);
        }
        self.disk.rename(from, to)
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.note_entry(file);
        self.disk.remove(file)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.note_entry(dir);
        self.disk.remove_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After `change`, which of the names still need a sync; each is asked for twice, because a
    /// sync settles it again.
    fn check(change: impl Fn(&dyn Disk) -> io::Result<()>, unsettled: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path(), 16).unwrap();
        for file in ["a-0/log", "a-0/index", "b-0/log", "meta"] {
            disk.write_at(file, 0, &[b"bytes"]).unwrap();
        }
        let settled = SettledDisk::settle(&disk).unwrap();
        change(&settled).unwrap();
        let names = ["", "a-0", "b-0", "a-0/log", "a-0/index", "b-0/log", "meta"];
        let there = names.iter().filter(|name| disk.path(name).exists());
        let found: Vec<&str> = there
            .filter(|name| !settled.is_settled(name).unwrap())
            .copied()
            .collect();
        assert_eq!(found, unsettled);
        for name in unsettled {
            assert!(settled.is_settled(name).unwrap(), "{name} was synced");
        }
    }

    #[test]
    fn only_what_was_changed_is_synced_again() {
        check(|_| Ok(()), &[]);
        check(
            |disk| disk.write_at("a-0/log", 0, &[b"x"]),
            &["", "a-0", "a-0/log"],
        );
        check(|disk| disk.truncate("b-0/log", 1), &["b-0/log"]);
        check(|disk| disk.remove("a-0/index"), &["", "a-0"]);
        check(|disk| disk.remove_dir("b-0"), &[""]);
        check(
            |disk| disk.rename("a-0/index", "b-0/log"),
            &["", "a-0", "b-0", "b-0/log"],
        );
    }

    #[test]
    fn a_sync_of_what_does_not_exist_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path(), 16).unwrap();
        let settled = SettledDisk::settle(&disk).unwrap();
        let error = settled.sync("missing-0/log").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
