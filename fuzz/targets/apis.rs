//! See `oncelog_fuzz::apis`.
#![no_main]

oncelog_fuzz::target!(oncelog_fuzz::apis);
