//! The application: several writers, each with a connection of its own, that put orders and the events
//! about them into one transaction and know nothing of Kafka.
//!
//! Within an account they take turns by its row's lock, and count its version up. All that makes an
//! outbox hard is in it: transactions that begin early and commit late, that are rolled back whole or in
//! part, of many rows in one statement, of more rows than a batch of the relay's; a transaction id taken
//! before the account's lock; payloads from nothing to 64 KiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use crash_campaign::random::Random;

use crate::combination::{Combination, Engine, Source};
use crate::event::{Event, Kind};
use crate::sql::Connection;
use crate::tables::{ACCOUNTS, account};

const WRITERS: u64 = 4;
/// Between two transactions of a writer.
const PAUSE_MS: (u64, u64) = (10, 60);
/// A literal beyond this would only be slow.
const PAYLOAD_MAX: usize = 64 << 10;

/// What the writers need to know of where they write.
#[derive(Clone)]
pub struct Outlet {
    pub url: String,
    pub combination: Combination,
    /// The prefix of logical messages.
    pub prefix: String,
}

#[derive(Default)]
pub struct Counts {
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    /// Transactions whose end a writer does not know, or that the database ended.
    pub failed: AtomicU64,
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    pub counts: Arc<Counts>,
}

impl Writers {
    pub fn start(outlet: &Outlet, random: &mut Random) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let threads = (0..WRITERS).map(|number| {
            let writer = Writer {
                number,
                events: 0,
                outlet: outlet.clone(),
                random: random.fork(),
                counts: Arc::clone(&counts),
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || writer.write(&stop))
        });
        Writers {
            stop: Arc::clone(&stop),
            threads: threads.collect(),
            counts: Arc::clone(&counts),
        }
    }

    pub fn finish(self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a writer does not panic");
        }
        self.counts
    }
}

struct Writer {
    number: u64,
    /// Given out so far.
    events: u64,
    outlet: Outlet,
    random: Random,
    counts: Arc<Counts>,
}

/// What one transaction is to be like.
struct Plan {
    /// Events, each with the index of its account in `accounts`.
    events: Vec<usize>,
    /// In the order of their names, so that no two writers wait for each other.
    accounts: Vec<u64>,
    /// Write something, and wait for so long, before any account is locked.
    early: Option<Duration>,
    /// Wait before the end.
    late: Duration,
    /// Write events and take them back before those that stay.
    savepoint: bool,
    commit: bool,
}

