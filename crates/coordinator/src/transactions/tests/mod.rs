//! Tests of the shard as a whole: readable scripts (`script`, testdata/transactions/*.txt) and
//! random sequences of requests (`random`), both on one small host (`host`).

mod host;
mod random;
mod script;
