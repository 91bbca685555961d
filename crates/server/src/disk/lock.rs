//! One broker per data directory: an advisory lock on `.lock`, as Kafka holds it.
//!
//! The kernel drops the lock with the process, so that a crash leaves nothing to clean up. The
//! file holds the owner's process id, for the message that the next one prints.

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = ".lock";

/// Held for as long as the broker may touch the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
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
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = match file.read_to_string(&mut text) {
                    Ok(_) => text.trim().parse::<u32>().ok(),
                    Err(_) => None,
                };
                let owner = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                let directory = directory.to_owned();
                return Err(LockError::InUse { directory, owner });
            }
            Err(e) => return Err(failed(e.into())),
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(failed)?;
        Ok(DirectoryLock { _file: file })
    }
}
