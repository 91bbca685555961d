//! Which producer snapshots a partition has on disk, and the disk work that adds and removes them.
//!
//! As in Kafka, each segment keeps the snapshot that was taken when it was begun, and one more may
//! stand past the last segment's base (a clean shutdown, or a checkpoint between rolls). Unlike
//! Kafka, the newest two are kept whatever the log's start, so that a corrupt newest one costs a
//! short replay, and so that a log whose records were all deleted still knows its producers.
//!
//! It deliberately does not say *when* a snapshot is due (see [`crate::housekeeping`]).

use oncelog_commitlog::{DiskStep, FileName};
use std::collections::BTreeMap;

pub(crate) const SUFFIX: &str = ".snapshot";
pub(crate) const TEMPORARY_SUFFIX: &str = ".snapshot.tmp";
const KEPT_AT_LEAST: usize = 2;

#[derive(Debug)]
pub(crate) struct SnapshotFiles {
    dir: FileName,
    /// By offset; whether a segment begins there.
    files: BTreeMap<i64, bool>,
}

impl SnapshotFiles {
    pub(crate) fn new(dir: FileName) -> SnapshotFiles {
        SnapshotFiles {
            dir,
            files: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, offset: i64, begins_segment: bool) {
        let known = self.files.entry(offset).or_insert(begins_segment);
        *known |= begins_segment;
    }

    pub(crate) fn newest(&self) -> Option<i64> {
        self.files.last_key_value().map(|(offset, _)| *offset)
    }

    /// Those up to `offset`, the newest first.
    pub(crate) fn up_to(&self, offset: i64) -> impl Iterator<Item = i64> {
        self.files.range(..=offset).rev().map(|(offset, _)| *offset)
    }

    /// Steps that put `content` durably into the place of the snapshot before `offset`.
    pub(crate) fn write(
        &mut self,
        offset: i64,
        begins_segment: bool,
        content: bytes::Bytes,
    ) -> Vec<DiskStep> {
        self.add(offset, begins_segment);
        let file = self.path(offset);
        let temporary = FileName::from(format!("{}/{offset:020}{TEMPORARY_SUFFIX}", self.dir));
        vec![
            DiskStep::Write {
                file: temporary.clone(),
                content,
            },
            DiskStep::Sync {
                file: temporary.clone(),
            },
            DiskStep::Rename {
                from: temporary,
                to: file,
            },
            DiskStep::SyncDir {
                dir: self.dir.clone(),
            },
        ]
    }

    /// Whether one reaches as far as `log_start_offset` and describes nothing that a crash may
    /// still take (what lies at or past `high_watermark`).
    pub(crate) fn cover(&self, log_start_offset: i64, high_watermark: i64) -> bool {
        let mut covering = self.files.range(log_start_offset..=high_watermark);
        covering.next().is_some()
    }

    /// Steps that remove what is no longer needed: snapshots of deleted segments, and those
    /// between rolls that newer ones have replaced. The newest two that no crash can make useless
    /// stay in any case.
    pub(crate) fn prune(&mut self, log_start_offset: i64, high_watermark: i64) -> Vec<DiskStep> {
        let safe = self.files.range(..=high_watermark).count();
        let obsolete: Vec<i64> = self
            .files
            .iter()
            .take(safe.saturating_sub(KEPT_AT_LEAST))
            .filter(|(offset, begins_segment)| **offset < log_start_offset || !**begins_segment)
            .map(|(offset, _)| *offset)
            .collect();
        obsolete
            .into_iter()
            .map(|offset| self.remove(offset))
            .collect()
    }

    /// Forgets the snapshot; the step that removes its file.
    pub(crate) fn remove(&mut self, offset: i64) -> DiskStep {
        let known = self.files.remove(&offset);
        assert!(known.is_some(), "no snapshot at {offset}");
        DiskStep::Remove {
            file: self.path(offset),
        }
    }

    pub(crate) fn path(&self, offset: i64) -> FileName {
        FileName::from(format!("{}/{offset:020}{SUFFIX}", self.dir))
    }
}

/// The offset in a file name made of 20 digits and `suffix`.
pub(crate) fn offset_of(name: &str, suffix: &str) -> Option<i64> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(offset_of("00000000000000000042.snapshot", SUFFIX), Some(42));
        assert_eq!(offset_of("42.snapshot", SUFFIX), None);
        assert_eq!(offset_of("99999999999999999999.snapshot", SUFFIX), None);
        assert_eq!(offset_of("+0000000000000000042.snapshot", SUFFIX), None);
        let mut files = SnapshotFiles::new("t-0".into());
        files.add(42, true);
        assert_eq!(&*files.path(42), "t-0/00000000000000000042.snapshot");
    }

    #[test]
    fn prune_keeps_one_per_segment_and_the_newest_two() {
        let check = |files: &[(i64, bool)], log_start, removed: &[i64]| {
            let mut set = SnapshotFiles::new("t-0".into());
            for (offset, begins_segment) in files {
                set.add(*offset, *begins_segment);
            }
            let expected: Vec<DiskStep> = removed
                .iter()
                .map(|offset| DiskStep::Remove {
                    file: set.path(*offset),
                })
                .collect();
            assert_eq!(set.prune(log_start, 35), expected);
        };
        check(&[(10, true), (20, true), (30, true)], 0, &[]);
        check(&[(10, true), (20, true), (30, true)], 15, &[10]);
        check(&[(10, true), (20, true), (30, true)], 99, &[10]);
        check(
            &[(10, true), (15, false), (20, true), (25, false)],
            0,
            &[15],
        );
        check(&[(10, false), (25, false)], 99, &[]);
        // Those at 40 and 50 may vanish in a crash.
        check(&[(10, false), (20, false), (40, true), (50, true)], 0, &[]);
        check(
            &[(10, false), (20, false), (30, true), (50, true)],
            0,
            &[10],
        );
    }
}
