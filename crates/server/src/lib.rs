//! The real host of `broker`: sockets, files, the clock, threads, configuration.
//!
//! A server is one core ([`core`]) behind a lock, and around it: connections that frame and
//! prepare requests ([`reading`], [`frames`], [`budget`]) and send answers ([`outbox`]), threads that make appends
//! durable together ([`commit`]), threads for the disk work that nobody waits for
//! ([`background`]), and the data directory ([`disk`]). No line in here decides what a client is
//! answered: that is `broker`'s, and the simulator runs the same.
//!
//! Three ways in:
//! - [`run`]: what `oncelog start` does, from arguments to exit;
//! - [`Server`]: a broker on the caller's tokio runtime;
//! - [`EmbeddedBroker`]: a broker for a test, in one line.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A broker of its own on a free port, in a temporary directory; stopped when it is dropped.
//! let broker = oncelog_server::EmbeddedBroker::start()?;
//! let bootstrap_servers = broker.bootstrap_servers(); // "127.0.0.1:34567", for any Kafka client
//! # assert!(std::net::TcpStream::connect(&bootstrap_servers).is_ok());
//! # Ok(())
//! # }
//! ```

mod background;
mod banner;
mod budget;
mod clock;
mod commit;
pub mod config;
mod connection;
mod core;
mod disk;
mod embedded;
mod fatal;
mod figures;
mod frames;
mod limits;
mod listener;
mod log;
mod outbox;
mod pressure;
mod process;
mod reading;
mod server;
mod steps;

pub use banner::durability_in_words;
pub use disk::RealDisk;
pub use disk::lock::{DirectoryLock, LockError};
pub use embedded::{EmbeddedBroker, EmbeddedBuilder};
pub use fatal::{Failure, OnFailure};
pub use figures::PipelineFigures;
pub use listener::BindError;
pub use process::{LOG_FILTER, RunError, StartArgs, StopBeside, run, run_beside};
pub use server::{RunningServer, Server, ServerConfig, ShutdownError, StartError};
