//! See `oncelog_fuzz::wire`.
#![no_main]

oncelog_fuzz::target!(oncelog_fuzz::wire);
