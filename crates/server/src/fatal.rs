//! The end that nobody asked for: a write or sync that failed, or a core that panicked.
//!
//! A failed sync may report success the next time while the bytes are gone, so nothing is
//! retried and nothing more is acknowledged. A broker of its own says why and leaves the process;
//! an embedded one closes its connections and keeps the reason for its owner.

use crate::disk::RealDisk;
use crate::disk::lock::DirectoryLock;
use oncelog_commitlog::Disk;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};
use tokio::sync::Notify;

/// Exit codes, as in sysexits.h.
pub const EXIT_IO: i32 = 74;
pub const EXIT_SOFTWARE: i32 = 70;

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    pub exit_code: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    ExitProcess,
    /// Stop serving and keep the failure (embedded).
    StopServing,
}

pub struct Fatal {
    mode: OnFailure,
    /// Weak: the directory is free when its owner lets go, whoever still looks at this.
    lock: Weak<DirectoryLock>,
    failed: AtomicBool,
    first: OnceLock<Failure>,
    changed: Notify,
}

impl Fatal {
    /// `lock`: is told of failures of the disk.
    pub fn new(mode: OnFailure, lock: Weak<DirectoryLock>) -> Fatal {
        Fatal {
            mode,
            lock,
            failed: AtomicBool::new(false),
            first: OnceLock::new(),
            changed: Notify::new(),
        }
    }

    pub fn report(&self, failure: Failure) {
        self.failed.store(true, Ordering::SeqCst);
        if self.first.set(failure.clone()).is_err() {
            return; // the first one says why; what follows from it does not matter
        }
        tracing::error!("{}", failure.message);
        if failure.exit_code == EXIT_IO
            && let Some(lock) = self.lock.upgrade()
            && let Err(error) = lock.note_disk_failure(true)
        {
            tracing::error!("noting that in the data directory failed too: {error}");
        }
        if self.mode == OnFailure::ExitProcess {
            std::process::exit(failure.exit_code);
        }
        self.changed.notify_one();
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.first.get()
    }

    /// Returns when something was reported.
    pub async fn failed(&self) {
        while !self.has_failed() {
            self.changed.notified().await;
        }
    }
}

impl Failure {
    /// `doing`: "writing", "syncing"; `file`: a name below the data directory.
    pub fn of_disk(disk: &RealDisk, doing: &str, file: &str, error: &io::Error) -> Failure {
        let path = disk.path(file);
        let size = match disk.len(file) {
            Ok(Some(bytes)) => format!(" ({bytes} bytes long)"),
            _ => String::new(),
        };
        let next = match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                let free = disk.free_bytes().map_or(String::new(), |free| {
                    format!(" ({free} bytes are free on its file system)")
                });
                format!(
                    "The disk is full{free}. Make room, or lower the topics' retention.bytes or \
                     retention.ms after the next start, and start the broker again"
                )
            }
            Some(Errno::ROFS) => {
                "The file system is read-only: see the kernel's log, repair and remount it, and \
                 start the broker again"
                    .to_owned()
            }
            Some(Errno::MFILE | Errno::NFILE) => {
                "Too many files are open: raise the limit (ulimit -n) and start again".to_owned()
            }
            Some(Errno::ACCESS | Errno::PERM) => {
                "Give the broker's user the right to write there and start it again".to_owned()
            }
            Some(Errno::IO) => {
                "The device failed: see the kernel's log and check the disk before the next start"
                    .to_owned()
            }
            _ => {
                "See the kernel's log, and start the broker again when the cause is gone".to_owned()
            }
        };
        Failure {
            message: format!(
                "{doing} {}{size} failed: {error}. {next}. The broker stops now, without another \
                 acknowledgement; everything that was acknowledged as durable is on disk",
                path.display()
            ),
            exit_code: EXIT_IO,
        }
    }

    pub fn core_panicked() -> Failure {
        Failure {
            message: "the broker's core panicked (its message stands above): this is a defect. \
                      The broker stops now, without another acknowledgement, and recovers from \
                      its log at the next start; please report it with the message"
                .to_owned(),
            exit_code: EXIT_SOFTWARE,
        }
    }
}
