//! The demo's order service: an application with a database of its own, which knows nothing of Kafka. It
//! writes an order and the event about it in one transaction; some it rolls back, and what was in them
//! must never be seen again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::failure::Failure;

const CUSTOMERS: u64 = 50;
/// One order in so many is rolled back.
const ROLLED_BACK: u64 = 20;

/// What it keeps of an order, for itself. The audit starts from this table.
pub const ORDERS: &str = "CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    customer TEXT NOT NULL,
    amount INTEGER NOT NULL
)";

/// Where the demo's sinks write. No column is unique, so that a duplicate would be there to be seen.
const RECEIVED: &str = "CREATE TABLE received (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    customer TEXT NOT NULL,
    amount INTEGER NOT NULL
)";

pub struct Shop {
    thread: JoinHandle<rusqlite::Result<()>>,
}

impl Shop {
    /// Writes `rate` orders a second until `stop`; in a database whose tables are there.
    pub fn open(path: &Path, rate: u32, stop: Arc<AtomicBool>) -> Result<Shop, Failure> {
        let mut connection = connect(path).map_err(failed)?;
        let thread = std::thread::spawn(move || serve(&mut connection, rate, &stop));
        Ok(Shop { thread })
    }

    pub fn close(self) -> Result<(), Failure> {
        self.thread
            .join()
            .expect("the shop does not panic")
            .map_err(failed)
    }
}

/// The shop's and the warehouse's databases, but for what relay and sink need in them.
pub fn make_databases(shop: &PathBuf, warehouse: &PathBuf) -> Result<(), Failure> {
    for (path, table) in [(shop, ORDERS), (warehouse, RECEIVED)] {
        let made = connect(path).and_then(|connection| connection.execute(table, []));
        made.map_err(failed)?;
    }
    Ok(())
}

/// The rows of a table; it is small.
pub fn count(path: &Path, table: &str) -> Result<u64, Failure> {
    let connection = connect(path).map_err(failed)?;
    let query = format!("SELECT count(*) FROM {table}");
    let count: i64 = connection
        .query_row(&query, [], |row| row.get(0))
        .map_err(failed)?;
    Ok(count.unsigned_abs())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

fn serve(connection: &mut Connection, rate: u32, stop: &AtomicBool) -> rusqlite::Result<()> {
    let began = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        order(connection, number)?;
        number += 1;
    }
    Ok(())
}

fn order(connection: &mut Connection, number: u64) -> rusqlite::Result<()> {
    let event_id = format!("event-{number}");
    let customer = format!("customer-{}", number * 7 % CUSTOMERS);
    let amount = 100 + (number % 900) as i64;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction
        .prepare_cached("INSERT INTO orders (event_id, customer, amount) VALUES (?1, ?2, ?3)")?
        .execute(params![event_id, customer, amount])?;
    let payload = format!("{{\"customer\":\"{customer}\",\"amount\":{amount}}}");
    transaction
        .prepare_cached(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
             VALUES (?1, 'order', ?2, 'placed', ?3)",
        )?
        .execute(params![event_id, customer, payload])?;
    if number % ROLLED_BACK == ROLLED_BACK - 1 {
        transaction.rollback()
    } else {
        transaction.commit()
    }
}

fn failed(error: rusqlite::Error) -> Failure {
    Failure::refused("the demo's order service failed").why(error.to_string())
}
