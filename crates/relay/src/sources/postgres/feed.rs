//! The queue between the slot's stream and the relay, bounded in rows and bytes: while it is full the
//! stream is not read, the server stops sending, and memory stays where it is, however large the
//! transaction.
//!
//! Invariant: it holds at most `bytes` bytes of rows, or one row.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pgoutput::Lsn;
use crate::row::OutboxRow;
use crate::source::{Limit, SourceError};

pub struct Feed {
    limit: Limit,
    inner: Mutex<Inner>,
    /// Something was put in, or it has ended.
    filled: Condvar,
    /// Something was taken out, or nobody reads any more.
    emptied: Condvar,
}

#[derive(Default)]
struct Inner {
    rows: VecDeque<OutboxRow>,
    bytes: usize,
    bytes_max: usize,
    /// There is nothing to do up to here, once the rows are taken.
    passed: Option<Lsn>,
    end: Option<SourceError>,
    closed: bool,
}

/// What became of a row that was to be put in.
pub enum Put {
    Done,
    /// It did not fit in time.
    Full(OutboxRow),
    /// Nobody reads any more.
    Closed,
}

/// What was in it.
#[derive(Debug, Default)]
pub struct Taken {
    pub rows: Vec<OutboxRow>,
    /// Only where there was no row.
    pub passed: Option<Lsn>,
}

impl Feed {
    pub fn new(limit: Limit) -> Feed {
        Feed {
            limit,
            inner: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Waits up to `wait` for room.
    pub fn put(&self, row: OutboxRow, wait: Duration) -> Put {
        let size = row.size();
        let deadline = Instant::now() + wait;
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return Put::Closed;
            }
            let fits = inner.rows.len() < self.limit.rows && inner.bytes + size <= self.limit.bytes;
            if fits || inner.rows.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Put::Full(row);
            }
            let waited = self.emptied.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.bytes += size;
        inner.bytes_max = inner.bytes_max.max(inner.bytes);
        inner.passed = None;
        inner.rows.push_back(row);
        drop(inner);
        self.filled.notify_one();
        Put::Done
    }

    /// There is nothing to do between the last row and `lsn`.
    pub fn pass(&self, lsn: Lsn) {
        let mut inner = self.lock();
        inner.passed = inner.passed.max(Some(lsn));
    }

    /// No more will come, and why.
    pub fn end(&self, error: SourceError) {
        self.lock().end.get_or_insert(error);
        self.filled.notify_one();
    }

    /// Nobody will take any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.emptied.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits up to `wait` for the first row. Errors: all rows are taken, and no more will come.
    pub fn take(&self, limit: Limit, wait: Duration) -> Result<Taken, SourceError> {
        let deadline = Instant::now() + wait;
        let mut inner = self.lock();
        while inner.rows.is_empty() {
            if let Some(end) = inner.end.take() {
                let again = "the stream of the replication slot has ended".to_owned();
                inner.end = Some(SourceError::Lost(again));
                return Err(end);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let passed = inner.passed.take();
                return Ok(Taken {
                    rows: Vec::new(),
                    passed,
                });
            }
            let waited = self.filled.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some(next) = inner.rows.front() {
            bytes += next.size();
            if !rows.is_empty() && (rows.len() >= limit.rows || bytes > limit.bytes) {
                break;
            }
            inner.bytes -= next.size();
            rows.extend(inner.rows.pop_front());
        }
        drop(inner);
        self.emptied.notify_one();
        Ok(Taken { rows, passed: None })
    }

    /// The most bytes that were ever in it.
    pub fn bytes_max(&self) -> usize {
        self.lock().bytes_max
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::row::{Operation, Value};

    const NOW: Duration = Duration::ZERO;

    fn row(bytes: usize) -> OutboxRow {
        OutboxRow {
            position: Position::Cursor { sequence: 0 },
            operation: Operation::Insert,
            columns: ["payload".to_owned()].into(),
            values: vec![Value::Text("x".repeat(bytes))],
        }
    }

    fn feed(rows: usize, bytes: usize) -> Feed {
        Feed::new(Limit { rows, bytes })
    }

    const ALL: Limit = Limit {
        rows: usize::MAX,
        bytes: usize::MAX,
    };

    #[test]
    fn bytes_bound_it_and_rows_do() {
        let one = row(1_000).size();
        let bytes = feed(100, 3 * one);
        let rows = feed(3, 100 * one);
        for feed in [&bytes, &rows] {
            for _ in 0..3 {
                assert!(matches!(feed.put(row(1_000), NOW), Put::Done));
            }
            assert!(matches!(feed.put(row(1_000), NOW), Put::Full(_)));
            assert_eq!(feed.bytes_max(), 3 * one);
            let some = Limit {
                rows: 2,
                bytes: usize::MAX,
            };
            assert_eq!(feed.take(some, NOW).unwrap().rows.len(), 2);
            assert!(matches!(feed.put(row(1_000), NOW), Put::Done));
            assert_eq!(feed.take(ALL, NOW).unwrap().rows.len(), 2);
        }
    }

    #[test]
    fn a_row_larger_than_all_goes_alone() {
        let feed = feed(10, 100);
        assert!(matches!(feed.put(row(5_000), NOW), Put::Done));
        assert!(matches!(feed.put(row(1), NOW), Put::Full(_)));
        let little = Limit { rows: 9, bytes: 1 };
        assert_eq!(feed.take(little, NOW).unwrap().rows.len(), 1);
    }

    #[test]
    fn what_was_passed_is_told_after_the_rows() {
        let feed = feed(10, 1_000_000);
        feed.pass(5);
        assert!(matches!(feed.put(row(1), NOW), Put::Done));
        feed.pass(7);
        assert_eq!(feed.take(ALL, NOW).unwrap().passed, None);
        assert_eq!(feed.take(ALL, NOW).unwrap().passed, Some(7));
        assert_eq!(feed.take(ALL, NOW).unwrap().passed, None);
    }

    #[test]
    fn its_end_comes_after_the_rows() {
        let feed = feed(10, 1_000_000);
        assert!(matches!(feed.put(row(1), NOW), Put::Done));
        feed.end(SourceError::Refused("why".to_owned()));
        assert_eq!(feed.take(ALL, NOW).unwrap().rows.len(), 1);
        assert_eq!(feed.take(ALL, NOW).unwrap_err().to_string(), "why");
        assert!(matches!(feed.take(ALL, NOW), Err(SourceError::Lost(_))));
        feed.close();
        assert!(matches!(feed.put(row(1), NOW), Put::Closed));
    }
}
