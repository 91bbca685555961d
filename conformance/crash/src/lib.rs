//! What the crash campaign is made of: the broker as a process, load whose every record can be
//! recognised, and the judge. The campaign itself, fault by fault, is the program of this package
//! (`cargo xtask crash`); tests of the binary use the same pieces.

pub mod check;
pub mod client;
pub mod copying;
pub mod process;
pub mod producer;
pub mod random;
pub mod raw;
pub mod record;
