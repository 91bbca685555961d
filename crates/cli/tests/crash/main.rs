//! What is left after a crash: the built binary, killed for real, on real files.
//!
//! Deliberately not here: power cuts and failing syncs, which the simulator has by the thousand
//! (a killed process loses nothing of the page cache).

mod check;
mod churn;
mod client;
mod damage;
mod disk_full;
mod group;
mod producer;
mod random;
mod record;
mod rounds;

#[path = "../process/mod.rs"]
mod process;
