//! How far a relay has come in the log, in a table of its database: at guarantees that have no progress
//! topic.
//!
//! The slot cannot tell: what it is told to confirm may be forgotten in a crash of the server, and it
//! knows no place within a transaction. At most once, a row must never come again that was confirmed.

use postgres::Client;

use super::catalog;
use super::connection::failure;
use super::options::Options;
use super::slot::Place;
use crate::position::Progress;
use crate::source::SourceError;

const NAME: &str = "oncelog_outbox_position";

pub fn ddl(options: &Options) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    relay text PRIMARY KEY,
    source text NOT NULL,
    commit_lsn bigint NOT NULL,
    rows bigint NOT NULL,
    end_lsn bigint NOT NULL
)",
        options.own_table(NAME)
    )
}

pub fn make(client: &mut Client, options: &Options) -> Result<(), SourceError> {
    catalog::own_table(client, &options.own_table(NAME), &ddl(options))
}

/// `None`: nothing is known, or there is no such table.
pub fn load(client: &mut Client, options: &Options) -> Result<Option<Progress>, SourceError> {
    let table = options.own_table(NAME);
    let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]);
    if !there
        .map_err(|error| failure(NAME, &error))?
        .get::<_, bool>(0)
    {
        return Ok(None);
    }
    let query = format!("SELECT source, commit_lsn, rows, end_lsn FROM {table} WHERE relay = $1");
    let row = client
        .query_opt(&query, &[&options.relay])
        .map_err(|error| failure(NAME, &error))?;
    Ok(row.map(|row| {
        let place = Place {
            commit_lsn: row.get::<_, i64>(1).cast_unsigned(),
            rows: row.get::<_, i64>(2).cast_unsigned(),
            end_lsn: row.get::<_, i64>(3).cast_unsigned(),
        };
        Progress::new(row.get(0), place.position())
    }))
}

/// Durable when it returns.
pub fn store(
    client: &mut Client,
    options: &Options,
    source: &str,
    place: Place,
) -> Result<(), SourceError> {
    let statement = format!(
        "INSERT INTO {} AS p (relay, source, commit_lsn, rows, end_lsn) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (relay) DO UPDATE SET source = excluded.source,
             commit_lsn = excluded.commit_lsn, rows = excluded.rows, end_lsn = excluded.end_lsn",
        options.own_table(NAME)
    );
    let [commit_lsn, rows, end_lsn] =
        [place.commit_lsn, place.rows, place.end_lsn].map(u64::cast_signed);
    let stored = client.execute(
        &statement,
        &[&options.relay, &source, &commit_lsn, &rows, &end_lsn],
    );
    stored.map_err(|error| failure(NAME, &error))?;
    Ok(())
}
