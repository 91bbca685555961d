//! Files that are held open while an answer is made of them (see [`crate::answer`]).

use oncelog_commitlog::{Disk, FileName};
use std::io;

/// A file that is held open: it stays what it is when its name goes to another one.
pub trait PinnedFile: Send + Sync {
    /// As [`Disk::read_at`].
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Bytes of the file.
    fn size(&self) -> io::Result<u64>;
}

/// Not held open at all: for hosts that change no file while they encode an answer.
pub(crate) struct ByName<'a> {
    disk: &'a dyn Disk,
    name: FileName,
}

impl<'a> ByName<'a> {
    pub fn new(disk: &'a dyn Disk, name: &FileName) -> ByName<'a> {
        let name = name.clone();
        ByName { disk, name }
    }

    pub fn into_name(self) -> FileName {
        self.name
    }
}

impl PinnedFile for ByName<'_> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(&self.name, position, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        let size = self.disk.len(&self.name)?;
        size.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The disk, to be read only, in which one name leads to a file that is held open.
pub(crate) struct ThroughPin<'a, F> {
    disk: &'a dyn Disk,
    name: &'a str,
    file: &'a F,
}

impl<'a, F> ThroughPin<'a, F> {
    pub fn new(disk: &'a dyn Disk, name: &'a str, file: &'a F) -> ThroughPin<'a, F> {
        ThroughPin { disk, name, file }
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl<F: PinnedFile> Disk for ThroughPin<'_, F> {
    fn read_at(&self, file: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match file == self.name {
            true => self.file.read_at(position, buffer),
            false => self.disk.read_at(file, position, buffer),
        }
    }

    fn len(&self, file: &str) -> io::Result<Option<u64>> {
        match file == self.name {
            true => self.file.size().map(Some),
            false => self.disk.len(file),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn write_at(&self, _: &str, _: u64, _: &[&[u8]]) -> io::Result<()> {
        read_only()
    }

    fn truncate(&self, _: &str, _: u64) -> io::Result<()> {
        read_only()
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove_dir(&self, _: &str) -> io::Result<()> {
        read_only()
    }
}
