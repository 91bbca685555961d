//! Where a relay is in its source, and the record that holds it in the progress topic.
//!
//! A position is that *after* a row. It names a database transaction by something that is unique to it
//! and, within it, the number of its rows that are done: never a row's own log position, which rows of
//! one statement share (outbox-facts.md, section 3).
//!
//! The record is JSON, so that `oncelog consume` shows it:
//! `{"version":1,"source":"postgresql:7412…:1","position":{"wal":{…}}}`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// SQLite: one writer, so the order of an AUTOINCREMENT column is that of the commits.
    Cursor { sequence: i64 },
    /// Polling: the batch of rows that was claimed under this token, and how many of them are done.
    Claim { token: u64, rows: u64 },
    /// PostgreSQL's log: the transaction whose commit record begins at `commit_lsn`; `rows` of its rows
    /// are done. `end_lsn` is that after its commit record where all of it is done (or, of a heartbeat,
    /// the place up to which there is nothing to do), else 0.
    Wal {
        commit_lsn: u64,
        end_lsn: u64,
        rows: u64,
    },
    /// MySQL's and MariaDB's log: read from `offset` of `file`, which begins a transaction; `rows` of
    /// that transaction's rows are done. `created`, in seconds since 1970, is when the server began the
    /// file: after RESET MASTER, another one has its name.
    Binlog {
        file: Arc<str>,
        created: u32,
        offset: u64,
        rows: u64,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsn = |lsn: &u64| format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
        match self {
            Position::Cursor { sequence } => write!(f, "row {sequence}"),
            Position::Claim { token, rows } => write!(f, "row {rows} of claim {token}"),
            Position::Wal {
                commit_lsn,
                end_lsn: 0,
                rows,
            } => write!(f, "row {rows} of the commit at {}", lsn(commit_lsn)),
            Position::Wal { end_lsn, .. } => write!(f, "{}", lsn(end_lsn)),
            Position::Binlog {
                file, offset, rows, ..
            } => {
                write!(f, "row {rows} of the transaction at {file}:{offset}")
            }
        }
    }
}

/// What the progress topic holds of a relay's shard; the last one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    /// Which database, in its history, the position is of: [`crate::source::Source::identity`].
    pub source: String,
    pub position: Position,
}

/// The only version there is of the record.
const VERSION: u32 = 1;

impl Progress {
    pub fn new(source: &str, position: Position) -> Progress {
        Progress {
            version: VERSION,
            source: source.to_owned(),
            position,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a progress has no key that JSON cannot hold")
    }

    /// Errors: what is wrong with the record, for a person.
    pub fn decode(bytes: &[u8]) -> Result<Progress, String> {
        let progress: Progress =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if progress.version != VERSION {
            return Err(format!(
                "version {} is not known to this program, which knows {VERSION}",
                progress.version
            ));
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_as_written() {
        let positions = [
            Position::Cursor { sequence: 7 },
            Position::Claim { token: 3, rows: 2 },
            Position::Wal {
                commit_lsn: u64::MAX,
                end_lsn: 1,
                rows: 9,
            },
            Position::Binlog {
                file: "mysql-bin.000001".into(),
                created: 1_700_000_000,
                offset: 4,
                rows: 0,
            },
        ];
        for position in positions {
            let progress = Progress::new("sqlite:1", position);
            assert_eq!(Progress::decode(&progress.encode()), Ok(progress));
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(Progress::decode(b"").is_err());
        assert!(Progress::decode(b"{}").is_err());
        let newer = br#"{"version":2,"source":"s","position":{"cursor":{"sequence":1}}}"#;
        assert!(Progress::decode(newer).unwrap_err().contains("version 2"));
    }
}
