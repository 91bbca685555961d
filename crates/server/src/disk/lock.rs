//! One broker per data directory: an advisory lock on `.lock`, as Kafka holds it.
//!
//! The kernel drops the lock with the process, so that a crash leaves nothing to clean up. The
//! file holds the owner's process id, for the message that the next one prints, and whether a
//! write or sync failed under it: then the page cache may hold bytes that the disk does not, and
//! the next broker must not take them for durable ([`super::RealDisk::forget_cached`]). The word is
//! not synced. It needs to last only as long as that page cache, of which it is a part.

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = ".lock";

const DISK_FAILED: &str = "disk-failed";

/// Held for as long as the broker may touch the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    after_disk_failure: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "the data directory {directory} is in use by another broker{owner}. Stop that one, or \
         give this one a directory of its own (log.dirs)"
    )]
    InUse { directory: PathBuf, owner: String },
    #[error("cannot lock the data directory {directory}: {error}")]
    Io {
        directory: PathBuf,
        error: io::Error,
    },
}

impl DirectoryLock {
    pub fn acquire(directory: &Path) -> Result<DirectoryLock, LockError> {
        let failed = |error: io::Error| LockError::Io {
            directory: directory.to_owned(),
            error,
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(directory.join(FILE_NAME), flags, Mode::from_raw_mode(0o644))
            .map_err(|e| failed(e.into()))?;
        let mut file = File::from(file);
        let text = |file: &mut File| {
            let mut text = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            read.map(|_| text).unwrap_or_default()
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let text = text(&mut file);
                let pid = text.lines().next().and_then(|pid| pid.parse::<u32>().ok());
                let owner = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                let directory = directory.to_owned();
                return Err(LockError::InUse { directory, owner });
            }
            Err(e) => return Err(failed(e.into())),
        }
        let after_disk_failure = text(&mut file).lines().any(|line| line == DISK_FAILED);
        let lock = DirectoryLock {
            file,
            after_disk_failure,
        };
        // The word stays until it was acted upon: this broker may end before that.
        lock.write(after_disk_failure).map_err(failed)?;
        Ok(lock)
    }

    /// The last broker in here ended because a write or sync failed.
    pub fn is_after_disk_failure(&self) -> bool {
        self.after_disk_failure
    }

    /// Leaves word, or takes it back.
    pub fn note_disk_failure(&self, failed: bool) -> io::Result<()> {
        self.write(failed)
    }

    /// In place, at the beginning of a file of a few bytes: it takes no room on a full disk.
    fn write(&self, disk_failed: bool) -> io::Result<()> {
        let mut text = format!("{}\n", std::process::id());
        if disk_failed {
            text.push_str(DISK_FAILED);
            text.push('\n');
        }
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}
