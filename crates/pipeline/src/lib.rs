//! What the relay and the sink share.

pub mod database;
pub mod failpoint;
pub mod finding;
