//! What a relay takes from those who write: their transactions per second with one that follows, by
//! those without.
//!
//! A transaction is an application's: a row of its own, and the event. PostgreSQL waits for its disk,
//! as it does for its users; without that, nothing would be measured but two cores shared by more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use databases::postgresql::PostgreSql;

use super::Setting;
use super::arrivals::Arrivals;
use super::part::Program;
use crate::figures::Figures;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    #[arg(long, default_value_t = 8)]
    writers: u32,
    /// How long each of the four turns is counted.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

const ORDER: &str = "INSERT INTO orders (customer, note) VALUES ($1, repeat('x', 100))";
const EVENT: &str = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
    VALUES ('order', $1, 'created', jsonb_build_object('text', repeat('x', 200)))";
/// Of each turn, before it counts.
const WARM: Duration = Duration::from_millis(500);

pub fn run(args: &Args) -> Result<Figures> {
    let server = PostgreSql::start_with(&[
        ("fsync", "on"),
        ("max_wal_size", "8GB"),
        ("shared_buffers", "256MB"),
    ])?;
    let program = Program::relay(&args.setting, &server.url(), "capture = \"cdc\"")?;
    server.sql("CREATE TABLE orders (id bigserial PRIMARY KEY, customer text, note text)")?;
    let mut arrivals = Arrivals::prepare(&args.setting)?;
    let (mut without, mut with) = (0.0, 0.0);
    // In this order, so that a drift of the machine is in both sums.
    without += turn(args, &server)?;
    // A log begins with its slot, and the relay would miss what was written before.
    server.sql("TRUNCATE outbox")?;
    let mut relay = program.start()?;
    while server.sql("SELECT count(*) FROM pg_replication_slots WHERE active")? == "0" {
        relay.check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = arrivals.stable_ends()?;
    let cpu_before = relay.process.cpu()?;
    with += turn(args, &server)?;
    with += turn(args, &server)?;
    let cpu = relay.process.cpu()? - cpu_before;
    // Or there would be nothing that could cost.
    let moved = arrivals.await_change(&before, &mut relay)?;
    relay.stop()?;
    server.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")?;
    without += turn(args, &server)?;
    let mut figures = Figures::default();
    figures.set("txn_per_s_without", without / 2.0);
    figures.set("txn_per_s", with / 2.0);
    figures.set("cost_percent", 100.0 * (1.0 - with / without));
    figures.set(
        "cpu_percent",
        cpu.as_secs_f64() / (2.0 * args.seconds) * 100.0,
    );
    let readable = moved.ends.iter().zip(&before).map(|(now, then)| now - then);
    figures.set("readable", readable.sum::<i64>() as f64);
    Ok(figures)
}

/// Transactions per second of all writers.
fn turn(args: &Args, server: &PostgreSql) -> Result<f64> {
    let (counts, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let count = AtomicU64::new(0);
    std::thread::scope(|threads| {
        let writing: Vec<_> = (0..args.writers)
            .map(|_| threads.spawn(|| write(&server.url(), &counts, &over, &count)))
            .collect();
        std::thread::sleep(WARM);
        counts.store(true, Ordering::Release);
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs_f64(args.seconds));
        over.store(true, Ordering::Release);
        let seconds = began.elapsed().as_secs_f64();
        for thread in writing {
            thread
                .join()
                .unwrap_or_else(|_| bail!("a writer panicked"))?;
        }
        Ok(count.load(Ordering::Relaxed) as f64 / seconds)
    })
}

fn write(url: &str, counts: &AtomicBool, over: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let mut client = postgres::Client::connect(url, postgres::NoTls)?;
    let (order, event) = (client.prepare(ORDER)?, client.prepare(EVENT)?);
    let mut number = 0_u64;
    while !over.load(Ordering::Acquire) {
        let customer = (number % 1_000).to_string();
        let mut transaction = client.transaction()?;
        transaction.execute(&order, &[&customer])?;
        transaction.execute(&event, &[&customer])?;
        transaction.commit()?;
        number += 1;
        if counts.load(Ordering::Relaxed) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
