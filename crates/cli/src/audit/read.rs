//! The rows of one side, from any of the databases, as a stream.

use oncelog_pipeline::database::{Database, sqlite_path, without_password};
use postgres::fallible_iterator::FallibleIterator;

use super::Row;

/// Where the rows are, by names of columns.
#[derive(Clone, Debug)]
pub struct Place {
    /// As for a relay.
    pub database: String,
    pub table: String,
    pub id: String,
    pub key: Option<String>,
    /// Rows are in the order of this column.
    pub order: String,
}

/// Hands each row to `take`, in order. Errors: what the database said.
pub fn rows(place: &Place, take: &mut dyn FnMut(Row) -> Result<(), String>) -> Result<(), String> {
    let url = &place.database;
    match Database::of(url)? {
        Database::Sqlite => sqlite(sqlite_path(url), place, take),
        Database::PostgreSql => postgresql(url, place, take),
        Database::MySql => mysql(url, place, take),
    }
    .map_err(|error| format!("{} of {}: {error}", place.table, without_password(url)))
}

/// `text` makes a text of an expression.
fn query(place: &Place, database: Database, text: fn(&str) -> String) -> String {
    let quote = |name: &str| database.quote_column(name);
    let key = place
        .key
        .as_deref()
        .map_or_else(|| "''".to_owned(), |key| text(&quote(key)));
    format!(
        "SELECT {}, {key} FROM {} ORDER BY {}",
        text(&quote(&place.id)),
        database.quote(&place.table),
        quote(&place.order)
    )
}

type Taken = Result<(), String>;

fn sqlite(path: &str, place: &Place, take: &mut dyn FnMut(Row) -> Taken) -> Taken {
    let failed = |error: rusqlite::Error| error.to_string();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
    let query = query(place, Database::Sqlite, |name| {
        format!("CAST({name} AS TEXT)")
    });
    let mut statement = connection.prepare(&query).map_err(failed)?;
    let mut found = statement.query([]).map_err(failed)?;
    while let Some(row) = found.next().map_err(failed)? {
        let text = |index: usize| row.get::<_, Option<String>>(index).map_err(failed);
        take(Row {
            id: text(0)?.unwrap_or_default(),
            key: text(1)?.unwrap_or_default(),
        })?;
    }
    Ok(())
}

fn postgresql(url: &str, place: &Place, take: &mut dyn FnMut(Row) -> Taken) -> Taken {
    let failed = |error: postgres::Error| error.to_string();
    let mut client = postgres::Client::connect(url, postgres::NoTls).map_err(failed)?;
    let query = query(place, Database::PostgreSql, |name| format!("{name}::text"));
    let none: [&str; 0] = [];
    let mut found = client.query_raw(&query, none).map_err(failed)?;
    while let Some(row) = found.next().map_err(failed)? {
        let text = |index: usize| row.try_get::<_, Option<String>>(index).map_err(failed);
        take(Row {
            id: text(0)?.unwrap_or_default(),
            key: text(1)?.unwrap_or_default(),
        })?;
    }
    Ok(())
}

fn mysql(url: &str, place: &Place, take: &mut dyn FnMut(Row) -> Taken) -> Taken {
    use mysql::prelude::Queryable;
    let failed = |error: mysql::Error| error.to_string();
    let url = url.replacen("mariadb://", "mysql://", 1);
    let options = mysql::Opts::from_url(&url).map_err(|error| error.to_string())?;
    let mut connection = mysql::Conn::new(options).map_err(failed)?;
    let query = query(place, Database::MySql, |name| {
        format!("CAST({name} AS CHAR)")
    });
    for row in connection.query_iter(query).map_err(failed)? {
        let (id, key): (Option<String>, Option<String>) =
            mysql::from_row_opt(row.map_err(failed)?).map_err(|error| error.to_string())?;
        take(Row {
            id: id.unwrap_or_default(),
            key: key.unwrap_or_default(),
        })?;
    }
    Ok(())
}
