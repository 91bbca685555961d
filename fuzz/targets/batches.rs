//! See `oncelog_fuzz::batches`.
#![no_main]

oncelog_fuzz::target!(oncelog_fuzz::batches);
