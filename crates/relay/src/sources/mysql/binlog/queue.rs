//! Between the thread that reads the binlog and the relay: rows of committed transactions in their
//! order, bounded in bytes and in number.
//!
//! Invariants: what is queued never exceeds its limits by more than one row. A place is handed out only
//! once no row before it is left in the queue.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::position::Position;
use crate::row::OutboxRow;
use crate::source::{Limit, SourceError};

/// A row's overhead beside its bytes is not counted, so that there may not be many small ones.
const ROWS_MAX: usize = 100_000;

pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rows: VecDeque<Queued>,
    bytes: usize,
    /// What the reading thread holds of a transaction that is not at its end, in bytes.
    held: usize,
    /// After all that was pushed.
    place: Option<Position>,
    started: bool,
    ended: Option<SourceError>,
    stopped: bool,
    high_water: usize,
}

struct Queued {
    row: OutboxRow,
    size: usize,
    /// When it was written, in seconds since 1970.
    written: u32,
}

/// The other side has gone away, or wants no more.
pub(super) struct Stopped;

impl Queue {
    pub fn new(bytes_max: usize) -> Queue {
        Queue {
            bytes_max,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The state is whole between any two statements here, so that a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    // The reading thread's side.

    /// The reading thread keeps `bytes` before it pushes them.
    pub fn holds(&self, bytes: usize) {
        let mut state = self.lock();
        state.held = bytes;
        state.high_water = state.high_water.max(state.bytes + bytes);
    }

    /// Waits while the queue is full.
    pub fn push(&self, row: OutboxRow, written: u32) -> Result<(), Stopped> {
        let size = row.size();
        let mut state = self.lock();
        let full = |state: &State| {
            let (rows, bytes) = (state.rows.len(), state.bytes);
            rows > 0 && (bytes + size > self.bytes_max || rows >= ROWS_MAX)
        };
        while full(&state) && !state.stopped {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return Err(Stopped);
        }
        let was_empty = state.rows.is_empty();
        state.bytes += size;
        state.held = state.held.saturating_sub(size);
        state.high_water = state.high_water.max(state.bytes + state.held);
        state.rows.push_back(Queued { row, size, written });
        if was_empty {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// `place` is after all that was pushed.
    pub fn reached(&self, place: Position) -> Result<(), Stopped> {
        let mut state = self.lock();
        state.place = Some(place);
        if state.stopped { Err(Stopped) } else { Ok(()) }
    }

    /// The server accepted the place from which reading was to begin.
    pub fn started(&self) {
        self.lock().started = true;
        self.changed.notify_all();
    }

    pub fn end(&self, error: SourceError) {
        self.lock().ended.get_or_insert(error);
        self.changed.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    // The relay's side.

    /// Returns when the server has accepted the place, or with why it did not.
    pub fn await_start(&self, limit: Duration) -> Result<(), SourceError> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(error) = state.ended.take() {
                return Err(error);
            }
            if state.started {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let say = "the server does not begin to send its binlog";
                return Err(SourceError::Lost(say.to_owned()));
            }
            state = self.wait(state, left);
        }
    }

    /// Rows as soon as there are any; none once `wait` is over. What was read before an error comes
    /// before it.
    pub fn take(&self, limit: Limit, wait: Duration) -> Result<Vec<OutboxRow>, SourceError> {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        while state.rows.is_empty() {
            if let Some(error) = &state.ended {
                return Err(match error {
                    SourceError::Lost(why) => SourceError::Lost(why.clone()),
                    SourceError::Refused(why) => SourceError::Refused(why.clone()),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            state = self.wait(state, left);
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.rows.front() {
            let fits = rows.len() < limit.rows && bytes + next.size <= limit.bytes;
            if !rows.is_empty() && !fits {
                break;
            }
            let Some(next) = state.rows.pop_front() else {
                break;
            };
            bytes += next.size;
            state.bytes -= next.size;
            rows.push(next.row);
        }
        self.changed.notify_all();
        Ok(rows)
    }

    /// The place after all rows, where none is left.
    pub fn place(&self) -> Option<Position> {
        let state = self.lock();
        if state.rows.is_empty() {
            state.place.clone()
        } else {
            None
        }
    }

    /// When the oldest row that is left was written, in seconds since 1970.
    pub fn oldest(&self) -> Option<u32> {
        self.lock().rows.front().map(|queued| queued.written)
    }

    /// The most bytes of rows that there ever were, here and with the reading thread.
    pub fn high_water(&self) -> usize {
        self.lock().high_water
    }

    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::row::{Operation, Value};

    const SOON: Duration = Duration::from_millis(20);
    const LIMIT: Limit = Limit {
        rows: 10,
        bytes: usize::MAX,
    };

    fn place(offset: u64) -> Position {
        Position::Binlog {
            file: "binlog.000001".into(),
            created: 1,
            offset,
            rows: 0,
        }
    }

    fn row(offset: u64) -> OutboxRow {
        OutboxRow {
            position: place(offset),
            operation: Operation::Insert,
            columns: Arc::new(["payload".to_owned()]),
            values: vec![Value::Text("x".repeat(1000))],
        }
    }

    #[test]
    fn is_bounded_and_keeps_the_order() {
        let queue = Arc::new(Queue::new(5_000));
        let writer = Arc::clone(&queue);
        let thread = std::thread::spawn(move || (0..100).all(|i| writer.push(row(i), 7).is_ok()));
        let mut seen = 0;
        while seen < 100 {
            for row in queue.take(LIMIT, Duration::from_secs(5)).unwrap() {
                assert_eq!(row.position, place(seen));
                seen += 1;
            }
        }
        assert!(thread.join().unwrap());
        assert!(queue.high_water() <= 5_000, "{}", queue.high_water());
        assert_eq!(queue.take(LIMIT, SOON).unwrap(), []);
    }

    #[test]
    fn a_place_waits_for_the_rows_before_it() {
        let queue = Queue::new(5_000);
        assert!(queue.push(row(1), 7).is_ok() && queue.reached(place(9)).is_ok());
        assert_eq!((queue.place(), queue.oldest()), (None, Some(7)));
        assert_eq!(queue.take(LIMIT, SOON).unwrap().len(), 1);
        assert_eq!(queue.place(), Some(place(9)));
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it() {
        let queue = Queue::new(5_000);
        assert!(queue.push(row(1), 7).is_ok());
        queue.end(SourceError::Lost("gone".into()));
        assert_eq!(queue.take(LIMIT, SOON).unwrap().len(), 1);
        assert!(queue.take(LIMIT, SOON).is_err());
        queue.stop();
        assert!(queue.push(row(2), 7).is_err());
    }
}
