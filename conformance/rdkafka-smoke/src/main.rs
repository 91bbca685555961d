//! Smoke of the rdkafka crate (librdkafka) against any broker: `rdkafka-smoke BOOTSTRAP`.
//!
//! Covers producing at every acks and codec, reading by assign, groups under both group protocols,
//! transactions, and the admin calls that the crate binds; conformance/python covers the rest of
//! librdkafka's admin client.

mod administration;
mod checks;
mod cluster;
mod groups;
mod records;
mod transactions;

use checks::Checks;
use cluster::Cluster;

fn main() -> anyhow::Result<()> {
    let bootstrap = std::env::args().nth(1).unwrap_or_default();
    anyhow::ensure!(!bootstrap.is_empty(), "usage: rdkafka-smoke BOOTSTRAP");
    let cluster = Cluster::new(&bootstrap)?;
    let mut checks = Checks::default();
    records::run(&mut checks, &cluster);
    groups::run(&mut checks, &cluster);
    transactions::run(&mut checks, &cluster);
    administration::run(&mut checks, &cluster);
    checks.run("clean-up", || cluster.delete_made());
    std::process::exit(i32::from(checks.failed > 0));
}
