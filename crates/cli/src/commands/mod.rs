//! One file per command; a noun with several verbs is a directory with one file per verb. What
//! arguments of several commands have in common is in `scope`.

pub mod cluster;
pub mod completions;
pub mod config;
pub mod consume;
pub mod demo;
pub mod group;
pub mod produce;
pub mod scope;
pub mod start;
pub mod topic;
pub mod txn;
