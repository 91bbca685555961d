//! For tests and simulations, also those of the crates above: behind the feature `testing`.

mod memory_disk;
mod random;

pub use memory_disk::{Fault, MemoryDisk};
pub use random::Random;
