//! The one door to files: everything in the cores that reads or writes goes through [`Disk`].
//!
//! Calls are synchronous and positional. Paths are relative to the data directory, with `/`
//! between parts (`orders-0/00000000000000000000.log`), so that the simulator can serve them from
//! memory. It deliberately has no `open`: an implementation caches descriptors as it sees fit
//! (bounded, see the host), and a path is the only name that a file has.
//!
//! Two durability points, and only two: [`Disk::sync`] makes a file's bytes and length survive a
//! power cut, [`Disk::sync_dir`] makes the entries of a directory (created, renamed and removed
//! names) survive. Nothing else is promised to survive. An error from `write_at`, `sync` or
//! `sync_dir` is never retried: the caller stops the broker (fsync that failed once may lie the
//! second time).

use std::io;
use std::sync::Arc;

/// A file or directory below the data directory; cheap to clone.
pub type FileName = Arc<str>;

pub trait Disk: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `position`; fewer only at the end of the file.
    /// `ErrorKind::NotFound` if there is no such file.
    fn read_at(&self, file: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The file's length in bytes, `None` if there is no such file.
    fn len(&self, file: &str) -> io::Result<Option<u64>>;

    /// Names (not paths) in a directory, sorted; empty if it does not exist. `""` is the root.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Writes all `buffers` one after the other from `position`; creates the file, and the
    /// directories above it, if missing.
    fn write_at(&self, file: &str, position: u64, buffers: &[&[u8]]) -> io::Result<()>;

    fn truncate(&self, file: &str, length: u64) -> io::Result<()>;

    fn sync(&self, file: &str) -> io::Result<()>;

    /// Makes the entries of `dir` durable; `""` is the root.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Renames a file or a directory, replacing a file that stands there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; fine if it is not there.
    fn remove(&self, file: &str) -> io::Result<()>;

    /// Removes a directory with all that is in it; fine if it is not there.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;
}

/// Fills `buffer` from `position`; `ErrorKind::UnexpectedEof` if the file ends before.
pub(crate) fn read_exact_at(
    disk: &dyn Disk,
    file: &str,
    position: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    let read = disk.read_at(file, position, buffer)?;
    if read < buffer.len() {
        let message = format!("{file} ends before byte {}", position + buffer.len() as u64);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    Ok(())
}

/// The whole of a small file; `None` if there is none, an error if it is longer than `bytes_max`.
pub(crate) fn read_file(
    disk: &dyn Disk,
    file: &str,
    bytes_max: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = disk.len(file)? else {
        return Ok(None);
    };
    if length > bytes_max {
        let message = format!("{file} has {length} bytes, more than {bytes_max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut content = vec![0; length as usize];
    read_exact_at(disk, file, 0, &mut content)?;
    Ok(Some(content))
}
