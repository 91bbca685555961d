//! Names of the files in a partition's directory: Kafka's, so that Kafka's tools find them.
//!
//! A segment's files are named for its base offset, 20 digits: `00000000000000000042.log`. What is
//! on its way in or out has one more suffix, with Kafka's meaning:
//!
//! - `.cleaned`: written by a compaction that has not finished; recovery removes it.
//! - `.swap`: written wholly and synced, about to replace segments; see [`crate::compaction`].
//! - `.deleted`: no longer part of the log, kept a while for readers; recovery removes it.
//! - `.tmp`: half of an atomic replacement; recovery removes it.

use crate::disk::FileName;

pub(crate) const LOG: &str = ".log";
pub(crate) const INDEX: &str = ".index";
pub(crate) const TIME_INDEX: &str = ".timeindex";
pub(crate) const TXN_INDEX: &str = ".txnindex";
pub(crate) const DELETED: &str = ".deleted";
pub(crate) const CLEANED: &str = ".cleaned";
pub(crate) const SWAP: &str = ".swap";
pub(crate) const TMP: &str = ".tmp";

pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
pub(crate) const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
/// Ours: see [`crate::checkpoint`]. Kafka ignores names that it does not know.
pub(crate) const CHECKPOINT: &str = "oncelog-checkpoint";

/// The files of a segment. The log comes last: where it stands under a new name, its indexes stand
/// too. Only a segment in which a transaction was aborted has a `.txnindex`.
pub(crate) const SEGMENT_KINDS: [&str; 4] = [INDEX, TIME_INDEX, TXN_INDEX, LOG];

/// `dir/<base offset>kind`.
pub(crate) fn segment_file(dir: &str, base_offset: i64, kind: &str) -> FileName {
    format!("{dir}/{base_offset:020}{kind}").into()
}

/// `file` with one more suffix.
pub(crate) fn with_suffix(file: &str, suffix: &str) -> FileName {
    format!("{file}{suffix}").into()
}

pub(crate) fn in_dir(dir: &str, name: &str) -> FileName {
    format!("{dir}/{name}").into()
}

/// The directory above, `""` for the root.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What a name in a partition's directory says, as far as it concerns the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// `<base>.log`, `<base>.index`, `<base>.timeindex` or `<base>.txnindex`.
    Live {
        base_offset: i64,
        kind: &'static str,
    },
    /// `<base>.<kind>.swap`.
    Swap {
        base_offset: i64,
        kind: &'static str,
    },
    /// `.cleaned`, `.deleted` and our `.tmp`: to be removed at recovery.
    Leftover,
    /// Another's file (producer snapshots), or one that recovery reads by its name.
    Other,
}

pub(crate) fn meaning(name: &str) -> Meaning {
    let ours = |name: &str| {
        segment_name(name).is_some() || name == CHECKPOINT || name == LEADER_EPOCH_CHECKPOINT
    };
    if let Some((base_offset, kind)) = segment_name(name) {
        return Meaning::Live { base_offset, kind };
    }
    if let Some((base_offset, kind)) = name.strip_suffix(SWAP).and_then(segment_name) {
        return Meaning::Swap { base_offset, kind };
    }
    for suffix in [CLEANED, DELETED] {
        if name.ends_with(suffix) {
            return Meaning::Leftover;
        }
    }
    match name.strip_suffix(TMP) {
        Some(name) if ours(name) || name == PARTITION_METADATA => Meaning::Leftover,
        _ => Meaning::Other,
    }
}

fn segment_name(name: &str) -> Option<(i64, &'static str)> {
    let (digits, suffix) = name.split_at_checked(20)?;
    let kind = SEGMENT_KINDS.into_iter().find(|kind| *kind == suffix)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_kafka_means() {
        let base_offset = 42;
        let check = |name: &str, expected| assert_eq!(meaning(name), expected, "{name}");
        for kind in SEGMENT_KINDS {
            let name = format!("00000000000000000042{kind}");
            check(&name, Meaning::Live { base_offset, kind });
            check(&format!("{name}.swap"), Meaning::Swap { base_offset, kind });
            check(&format!("{name}.cleaned"), Meaning::Leftover);
            check(&format!("{name}.deleted"), Meaning::Leftover);
            check(&format!("{name}.tmp"), Meaning::Leftover);
        }
        check("00000000000000000042.snapshot", Meaning::Other);
        check("00000000000000000042.snapshot.deleted", Meaning::Leftover);
        check("00000000000000000042.snapshot.tmp", Meaning::Other);
        check("42.log", Meaning::Other);
        check("99999999999999999999.log", Meaning::Other);
        check("+0000000000000000042.log", Meaning::Other);
        check("partition.metadata", Meaning::Other);
        check("oncelog-checkpoint.tmp", Meaning::Leftover);
        check("ü.log", Meaning::Other);
        check("", Meaning::Other);
    }

    #[test]
    fn paths() {
        assert_eq!(
            &*segment_file("orders-0", 42, LOG),
            "orders-0/00000000000000000042.log"
        );
        assert_eq!(parent("orders-0"), "");
        assert_eq!(parent("a/b/c"), "a/b");
    }
}
