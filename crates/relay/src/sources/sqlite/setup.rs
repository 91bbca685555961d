//! What an outbox in SQLite needs, as statements and as checks.

use oncelog_pipeline::finding::Finding;
use rusqlite::Connection;

use super::{Options, connect, quoted};
use crate::row::Columns;

/// Made by the relay itself where they are missing.
pub(super) const OWN_TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS oncelog_outbox_source (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL
)",
    "INSERT INTO oncelog_outbox_source (one, id) SELECT 1, lower(hex(randomblob(16)))
    WHERE NOT EXISTS (SELECT 1 FROM oncelog_outbox_source)",
    "CREATE TABLE IF NOT EXISTS oncelog_outbox_position (
    relay TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    exactly_once INTEGER NOT NULL
)",
];

/// The outbox, with Debezium's columns, and what the relay keeps beside it.
///
/// `id` is not UNIQUE: a row is known by its sequence, and rows are gone once they are published, so that
/// the index could not keep a second use of an id away; but each row would pay for it twice, since ids
/// have no order.
pub fn ddl(options: &Options) -> Vec<String> {
    let outbox = format!(
        "CREATE TABLE IF NOT EXISTS {} (
    {} INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    aggregatetype TEXT NOT NULL,
    aggregateid TEXT NOT NULL,
    type TEXT,
    payload TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)",
        quoted(&options.table),
        quoted(&options.sequence)
    );
    let own = OWN_TABLES.iter().map(|statement| (*statement).to_owned());
    std::iter::once(outbox).chain(own).collect()
}

/// Runs the statements of [`ddl`] in the file, which is made if it is not there yet.
pub fn apply(options: &Options) -> Result<(), String> {
    let failed = |error: rusqlite::Error| format!("{}: {error}", options.path.display());
    let connection = Connection::open(&options.path).map_err(failed)?;
    for statement in ddl(options) {
        connection
            .execute(&statement, [])
            .map_err(|error| format!("{error}, at:\n{statement}"))?;
    }
    Ok(())
}

/// The columns of the outbox, in their order. Errors: there is no such table, or its sequence does not
/// grow with every commit, and what to do.
pub(super) fn columns(connection: &Connection, options: &Options) -> Result<Columns, String> {
    let failed = |error: rusqlite::Error| format!("SQLite: {error}");
    let path = options.path.display();
    let (table, sequence) = (&options.table, &options.sequence);
    let query = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let mut statement = connection.prepare(query).map_err(failed)?;
    let mut found = statement.query([table]).map_err(failed)?;
    let Some(row) = found.next().map_err(failed)? else {
        return Err(format!(
            "{path} has no table {table}. `oncelog outbox init` shows the statement that makes it"
        ));
    };
    let sql: String = row.get(0).map_err(failed)?;
    let query = "SELECT name, pk, lower(type) FROM pragma_table_info(?1) ORDER BY cid";
    let mut statement = connection.prepare(query).map_err(failed)?;
    let listed = statement.query_map([table], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
    });
    let listed: rusqlite::Result<Vec<(String, i64, String)>> = listed.map_err(failed)?.collect();
    let listed = listed.map_err(failed)?;
    let is_key = |(name, key, kind): &(String, i64, String)| {
        name.eq_ignore_ascii_case(sequence) && *key == 1 && kind == "integer"
    };
    if !listed.iter().any(is_key) || !sql.to_lowercase().contains("autoincrement") {
        return Err(format!(
            "{table} in {path} has no column {sequence} that is INTEGER PRIMARY KEY AUTOINCREMENT. \
             Without AUTOINCREMENT SQLite gives the number of a deleted row again, and the row that \
             gets it would be passed over. `oncelog outbox init` shows a table that fits"
        ));
    }
    Ok(listed.into_iter().map(|(name, ..)| name).collect())
}

pub fn check(options: &Options) -> Vec<Finding> {
    let path = options.path.display();
    let connection = match connect(&options.path) {
        Ok(connection) => connection,
        Err(error) => {
            let fix =
                "the application that owns it makes it; or `oncelog outbox init --apply` does";
            return vec![Finding::fault(
                format!("{path} cannot be opened: {error}"),
                fix,
            )];
        }
    };
    let mut findings = vec![Finding::fine(format!("{path} can be opened"))];
    findings.push(match columns(&connection, options) {
        Ok(_) => Finding::fine(format!(
            "table {} has a growing {}",
            options.table, options.sequence
        )),
        Err(why) => Finding::fault(why, "apply the statements of `oncelog outbox init`"),
    });
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    findings.push(match mode {
        Ok(mode) if mode == "wal" => Finding::fine("journal_mode is wal".to_owned()),
        Ok(mode) => Finding::advice(
            format!("journal_mode is {mode}: the relay's reads and the application's writes wait for each other"),
            "PRAGMA journal_mode = WAL",
        ),
        Err(error) => Finding::fault(format!("journal_mode cannot be read: {error}"), "is it a SQLite database?"),
    });
    if options.retention_ms > 0
        && let Ok(columns) = columns(&connection, options)
        && !columns.iter().any(|name| name == "created_at")
    {
        let what = "a retention is set, and the table has no created_at to tell how old a row is";
        findings.push(Finding::fault(
            what.to_owned(),
            "add it, or set retention.ms = 0",
        ));
    }
    findings
}
