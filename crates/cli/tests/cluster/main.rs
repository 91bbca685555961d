//! The built binary against a real cluster: Apache Kafka or Oncelog, whose address is in
//! `ONCELOG_TEST_BOOTSTRAP`. Without it these tests are skipped, and each says so on the terminal.
//!
//! The tests run side by side on one cluster, so every topic and group has a name of its own, and
//! nothing is asserted that holds for one vendor only.

mod config;
mod consume;
mod group;
mod produce;
mod run;
mod topic;
mod txn;
mod unreachable;
