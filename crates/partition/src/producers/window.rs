//! The last batches of a producer, and the arithmetic of sequences.

/// How many of a producer's last batches are recognised when they are sent again: as many as a
/// client may have in flight (`max.in.flight.requests.per.connection` with idempotence).
pub const WINDOW: usize = 5;

/// One appended batch, as Kafka's snapshot describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchEntry {
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Last offset minus base offset, and just so last sequence minus base sequence.
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl BatchEntry {
    pub fn base_sequence(&self) -> i32 {
        sequence_minus(self.last_sequence, self.offset_delta)
    }

    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// Up to [`WINDOW`] batches, oldest first, without an allocation.
#[derive(Clone, Default)]
pub struct Window {
    entries: [BatchEntry; WINDOW],
    len: usize,
}

impl Window {
    pub fn entries(&self) -> &[BatchEntry] {
        &self.entries[..self.len]
    }

    pub fn last(&self) -> Option<&BatchEntry> {
        self.entries().last()
    }

    /// Adds the newest batch; the oldest leaves a full window.
    pub fn push(&mut self, entry: BatchEntry) {
        if self.len == WINDOW {
            self.entries.rotate_left(1);
            self.len -= 1;
        }
        self.entries[self.len] = entry;
        self.len += 1;
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn truncate_at(&mut self, offset: i64) {
        self.len = self.entries().partition_point(|e| e.last_offset < offset);
    }

    pub(super) fn find(&self, base_sequence: i32, last_sequence: i32) -> Option<&BatchEntry> {
        self.entries()
            .iter()
            .find(|e| e.last_sequence == last_sequence && e.base_sequence() == base_sequence)
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Window) -> bool {
        self.entries() == other.entries()
    }
}

impl Eq for Window {}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

/// Sequences run from 0 to `i32::MAX` and then start again at 0.
pub(super) fn next_sequence(last: i32) -> i32 {
    if last == i32::MAX { 0 } else { last + 1 }
}

/// `base` plus `delta` on the circle of sequences 0..=`i32::MAX`.
pub(super) fn sequence_plus(base: i32, delta: i32) -> i32 {
    (i64::from(base) + i64::from(delta)).rem_euclid(1 << 31) as i32
}

pub(super) fn sequence_minus(last: i32, delta: i32) -> i32 {
    (i64::from(last) - i64::from(delta)).rem_euclid(1 << 31) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_around_at_the_largest() {
        assert_eq!(sequence_plus(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(sequence_plus(i32::MAX - 1, 2), 0);
        assert_eq!(sequence_plus(i32::MAX, 3), 2);
        assert_eq!(sequence_minus(2, 3), i32::MAX);
        assert_eq!(sequence_minus(7, 0), 7);
        assert_eq!(next_sequence(i32::MAX), 0);
        assert_eq!(next_sequence(-1), 0);
    }

    #[test]
    fn the_window_keeps_the_newest_five() {
        let mut window = Window::default();
        for n in 0..7 {
            window.push(BatchEntry {
                last_sequence: n,
                last_offset: i64::from(n) * 10,
                offset_delta: 0,
                timestamp: 0,
            });
        }
        let sequences: Vec<i32> = window.entries().iter().map(|e| e.last_sequence).collect();
        assert_eq!(sequences, [2, 3, 4, 5, 6]);
        assert_eq!(window.find(2, 2).map(|e| e.last_offset), Some(20));
        assert_eq!(window.find(1, 1), None);
        assert_eq!(window.find(2, 3), None, "the range must match exactly");
    }
}
