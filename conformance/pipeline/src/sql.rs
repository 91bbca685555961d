//! A connection to any of the databases, for statements and rows as text. All that is put into
//! statements here is made by this program.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql::prelude::Queryable;
use postgres::SimpleQueryMessage;

/// How long a writer waits for another one's lock, or for a process that was stopped while it held it.
const BUSY: Duration = Duration::from_secs(10);

pub enum Connection {
    Sqlite(rusqlite::Connection),
    PostgreSql(Box<postgres::Client>),
    MariaDb(Box<mysql::Conn>),
}

impl Connection {
    /// `sqlite:PATH` is made where it is not there yet.
    pub fn open(url: &str) -> Result<Connection> {
        let (scheme, rest) = url.split_once(':').context("a url has a scheme")?;
        match scheme {
            "sqlite" => sqlite(Path::new(rest)).map(Connection::Sqlite),
            "postgresql" => {
                let mut client = postgres::Client::connect(url, postgres::NoTls)?;
                client.batch_execute("SET lock_timeout = '10s'")?;
                Ok(Connection::PostgreSql(Box::new(client)))
            }
            "mysql" => {
                let mut client = mysql::Conn::new(mysql::Opts::from_url(url)?)?;
                client.query_drop("SET SESSION innodb_lock_wait_timeout = 10")?;
                Ok(Connection::MariaDb(Box::new(client)))
            }
            _ => bail!("{scheme} is no kind of database"),
        }
    }

    /// One statement, without its rows.
    pub fn run(&mut self, statement: &str) -> Result<()> {
        match self {
            Connection::Sqlite(client) => client.execute_batch(statement)?,
            Connection::PostgreSql(client) => client.batch_execute(statement)?,
            Connection::MariaDb(client) => client.query_drop(statement)?,
        }
        Ok(())
    }

    /// The rows of one statement, each value as text; `None` is NULL.
    pub fn rows(&mut self, statement: &str) -> Result<Vec<Vec<Option<String>>>> {
        match self {
            Connection::Sqlite(client) => sqlite_rows(client, statement),
            Connection::PostgreSql(client) => {
                let found = client.simple_query(statement)?;
                let rows = found.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let values = |row: &postgres::SimpleQueryRow| {
                    (0..row.len())
                        .map(|index| row.get(index).map(str::to_owned))
                        .collect()
                };
                Ok(rows.map(values).collect())
            }
            Connection::MariaDb(client) => {
                let found: Vec<mysql::Row> = client.query(statement)?;
                Ok(found.into_iter().map(mysql_values).collect())
            }
        }
    }

    /// The only value of the only row; an empty text for NULL.
    pub fn value(&mut self, statement: &str) -> Result<String> {
        let mut rows = self.rows(statement)?;
        let first = rows.pop().and_then(|mut row| row.pop());
        Ok(first
            .with_context(|| format!("no row: {statement}"))?
            .unwrap_or_default())
    }
}

fn sqlite(path: &Path) -> Result<rusqlite::Connection> {
    let client = rusqlite::Connection::open(path)?;
    client.busy_timeout(BUSY)?;
    client.pragma_update(None, "journal_mode", "wal")?;
    client.pragma_update(None, "synchronous", "normal")?;
    Ok(client)
}

fn sqlite_rows(client: &rusqlite::Connection, statement: &str) -> Result<Vec<Vec<Option<String>>>> {
    use rusqlite::types::ValueRef;
    let mut statement = client.prepare(statement)?;
    let columns = statement.column_count();
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let value = |index: usize| -> Result<Option<String>> {
            Ok(match row.get_ref(index)? {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Real(number) => Some(number.to_string()),
                ValueRef::Text(text) | ValueRef::Blob(text) => {
                    Some(String::from_utf8_lossy(text).into_owned())
                }
            })
        };
        rows.push((0..columns).map(value).collect::<Result<_>>()?);
    }
    Ok(rows)
}

/// A query without parameters is answered in text.
fn mysql_values(row: mysql::Row) -> Vec<Option<String>> {
    let text = |value| match value {
        mysql::Value::NULL => None,
        mysql::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    };
    row.unwrap().into_iter().map(text).collect()
}
