//! The batches of a recovered log once more, for state that is built from them.

use crate::disk::Disk;
use crate::limits;
use crate::log::Log;
use crate::scan::{Scanner, entry_position, indexed_position};
use bytes::Bytes;
use oncelog_wire::records::{Batch, BatchHeader};
use std::io;

/// Visits the header of every batch that reaches `from_offset`, in order, to the log's end: for
/// state that was saved as of `from_offset`. A control batch is given whole, because what it says
/// is not in its header.
///
/// Only for a log that was just recovered. Errors: the visitor's, and `InvalidData` where no batch
/// is.
pub fn replay_batches(
    disk: &dyn Disk,
    log: &Log,
    from_offset: i64,
    visitor: &mut dyn FnMut(&BatchHeader, Option<&Batch>) -> io::Result<()>,
) -> io::Result<()> {
    let segments = log.segments.iter();
    for segment in segments.filter(|s| s.next_offset > from_offset && s.size > 0) {
        let file = segment.log_file(&log.dir);
        let from = match &segment.index {
            Some(index) => entry_position(disk, &file, index.floor(from_offset - 1))?,
            None => {
                let index_file = segment.index_file(&log.dir);
                indexed_position(disk, &file, &index_file, segment.base_offset, |index| {
                    index.floor(from_offset - 1)
                })?
            }
        };
        let mut scanner = Scanner::new(disk, &file, from, segment.size, limits::SCAN_CHUNK_BYTES);
        while let Some(step) = scanner.next()? {
            let found = step.map_err(|flaw| flaw.into_error(&file))?;
            if found.header.last_offset() < from_offset {
                continue;
            }
            let control = match found.header.is_control() {
                true => Some(parse(scanner.read(&found)?)?),
                false => None,
            };
            visitor(&found.header, control.as_ref()).map_err(|error| {
                let message = format!("{file} at byte {}: {error}", found.position);
                io::Error::new(error.kind(), message)
            })?;
        }
    }
    Ok(())
}

fn parse(bytes: Bytes) -> io::Result<Batch> {
    let parsed = Batch::parse(&bytes);
    parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
