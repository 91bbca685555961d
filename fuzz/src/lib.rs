//! What the fuzz targets assert, one module each, and the inputs that they start from.
//!
//! A module has `run(input)`, which panics if something that must hold does not, and `seeds()`,
//! inputs that reach far into the code. The programs in `targets/` only hand libFuzzer's bytes
//! over. Everything is deterministic: an input that failed once fails always.
//!
//! How to run them, and what each of them promises, is in docs/fuzzing.md.

pub mod apis;
pub mod batches;
pub mod config;
#[path = "../../crates/wire/tests/counting/mod.rs"]
mod counting;
#[allow(dead_code)] // the tests use more of it
#[path = "../../crates/broker/tests/broker/host.rs"]
mod host;
#[path = "../../crates/partition/tests/support/mod.rs"]
mod partition_world;
pub mod pgoutput;
/// The file itself: its crate, with the databases' clients, is not needed for it.
#[allow(dead_code)] // the relay uses more of it
#[path = "../../crates/relay/src/sources/postgres/pgoutput.rs"]
mod pgoutput_decoder;
pub mod recovery;
#[allow(dead_code)] // the tests use more of it
#[path = "../../crates/broker/tests/broker/requests.rs"]
mod requests;
mod seeds;
/// The files themselves: their crate, with sockets and threads, is not needed for them.
#[allow(dead_code)] // the server uses more of it
#[path = "../../crates/server/src/config/mod.rs"]
mod server_config;
pub mod wire;

pub use libfuzzer_sys;
pub use seeds::write_if_asked;

/// The program of one target: its module's `run` for each input; or, if the environment asks for
/// them, its `seeds` into a directory and an end.
#[macro_export]
macro_rules! target {
    ($($module:ident)::+) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_if_asked($($module)::+::seeds),
            |input: &[u8]| $($module)::+::run(input)
        );
    };
}
