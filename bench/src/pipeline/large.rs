//! One database transaction that is far larger than the relay's memory may become.

use anyhow::{Result, ensure};

use super::Setting;
use super::arrivals::Arrivals;
use super::origin::{Origin, Source};
use crate::figures::Figures;

/// Of each row's payload.
const ROW_BYTES: u64 = 8_000;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    /// Of all its payloads, in MB.
    #[arg(long)]
    megabytes: u64,
}

pub fn run(args: &Args) -> Result<Figures> {
    let origin = Origin::start(Source::PostgresTable, &args.setting)?;
    let program = origin.relay(&args.setting, "")?;
    let mut arrivals = Arrivals::prepare(&args.setting)?;
    let mut relay = origin.begin(&program, &mut arrivals)?;
    let before = arrivals.stable_ends()?;
    let rows = args.megabytes * 1_000_000 / ROW_BYTES;
    // Or PostgreSQL would make little of it.
    let server = origin.postgresql()?;
    server.sql("ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL")?;
    server.sql(&format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
        SELECT 'order', (n % 1000)::text, 'created', to_jsonb(repeat('x', {ROW_BYTES}))
        FROM generate_series(1, {rows}) n"
    ))?;
    let span = arrivals.watch(&before, rows, &mut relay)?;
    let resident = relay.process.resident_max_bytes()?;
    drop(relay);
    let counted = arrivals.count(&before, &span.first.ends, &span.last.ends)?;
    ensure!(
        counted.events == rows,
        "{rows} rows, {} events",
        counted.events
    );
    let mut figures = Figures::default();
    figures.set("resident_max_mb", resident as f64 / 1e6);
    let seconds = (span.last.at - span.first.at).as_secs_f64();
    let megabytes = (rows - counted.before) * ROW_BYTES / 1_000_000;
    figures.set("mb_per_s", megabytes as f64 / seconds);
    Ok(figures)
}
