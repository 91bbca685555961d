//! See `oncelog_fuzz::recovery`.
#![no_main]

oncelog_fuzz::target!(oncelog_fuzz::recovery);
