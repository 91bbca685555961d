//! Which appends are done: written without a hole, and synced without a hole.
//!
//! Appends complete in any order. Two ends follow from them, both [`Point`]s:
//!
//! - *written*: everything below was written.
//! - *synced*: everything below survives a power cut: the recovery point.
//!
//! A durable append's completion says that the file was synced after this append was written. It
//! says nothing about an append that was still in flight when this one was handed out, so it
//! moves the synced end only over what had come back by then, and over itself if nothing was
//! missing. It says nothing about other files either: `others_synced` tells whether all that lies in
//! earlier segments was synced before, and the file's own name.

use crate::checkpoint::Point;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
pub(crate) struct Completions {
    in_flight: VecDeque<InFlight>,
    written: Point,
    synced: Point,
}

#[derive(Clone, Debug)]
struct InFlight {
    start: Point,
    end: Point,
    durable: bool,
    /// The written end when this append was handed out.
    written_before: Point,
    done: bool,
}

impl Completions {
    /// Everything below `end` is there and synced.
    pub fn new(end: Point) -> Completions {
        Completions {
            in_flight: VecDeque::new(),
            written: end,
            synced: end,
        }
    }

    pub fn written(&self) -> Point {
        self.written
    }

    pub fn synced(&self) -> Point {
        self.synced
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// An append from `start` to `end` is handed out. Appends are handed out in order.
    pub fn begin(&mut self, start: Point, end: Point, durable: bool) {
        self.in_flight.push_back(InFlight {
            start,
            end,
            durable,
            written_before: self.written,
            done: false,
        });
    }

    /// The append that ends at `end_offset` (exclusive) came back.
    ///
    /// # Panics
    /// If no such append is in flight.
    pub fn done(&mut self, end_offset: i64, others_synced: bool) {
        let found = self
            .in_flight
            .binary_search_by_key(&end_offset, |append| append.end.offset);
        let append = found.ok().and_then(|i| self.in_flight.get_mut(i));
        let append = append.filter(|append| !append.done);
        let append = append.expect("an append is completed once, and was handed out before");
        append.done = true;
        if append.durable && others_synced {
            let whole = append.written_before.offset == append.start.offset;
            let covered = if whole {
                append.end
            } else {
                append.written_before
            };
            self.synced_to(covered);
        }
        while self.in_flight.front().is_some_and(|append| append.done) {
            let append = self.in_flight.pop_front().expect("just seen");
            self.written = append.end;
            if append.durable && self.synced.offset == append.start.offset {
                self.synced = append.end;
            }
        }
    }

    /// Everything below `point` is synced, or will be before anything that relies on it.
    pub fn synced_to(&mut self, point: Point) {
        if point.offset > self.synced.offset {
            self.synced = point;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Point {
        Point {
            offset,
            segment: 0,
            position: offset as u64 * 10,
        }
    }

    /// Begins appends of one record each; `true` is a durable one.
    fn begun(durable: &[bool]) -> Completions {
        let mut completions = Completions::new(at(0));
        for (i, durable) in durable.iter().enumerate() {
            completions.begin(at(i as i64), at(i as i64 + 1), *durable);
        }
        completions
    }

    fn ends(completions: &Completions) -> (i64, i64) {
        (completions.written().offset, completions.synced().offset)
    }

    #[test]
    fn durable_appends_move_both_ends_over_what_is_whole() {
        let mut completions = begun(&[true, true, true]);
        completions.done(2, true);
        assert_eq!(ends(&completions), (0, 0));
        completions.done(1, true);
        assert_eq!(ends(&completions), (2, 2));
        completions.done(3, true);
        assert_eq!((ends(&completions), completions.is_idle()), ((3, 3), true));
    }

    #[test]
    fn a_sync_covers_only_what_had_come_back_before_it_was_asked_for() {
        let mut completions = begun(&[false, false]);
        completions.done(1, true);
        completions.begin(at(2), at(3), true);
        completions.done(3, true);
        assert_eq!(
            ends(&completions),
            (1, 1),
            "the second append may be written after the sync"
        );
        completions.done(2, true);
        assert_eq!(ends(&completions), (3, 1));
        completions.begin(at(3), at(4), true);
        completions.done(4, true);
        assert_eq!(ends(&completions), (4, 4));
    }

    #[test]
    fn a_sync_of_one_file_says_nothing_about_another() {
        let mut completions = begun(&[false]);
        completions.done(1, true);
        completions.begin(at(1), at(2), true);
        completions.done(2, false);
        assert_eq!(ends(&completions), (2, 0));
        completions.synced_to(at(2));
        completions.synced_to(at(1));
        assert_eq!(ends(&completions), (2, 2));
    }

    #[test]
    #[should_panic(expected = "completed once")]
    fn completing_twice_is_a_bug() {
        let mut completions = begun(&[true, true]);
        completions.done(2, true);
        completions.done(2, true);
    }
}
