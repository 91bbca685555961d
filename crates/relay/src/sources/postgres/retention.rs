//! Published rows that stay for a while, and their end: in small batches, now and then.

use std::time::{Duration, Instant};

use postgres::Client;

use super::connection::failure;
use super::options::{Options, quoted};
use crate::source::SourceError;

/// Rows that one statement deletes: its locks and its transaction stay short.
const ROWS_MAX: u64 = 1_000;
/// As many rows as a large batch of the relay has may go between two of them.
const BATCHES_MAX: usize = 4;
const EVERY: Duration = Duration::from_secs(1);

pub struct Pruning {
    statement: String,
    seconds: f64,
    last: Instant,
    more: bool,
}

impl Pruning {
    /// Of rows of `table` whose `column` (a time) is longer ago than `retention`.
    pub fn new(table: &str, column: &str, retention: Duration) -> Pruning {
        let column = quoted(column);
        Pruning {
            statement: format!(
                "DELETE FROM {table} WHERE ctid = ANY (ARRAY (
                     SELECT ctid FROM {table}
                     WHERE {column} < now() - make_interval(secs => $1)
                     ORDER BY {column} LIMIT {ROWS_MAX}))"
            ),
            seconds: retention.as_secs_f64(),
            last: Instant::now(),
            more: false,
        }
    }

    /// If it is time, or there was more to do the last time. What it deletes is published: polling has
    /// moved it here, and the log has what CDC reads.
    pub fn prune(&mut self, client: &mut Client) -> Result<(), SourceError> {
        if !self.more && self.last.elapsed() < EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        for _ in 0..BATCHES_MAX {
            let pruned = client.execute(self.statement.as_str(), &[&self.seconds]);
            let pruned = pruned.map_err(|error| failure("pruning published rows", &error))?;
            self.more = pruned == ROWS_MAX;
            if !self.more {
                break;
            }
        }
        Ok(())
    }
}

/// Where polling keeps what was published.
pub fn published(options: &Options) -> String {
    options.quoted_beside("_published")
}

/// The table of the published rows: the outbox's columns, and when they were published.
pub fn published_ddl(options: &Options) -> String {
    let table = published(options);
    let (_, name) = options.table_parts();
    let index = quoted(&format!("{name}_published_at"));
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
    LIKE {},
    published_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS {index} ON {table} (published_at)",
        options.quoted_table()
    )
}
