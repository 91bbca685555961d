//! Tests of the log as a whole: against a model under random operations and crashes (`model`),
//! and in named situations.

mod compaction;
mod model;
mod reading;
mod recovery;
mod retention;
mod transactions;
mod world;
