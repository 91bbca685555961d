//! The read-process-write loop of the crash tests, as its client and its judge both know it: each
//! record of the input is once in each output, in the input's order, and a group's committed offset
//! says how many.
//!
//! The judge is pure, so that it can be tested. It deliberately does not look at transactions that
//! are open: what hangs is found by comparing last stable offsets with high watermarks.

use crate::record::Stamp;

pub const INPUT: &str = "input";
pub const OUTPUTS: [&str; 2] = ["output-a", "output-b"];
pub const PARTITIONS: i32 = 4;

/// How a copier ends when a later instance of its transactional id has taken over.
pub const FENCED: u8 = 3;
/// How a copier ends when it has to begin anew from what is committed.
pub const LOST: u8 = 4;

/// Where a record of an input's partition goes in output number `which`: a transaction spans
/// partitions that have nothing to do with each other.
pub fn output_partition(which: usize, partition: i32) -> i32 {
    (partition + which as i32) % PARTITIONS
}

/// One partition of the input, and what became of it.
pub struct Copied<'a> {
    pub input: &'a [Stamp],
    /// What a reader of committed records found in an output.
    pub output: &'a [Stamp],
    /// What the group has committed.
    pub committed: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Committed as read, and not in the output.
    pub lost: usize,
    pub duplicated: usize,
    pub reordered: usize,
    /// In the output, and not committed as read; or from nowhere.
    pub ahead: usize,
}

impl Verdict {
    pub fn is_well(self) -> bool {
        self == Verdict::default()
    }
}

pub fn judge(copied: &Copied<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut times = vec![0usize; copied.input.len()];
    let places: std::collections::HashMap<&Stamp, usize> = (copied.input.iter().zip(0..)).collect();
    let mut last = None;
    for stamp in copied.output {
        let Some(place) = places.get(stamp).copied() else {
            verdict.ahead += 1;
            continue;
        };
        times[place] += 1;
        match times[place] {
            1 if place >= copied.committed => verdict.ahead += 1,
            1 if last > Some(place) => verdict.reordered += 1,
            1 => {}
            _ => verdict.duplicated += 1,
        }
        last = last.max(Some(place));
    }
    let read = times.iter().take(copied.committed);
    verdict.lost = read.filter(|times| **times == 0).count();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &[u32], committed: usize) -> Verdict {
        let stamp = |number: &u32| Stamp {
            producer: 1,
            number: *number,
        };
        let input: Vec<Stamp> = (0..5).map(|number| stamp(&number)).collect();
        let output: Vec<Stamp> = output.iter().map(stamp).collect();
        judge(&Copied {
            input: &input,
            output: &output,
            committed,
        })
    }

    #[test]
    fn each_kind_of_damage_is_found() {
        assert!(check(&[0, 1, 2, 3, 4], 5).is_well());
        assert!(check(&[0, 1, 2], 3).is_well());
        assert!(check(&[], 0).is_well());
        assert_eq!(check(&[0, 2], 3).lost, 1);
        assert_eq!(check(&[0, 1, 1, 2], 3).duplicated, 1);
        assert_eq!(check(&[0, 2, 1], 3).reordered, 1);
        let ahead = check(&[0, 1, 2], 2);
        assert!(ahead.ahead == 1 && ahead.lost == 0, "{ahead:?}");
        let behind = check(&[0, 1], 3);
        assert!(behind.lost == 1 && behind.ahead == 0, "{behind:?}");
        assert_eq!(check(&[0, 1, 99], 2).ahead, 1, "from nowhere");
    }
}
