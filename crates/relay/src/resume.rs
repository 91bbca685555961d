//! What of PostgreSQL's log is done already: the resume key is `(commit_lsn, rows)`, a transaction and
//! how many of its rows are done, never a row's own log position, which the rows of one statement
//! share (outbox-facts.md, section 3).
//!
//! Logical decoding hands out whole transactions in the order of their commits, and begins at or before
//! the place that it was asked for. So whatever committed before the key is done, whatever after is
//! not, and of the one in between the first `rows` rows are.
//!
//! Pure: `sim` runs it against a simulated log.
//!
//! Invariant: over any number of restarts, each from a position that was handed out before, every row
//! is passed exactly once beyond the last position that counted.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    commit_lsn: u64,
    rows: u64,
    open: Option<Open>,
    /// The commit of the transaction before.
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    commit_lsn: u64,
    rows: u64,
}

/// The log is not the one that the position is of, or not in order. Nothing may be published from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The transaction that the position is in has fewer rows than are done of it.
    Fewer {
        commit_lsn: u64,
        rows: u64,
        done: u64,
    },
    /// A transaction came after one that committed later, or a row outside of a transaction.
    Disorder { commit_lsn: u64, last: u64 },
}

impl Resume {
    /// From the beginning of what the log has.
    pub fn from_start() -> Resume {
        Resume::after(0, 0)
    }

    /// After the first `rows` rows of the transaction whose commit record begins at `commit_lsn`, and
    /// all transactions that committed before.
    pub fn after(commit_lsn: u64, rows: u64) -> Resume {
        Resume {
            commit_lsn,
            rows,
            open: None,
            last: 0,
        }
    }

    /// A transaction follows.
    pub fn begin(&mut self, commit_lsn: u64) -> Result<(), Mismatch> {
        if self.open.is_some() || commit_lsn <= self.last {
            let last = self.open.map_or(self.last, |open| open.commit_lsn);
            return Err(Mismatch::Disorder { commit_lsn, last });
        }
        self.open = Some(Open {
            commit_lsn,
            rows: 0,
        });
        Ok(())
    }

    /// A row of it follows. Gives how many of the transaction's rows are done when this one is; `None`
    /// where it is done already.
    pub fn row(&mut self) -> Result<Option<u64>, Mismatch> {
        let (key, done) = (self.commit_lsn, self.rows);
        let last = self.last;
        let open = self.open.as_mut().ok_or(Mismatch::Disorder {
            commit_lsn: 0,
            last,
        })?;
        open.rows += 1;
        let new = match open.commit_lsn.cmp(&key) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => open.rows > done,
            std::cmp::Ordering::Greater => true,
        };
        Ok(new.then_some(open.rows))
    }

    /// The transaction has ended.
    pub fn end(&mut self) -> Result<(), Mismatch> {
        let last = self.last;
        let open = self.open.take().ok_or(Mismatch::Disorder {
            commit_lsn: 0,
            last,
        })?;
        self.last = open.commit_lsn;
        if open.commit_lsn == self.commit_lsn && open.rows < self.rows {
            return Err(Mismatch::Fewer {
                commit_lsn: open.commit_lsn,
                rows: open.rows,
                done: self.rows,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Mismatch::Fewer {
                commit_lsn,
                rows,
                done,
            } => write!(
                f,
                "{done} rows of the transaction that committed at {} were published, and the log \
                 has {rows} of it: this is another log, or what counts as a row of the outbox was \
                 configured differently when they were published",
                Lsn(commit_lsn)
            ),
            Mismatch::Disorder { commit_lsn, last } => write!(
                f,
                "the log is not in order: the transaction of {} came after that of {}",
                Lsn(commit_lsn),
                Lsn(last)
            ),
        }
    }
}

/// As PostgreSQL writes it: `16/B374D848`.
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transactions as (commit_lsn, rows).
    const LOG: &[(u64, u64)] = &[(10, 3), (20, 0), (30, 1), (40, 4), (50, 1)];

    /// What is handed out of the log that begins with the transaction `from`, as (commit_lsn, rows).
    fn handed_out(mut resume: Resume, from: usize) -> Result<Vec<(u64, u64)>, Mismatch> {
        let mut rows = Vec::new();
        for (commit_lsn, count) in &LOG[from..] {
            resume.begin(*commit_lsn)?;
            for _ in 0..*count {
                rows.extend(resume.row()?.map(|done| (*commit_lsn, done)));
            }
            resume.end()?;
        }
        Ok(rows)
    }

    #[test]
    fn after_every_row_the_rest_follows() {
        let all = handed_out(Resume::from_start(), 0).unwrap();
        assert_eq!(all.len(), 9);
        for (index, (commit_lsn, done)) in all.iter().enumerate() {
            // The log may begin anywhere at or before the transaction that the position is in.
            let here = LOG.iter().position(|(lsn, _)| lsn == commit_lsn).unwrap();
            for from in 0..=here {
                let rest = handed_out(Resume::after(*commit_lsn, *done), from).unwrap();
                assert_eq!(rest, all[index + 1..], "after row {index} from {from}");
            }
        }
    }

    #[test]
    fn a_heartbeat_is_a_transaction_without_rows() {
        let rest = handed_out(Resume::after(30, 0), 0).unwrap();
        assert_eq!(rest.first(), Some(&(30, 1)));
        let rest = handed_out(Resume::after(35, 0), 0).unwrap();
        assert_eq!(rest.first(), Some(&(40, 1)));
    }

    #[test]
    fn another_log_is_noticed() {
        let error = handed_out(Resume::after(30, 2), 0).unwrap_err();
        assert!(error.to_string().contains("another log"), "{error}");
        let mut resume = Resume::from_start();
        resume.begin(20).unwrap();
        assert!(resume.begin(30).is_err());
        resume.end().unwrap();
        assert!(resume.begin(20).is_err());
        assert!(resume.row().is_err());
    }
}
