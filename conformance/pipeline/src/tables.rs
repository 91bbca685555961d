//! The tables at both ends that are not the pipeline's own: the application's, from which the judge
//! knows what was committed, and the one that the sink fills.

use anyhow::{Context, Result};

use crate::combination::{Engine, Target};
use crate::event::{Body, Event, Kind};
use crate::judge::Arrived;
use crate::sql::Connection;

/// Accounts that events are of: few enough that writers wait for each other.
pub const ACCOUNTS: u64 = 24;

/// The application's. `account` is what it serialises its transactions by.
pub fn make_application(connection: &mut Connection, engine: Engine) -> Result<()> {
    let suffix = suffix(engine);
    for table in [
        "orders (event_id VARCHAR(64) PRIMARY KEY, account VARCHAR(32) NOT NULL,
            version BIGINT NOT NULL, kind VARCHAR(16) NOT NULL)",
        "account (id VARCHAR(32) PRIMARY KEY, version BIGINT NOT NULL)",
        "noise (what VARCHAR(64) NOT NULL)",
    ] {
        connection.run(&format!("CREATE TABLE {table}{suffix}"))?;
    }
    for number in 0..ACCOUNTS {
        connection.run(&format!(
            "INSERT INTO account VALUES ('{}', 0)",
            account(number)
        ))?;
    }
    Ok(())
}

pub fn account(number: u64) -> String {
    format!("account-{number:02}")
}

/// Where the sink writes. Without `upsert` nothing but the arrival is unique, so that a duplicate would
/// be there to be seen.
pub fn make_target(connection: &mut Connection, target: Target) -> Result<()> {
    let suffix = suffix(target.engine);
    if target.upsert {
        let columns = "account VARCHAR(32) PRIMARY KEY, event_id VARCHAR(64) NOT NULL,
            version BIGINT NOT NULL";
        return connection.run(&format!("CREATE TABLE received ({columns}){suffix}"));
    }
    let (arrival, payload) = match target.engine {
        Engine::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT"),
        Engine::PostgreSql => ("BIGSERIAL PRIMARY KEY", "TEXT"),
        Engine::MariaDb => ("BIGINT AUTO_INCREMENT PRIMARY KEY", "LONGTEXT"),
    };
    connection.run(&format!(
        "CREATE TABLE received (arrival {arrival}, event_id VARCHAR(64) NOT NULL,
            account VARCHAR(32) NOT NULL, payload {payload},
            from_partition INTEGER NOT NULL, from_offset BIGINT NOT NULL){suffix}"
    ))
}

fn suffix(engine: Engine) -> &'static str {
    match engine {
        Engine::MariaDb => " ENGINE = InnoDB",
        _ => "",
    }
}

pub fn committed(connection: &mut Connection) -> Result<Vec<Event>> {
    let rows = connection.rows("SELECT event_id, account, version, kind FROM orders")?;
    let event = |row: Vec<Option<String>>| -> Result<Event> {
        let [id, account, version, kind] = texts(row)?;
        Ok(Event {
            id,
            account,
            version: version.parse()?,
            kind: Kind::of(&kind).context("a kind of event")?,
        })
    };
    rows.into_iter().map(event).collect()
}

/// In the order of their arrival.
pub fn received(connection: &mut Connection) -> Result<Vec<Arrived>> {
    let rows =
        connection.rows("SELECT event_id, account, payload FROM received ORDER BY arrival")?;
    let arrived = |mut row: Vec<Option<String>>| -> Result<Arrived> {
        let payload = row.pop().context("a payload")?;
        let [id, account] = texts(row)?;
        Ok(Arrived {
            id,
            account,
            body: Body::of(payload.as_deref().map(str::as_bytes)),
        })
    };
    rows.into_iter().map(arrived).collect()
}

/// Of an upsert: each account with the event that it is at.
pub fn state(connection: &mut Connection) -> Result<Vec<(String, String)>> {
    let rows = connection.rows("SELECT account, event_id FROM received")?;
    let pair = |row| texts(row).map(|[account, id]| (account, id));
    rows.into_iter().map(pair).collect()
}

/// Something that changes whenever something arrives.
pub fn progress(connection: &mut Connection, target: Target) -> Result<String> {
    let query = match target.upsert {
        true => "SELECT count(*), coalesce(sum(version), 0) FROM received",
        false => "SELECT max(arrival) FROM received",
    };
    let rows = connection.rows(query)?;
    Ok(format!("{rows:?}"))
}

/// No NULL among them.
fn texts<const N: usize>(row: Vec<Option<String>>) -> Result<[String; N]> {
    let values: Option<Vec<String>> = row.into_iter().collect();
    let values = values.context("an unexpected NULL")?;
    values
        .try_into()
        .ok()
        .context("an unexpected number of columns")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combination::combinations;

    #[test]
    fn what_is_written_is_read() {
        let mut connection = Connection::Sqlite(rusqlite::Connection::open_in_memory().unwrap());
        make_application(&mut connection, Engine::Sqlite).unwrap();
        connection
            .run("INSERT INTO orders VALUES ('e', 'a', 1, 'empty')")
            .unwrap();
        let events = committed(&mut connection).unwrap();
        assert_eq!((events.len(), events[0].kind), (1, Kind::Empty));
        let target = combinations(false)[1].target;
        make_target(&mut connection, target).unwrap();
        let before = progress(&mut connection, target).unwrap();
        let insert =
            "INSERT INTO received (event_id, account, payload, from_partition, from_offset)
            VALUES ('e', 'a', '', 0, 0)";
        connection.run(insert).unwrap();
        assert_ne!(progress(&mut connection, target).unwrap(), before);
        assert_eq!(received(&mut connection).unwrap()[0].body, Body::Empty);
    }
}
