//! The real [`Disk`]: files below one data directory.
//!
//! Paths become descriptors through a bounded cache ([`descriptors`]); reads, writes and syncs
//! run on them without any lock, so that threads work on one file at the same time. What it
//! deliberately does not do: buffer, retry a failed write or sync, or order operations (the core
//! states the order, see [`oncelog_commitlog::DiskOp`]).
//!
//! Invariants:
//! - a name always leads to the file that bears it now: renames and removals drop the cached
//!   descriptors of both names before they return;
//! - no path leaves the data directory.

pub mod descriptors;
pub mod lock;
pub mod settled;

use crate::limits;
use descriptors::Descriptors;
use oncelog_commitlog::Disk;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct RealDisk {
    root: PathBuf,
    /// Open from the start, so that [`RealDisk::sync_file_system`] hears of every write-back that
    /// failed since.
    root_directory: File,
    /// The file system that `root` is on.
    device: u64,
    open: Descriptors,
}

impl RealDisk {
    /// `root` is made if it does not exist. `descriptors`: how many files may stay open.
    pub fn open(root: &Path, descriptors: usize) -> io::Result<RealDisk> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let root_directory = File::open(&root)?;
        Ok(RealDisk {
            device: root_directory.metadata()?.dev(),
            root,
            root_directory,
            open: Descriptors::new(descriptors),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A descriptor for sending from a file; it stays valid after the file's removal.
    pub fn file(&self, name: &str) -> io::Result<Arc<File>> {
        self.descriptor(name, OFlags::empty())
    }

    /// Bytes that an ordinary user can still write to the data directory's file system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes everything durable at once that was written to the file system of the data directory,
    /// names included. What lies on another one ([`RealDisk::is_elsewhere`]) is not part of it.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root_directory)?)
    }

    /// Whether the file or directory is on another file system than the data directory, mounted or
    /// linked below it.
    pub fn is_elsewhere(&self, name: &str) -> io::Result<bool> {
        Ok(std::fs::metadata(self.checked_path(name)?)?.dev() != self.device)
    }

    /// Has every file read from the device again, not from the page cache.
    ///
    /// After a write-back that failed, Linux keeps the bytes in the page cache and calls them
    /// clean: they read well, a sync of them succeeds, and they are on no disk. What is still to
    /// be written is not dropped; sync first.
    pub fn forget_cached(&self) -> io::Result<()> {
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    directories.push(entry.path());
                } else if kind.is_file() {
                    let file = File::open(entry.path())?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
            }
        }
        Ok(())
    }

    /// The path of a name, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn checked_path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if name.is_empty() {
            return Ok(self.root.clone());
        }
        if !name.split('/').all(plain) || name.contains('\0') {
            let message = format!("{name:?} is not a path inside the data directory");
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(self.root.join(name))
    }

    fn descriptor(&self, name: &str, extra: OFlags) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.get(name) {
            return Ok(file);
        }
        let before = self.open.generation();
        let path = self.checked_path(name)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | extra;
        let open = || {
            rustix::io::retry_on_intr(|| rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)))
        };
        let file = match open() {
            Err(Errno::NOENT) if extra.contains(OFlags::CREATE) => {
                let parent = path.parent().unwrap_or(&self.root);
                std::fs::create_dir_all(parent)?;
                open()?
            }
            // Ours are not the only open files: give the cache's away before failing.
            Err(Errno::MFILE | Errno::NFILE) => {
                self.open.clear();
                open()?
            }
            // Below a file there is nothing, and that is all there is to say.
            Err(Errno::NOTDIR) if !extra.contains(OFlags::CREATE) => {
                return Err(ErrorKind::NotFound.into());
            }
            other => other?,
        };
        Ok(self.open.insert(name, Arc::new(File::from(file)), before))
    }
}

impl Disk for RealDisk {
    fn read_at(&self, file: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let descriptor = self.descriptor(file, OFlags::empty())?;
        let mut done = 0;
        while done < buffer.len() {
            let at = position + done as u64;
            let read = rustix::io::retry_on_intr(|| {
                rustix::io::pread(&descriptor, &mut buffer[done..], at)
            })?;
            if read == 0 {
                break;
            }
            done += read;
        }
        Ok(done)
    }

    fn len(&self, file: &str) -> io::Result<Option<u64>> {
        if let Some(descriptor) = self.open.get(file) {
            return Ok(Some(rustix::fs::fstat(&descriptor)?.st_size as u64));
        }
        match std::fs::metadata(self.checked_path(file)?) {
            Ok(data) => Ok(Some(data.len())),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.checked_path(dir)?) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 cannot be one of ours.
            if let Ok(name) = entry?.file_name().into_string()
                && !(dir.is_empty() && name == lock::FILE_NAME)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn write_at(&self, file: &str, position: u64, buffers: &[&[u8]]) -> io::Result<()> {
        let descriptor = self.descriptor(file, OFlags::CREATE)?;
        write_all_at(&descriptor, position, buffers)
    }

    fn truncate(&self, file: &str, length: u64) -> io::Result<()> {
        let descriptor = self.descriptor(file, OFlags::empty())?;
        Ok(rustix::io::retry_on_intr(|| {
            rustix::fs::ftruncate(&descriptor, length)
        })?)
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        let descriptor = self.descriptor(file, OFlags::empty())?;
        // Not retried on EINTR: an interrupted sync is a failed sync.
        Ok(rustix::fs::fdatasync(&descriptor)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(self.checked_path(dir)?, flags, Mode::empty())?;
        Ok(rustix::fs::fsync(&descriptor)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let result = std::fs::rename(self.checked_path(from)?, self.checked_path(to)?);
        self.open.forget(from);
        self.open.forget(to);
        result
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        let result = std::fs::remove_file(self.checked_path(file)?);
        self.open.forget(file);
        not_found_is_fine(result)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.checked_path(dir)?;
        if dir.is_empty() {
            let message = "the data directory itself is not removed";
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let result = std::fs::remove_dir_all(path);
        self.open.forget(dir);
        not_found_is_fine(result)
    }
}

fn not_found_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if is_absent(&e) => Ok(()),
        other => other,
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Writes all buffers one after the other. A short write goes on where it ended: that is no
/// retry, only a failed one would be.
fn write_all_at(file: &File, position: u64, buffers: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = buffers.iter().map(|b| IoSlice::new(b)).collect();
    let mut rest = &mut slices[..];
    let mut at = position;
    IoSlice::advance_slices(&mut rest, 0); // drops empty buffers in front
    while !rest.is_empty() {
        let window = &rest[..rest.len().min(limits::WRITE_AT_SLICES)];
        let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, window, at))?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        at += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
