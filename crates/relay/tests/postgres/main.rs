//! The sources of PostgreSQL against a real server, which each test starts for itself.

mod cdc;
mod faults;
mod polling;
mod rates;
mod setup;
mod soak;
mod support;
