//! What must hold. The checks that can be made at the event itself are methods of
//! [`crate::history::History`] (one value per offset, one offset per value of an idempotent
//! producer, watermarks that only rise, one owner per partition and generation, no commit of an
//! old generation, no producer id twice); here are those that need the end of the run.

mod acked_survives;
mod order;

use crate::history::{History, Violation};

/// Looks at the whole history once everybody is done and everything was read back.
pub fn at_the_end(history: &History) -> Result<(), Violation> {
    acked_survives::check(history)?;
    order::check(history)
}
