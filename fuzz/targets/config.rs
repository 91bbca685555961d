//! See `oncelog_fuzz::config`.
#![no_main]

oncelog_fuzz::target!(oncelog_fuzz::config);
