//! A log of transactions and the replication slot that a relay reads it through, as PostgreSQL has
//! them: whole transactions in the order of their commits, those whose commit is at or after the place
//! that was asked for; the slot is read by one connection, and what it has confirmed comes to its disk
//! later, so that a crash takes some of it back. Without a progress topic, the position is in a table.
//!
//! The rows that are done already are passed over by the relay's own [`Resume`].

use super::DatabaseConnection;
use super::outbox::{Row, gap, not_open, other_kind};
use oncelog_relay::position::Position;
use oncelog_relay::resume::{Lsn, Resume};
use oncelog_relay::source::SourceError;

/// Bytes of the record of a commit, and of anything else.
const COMMIT_BYTES: u64 = 8;
const RECORD_BYTES: u64 = 40;
/// Where the slot was made.
const BEGINNING: u64 = 100;

struct Committed {
    commit_lsn: u64,
    end_lsn: u64,
    rows: Vec<Row>,
}

pub struct Log {
    transactions: Vec<Committed>,
    end_lsn: u64,
    /// What is before is not sent again.
    confirmed: u64,
    on_disk: u64,
    /// Without a progress: the transaction and its rows that are done.
    stored: Option<(u64, u64)>,
    reader: Option<Reader>,
}

/// A connection that reads the slot.
struct Reader {
    connection: DatabaseConnection,
    resume: Resume,
    /// The next row: of which transaction, and which of its rows.
    transaction: usize,
    row: usize,
    /// The last heartbeat that was told.
    passed: u64,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            transactions: Vec::new(),
            end_lsn: BEGINNING,
            confirmed: BEGINNING,
            on_disk: BEGINNING,
            stored: None,
            reader: None,
        }
    }
}

impl Log {
    /// A transaction commits; without rows, it is none of the outbox's.
    pub fn append(&mut self, rows: Vec<Row>) {
        let commit_lsn = self.end_lsn + RECORD_BYTES * (1 + rows.len() as u64);
        self.end_lsn = commit_lsn + COMMIT_BYTES;
        self.transactions.push(Committed {
            commit_lsn,
            end_lsn: self.end_lsn,
            rows,
        });
    }

    pub fn crash(&mut self) {
        self.confirmed = self.on_disk;
        self.reader = None;
    }

    pub fn forget(&mut self, connection: DatabaseConnection) {
        self.reader
            .take_if(|reader| reader.connection == connection);
    }

    /// All is read. What was confirmed of it may have been taken back by a crash.
    pub fn is_drained(&self) -> bool {
        let end = self.transactions.len();
        self.reader
            .as_ref()
            .is_some_and(|reader| reader.transaction == end)
    }

    pub fn open(
        &mut self,
        connection: DatabaseConnection,
        position: Option<&Position>,
        exactly_once: bool,
    ) -> Result<(), SourceError> {
        let (resume, from) = match position {
            None if exactly_once && self.confirmed > BEGINNING => {
                return Err(gap(&Lsn(self.confirmed), &"nothing"));
            }
            None => {
                let resume = match self.stored.filter(|_| !exactly_once) {
                    Some((commit_lsn, rows)) => Resume::after(commit_lsn, rows),
                    None => Resume::from_start(),
                };
                (resume, self.confirmed)
            }
            Some(Position::Wal {
                commit_lsn,
                end_lsn,
                rows,
            }) => (Resume::after(*commit_lsn, *rows), *commit_lsn.max(end_lsn)),
            Some(other) => return Err(other_kind(other)),
        };
        if self.confirmed > from {
            return Err(gap(&Lsn(self.confirmed), &Lsn(from)));
        }
        if from > self.end_lsn {
            let told = format!("the log ends before {}", Lsn(from));
            return Err(SourceError::Refused(told));
        }
        self.reader = Some(Reader {
            connection,
            resume,
            transaction: self
                .transactions
                .partition_point(|one| one.commit_lsn < from),
            row: 0,
            passed: from,
        });
        Ok(())
    }

    /// Rows with the positions after them; without any, how far there is nothing to do.
    #[allow(clippy::type_complexity)]
    pub fn read(
        &mut self,
        connection: DatabaseConnection,
        rows_max: usize,
    ) -> Result<(Vec<(Row, Position)>, Option<Position>), SourceError> {
        let reader = self
            .reader
            .as_mut()
            .filter(|reader| reader.connection == connection);
        let reader = reader.ok_or_else(not_open)?;
        let refused =
            |mismatch: oncelog_relay::resume::Mismatch| SourceError::Refused(mismatch.to_string());
        let mut rows = Vec::new();
        while let Some(transaction) = self.transactions.get(reader.transaction) {
            if rows.len() >= rows_max {
                break;
            }
            if reader.row == 0 {
                reader
                    .resume
                    .begin(transaction.commit_lsn)
                    .map_err(refused)?;
            }
            if let Some(row) = transaction.rows.get(reader.row) {
                reader.row += 1;
                let is_last = reader.row == transaction.rows.len();
                if let Some(done) = reader.resume.row().map_err(refused)? {
                    let position = Position::Wal {
                        commit_lsn: transaction.commit_lsn,
                        end_lsn: if is_last { transaction.end_lsn } else { 0 },
                        rows: done,
                    };
                    rows.push((row.clone(), position));
                }
            }
            if reader.row == transaction.rows.len() {
                reader.resume.end().map_err(refused)?;
                reader.transaction += 1;
                reader.row = 0;
            }
        }
        let passed = rows.is_empty() && reader.passed < self.end_lsn;
        let heartbeat = passed.then_some(Position::Wal {
            commit_lsn: self.end_lsn,
            end_lsn: self.end_lsn,
            rows: 0,
        });
        reader.passed = self.end_lsn;
        Ok((rows, heartbeat))
    }

    pub fn confirm(
        &mut self,
        connection: DatabaseConnection,
        position: &Position,
    ) -> Result<(), SourceError> {
        let Position::Wal {
            commit_lsn,
            end_lsn,
            rows,
        } = *position
        else {
            return Err(other_kind(position));
        };
        let reader = self
            .reader
            .as_ref()
            .filter(|reader| reader.connection == connection);
        reader.ok_or_else(not_open)?;
        if rows > 0 {
            self.stored = self.stored.max(Some((commit_lsn, rows)));
        }
        // A checkpoint may have come in between.
        self.on_disk = self.confirmed;
        // In the middle of a transaction, all of it is sent again.
        self.confirmed = self.confirmed.max(commit_lsn.max(end_lsn));
        Ok(())
    }
}
