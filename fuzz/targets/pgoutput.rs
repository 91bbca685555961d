//! See `oncelog_fuzz::pgoutput`.
#![no_main]

oncelog_fuzz::target!(oncelog_fuzz::pgoutput);
