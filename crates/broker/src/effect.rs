//! What a broker wants done: values with their order stated, carried out by a host.
//!
//! Order: answers and closes of one connection go out in the order of emission. Disk operations
//! follow the contract of [`oncelog_commitlog::DiskOp`]. There is no order between a disk
//! operation and an answer: an answer that depends on durability is not emitted before the
//! operation's completion came back as an input.

use crate::answer::Answer;
use crate::input::{ConnectionId, OpId};
use oncelog_commitlog::DiskOp;

#[derive(Debug)]
pub enum Effect {
    Answer(Box<Answer>),
    Disk {
        op: OpId,
        work: DiskOp,
    },
    /// Close the connection after the answers before it.
    Close {
        connection: ConnectionId,
        reason: &'static str,
    },
    /// A line for the operator's log.
    Log {
        level: Level,
        message: String,
    },
    /// The answer to [`crate::Input::ShutDown`]: everything is on disk, the host may exit.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}
