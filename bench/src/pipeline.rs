//! What moves rows to topics and topics to rows, measured: `oncelog relay` and `oncelog sink`, as
//! processes, between a real database and the broker under measurement.
//!
//! The rules are those of the broker's rows: an event counts when a consumer with read_committed can
//! have it, what arrived is counted again afterwards (each event once), and processor time and memory
//! are the kernel's own account of the process. The databases are new for each measurement.

pub mod apply;
mod arrivals;
mod connect;
pub mod drain;
pub mod eos_loop;
pub mod large;
pub mod latency;
mod origin;
mod part;
pub mod tax;

use std::path::PathBuf;

/// Partitions of every topic that is measured.
const PARTITIONS: i32 = 3;

/// What every measurement with a relay or a sink is told.
#[derive(clap::Args)]
pub struct Setting {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// A topic that does not exist yet; also the name of the relay or sink.
    #[arg(long)]
    topic: String,
    /// The program that has the relay and the sink.
    #[arg(long)]
    oncelog: PathBuf,
    /// A directory for what this measurement makes.
    #[arg(long)]
    home: PathBuf,
}