impl Writer {
    fn write(mut self, stop: &AtomicBool) {
        let mut connection = None;
        while !stop.load(Ordering::Relaxed) {
            let pause = self.random.range(PAUSE_MS.0, PAUSE_MS.1);
            std::thread::sleep(Duration::from_millis(pause));
            let client = match &mut connection {
                Some(client) => client,
                empty => match Connection::open(&self.outlet.url) {
                    Ok(client) => empty.insert(client),
                    Err(_) => continue,
                },
            };
            let plan = self.plan();
            let counted = match self.transaction(client, &plan) {
                Ok(()) if plan.commit => &self.counts.committed,
                Ok(()) => &self.counts.rolled_back,
                // A server that was killed, a lock that was not given: whatever it was, the database
                // alone knows how it ended.
                Err(_) => {
                    connection = None;
                    &self.counts.failed
                }
            };
            counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn plan(&mut self) -> Plan {
        let random = &mut self.random;
        let count = match random.range(0, 100) {
            0..70 => 1,
            70..98 => random.range(2, 20),
            _ => random.range(150, 400),
        };
        let most = count.min(4);
        let wanted = random.range(1, most + 1);
        let mut accounts: Vec<u64> = (0..wanted).map(|_| random.range(0, ACCOUNTS)).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let events = (0..count)
            .map(|_| random.range(0, accounts.len() as u64) as usize)
            .collect();
        // SQLite has one writer: whoever waits holds up all.
        let longest = match self.outlet.combination.source {
            Source::Sqlite => 30,
            _ => 600,
        };
        let mut wait = |one_in: u64| match random.one_in(one_in) {
            true => Duration::from_millis(random.range(1, longest)),
            false => Duration::ZERO,
        };
        let early = Some(wait(2)).filter(|_| longest > 30);
        let late = wait(12);
        Plan {
            events,
            accounts,
            early: early.filter(|_| self.random.one_in(8)),
            late,
            savepoint: self.random.one_in(10),
            commit: !self.random.one_in(10),
        }
    }

    fn transaction(&mut self, client: &mut Connection, plan: &Plan) -> Result<()> {
        let engine = self.outlet.combination.source.engine();
        client.run(match engine {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            _ => "START TRANSACTION",
        })?;
        if let Some(wait) = plan.early {
            client.run(&format!("INSERT INTO noise VALUES ('of {}')", self.number))?;
            std::thread::sleep(wait);
        }
        let mut versions = Vec::new();
        for number in &plan.accounts {
            let lock = if engine == Engine::Sqlite {
                ""
            } else {
                " FOR UPDATE"
            };
            let id = account(*number);
            let query = format!("SELECT version FROM account WHERE id = '{id}'{lock}");
            versions.push(client.value(&query)?.parse::<u64>().context("a version")?);
        }
        if plan.savepoint {
            client.run("SAVEPOINT again")?;
            let mut ahead = versions.clone();
            self.insert(client, plan, &mut ahead)?;
            client.run("ROLLBACK TO SAVEPOINT again")?;
        }
        self.insert(client, plan, &mut versions)?;
        for (number, version) in plan.accounts.iter().zip(&versions) {
            let id = account(*number);
            client.run(&format!(
                "UPDATE account SET version = {version} WHERE id = '{id}'"
            ))?;
        }
        std::thread::sleep(plan.late);
        client.run(if plan.commit { "COMMIT" } else { "ROLLBACK" })
    }

    /// The orders, and the events about them. Counts `versions` up, which are those of the plan's
    /// accounts.
    fn insert(&mut self, client: &mut Connection, plan: &Plan, versions: &mut [u64]) -> Result<()> {
        let mut orders = Vec::new();
        let mut rows = Vec::new();
        for index in &plan.events {
            versions[*index] += 1;
            let event = self.event(account(plan.accounts[*index]), versions[*index]);
            // Whole transactions of large rows would only be slow.
            let size = if plan.events.len() > 20 {
                40
            } else {
                self.size()
            };
            orders.push(format!(
                "('{}', '{}', {}, '{}')",
                event.id,
                event.account,
                event.version,
                event.kind.code()
            ));
            rows.push(match self.outlet.combination.source {
                Source::PostgresMessages => message(&event, size),
                _ => row(&event, size),
            });
        }
        client.run(&format!(
            "INSERT INTO orders (event_id, account, version, kind) VALUES {}",
            orders.join(", ")
        ))?;
        let rows = rows.join(", ");
        if self.outlet.combination.source == Source::PostgresMessages {
            let prefix = &self.outlet.prefix;
            let emit = format!("pg_logical_emit_message(true, '{prefix}', message.content)");
            client.rows(&format!(
                "SELECT {emit} FROM (VALUES {rows}) AS message (content)"
            ))?;
            return Ok(());
        }
        client.run(&format!(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES {rows}"
        ))
    }

    fn event(&mut self, account: String, version: u64) -> Event {
        self.events += 1;
        let Combination { source, target } = self.outlet.combination;
        let kind = match self.random.range(0, 20) {
            0 if target.upsert => Kind::Tombstone,
            // JSON, which is what the other databases keep a payload as, is never empty.
            1 if source == Source::Sqlite && !target.upsert => Kind::Empty,
            _ => Kind::Document,
        };
        Event {
            id: format!("{:08x}-0000-4000-8000-{:012x}", self.number, self.events),
            account,
            version,
            kind,
        }
    }

    fn size(&mut self) -> usize {
        let most = match self.random.range(0, 100) {
            0..50 => 100,
            50..95 => 1_000,
            95..99 => 10_000,
            _ => PAYLOAD_MAX,
        };
        self.random.range(0, most as u64) as usize
    }
}

fn row(event: &Event, size: usize) -> String {
    let payload = event.payload(size);
    let payload = payload.map_or_else(|| "NULL".to_owned(), |payload| format!("'{payload}'"));
    format!(
        "('{}', 'order', '{}', 'placed', {payload})",
        event.id, event.account
    )
}

/// The same as a logical message.
fn message(event: &Event, size: usize) -> String {
    let payload = event.payload(size).unwrap_or_else(|| "null".to_owned());
    format!(
        "('{{\"id\":\"{}\",\"aggregatetype\":\"order\",\"aggregateid\":\"{}\",\"type\":\"placed\",\
         \"payload\":{payload}}}'::text)",
        event.id, event.account
    )
}
