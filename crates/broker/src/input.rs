//! What can happen to a broker: the only ways in.

use crate::prepare::Prepared;
use oncelog_commitlog::DiskOutcome;

/// One client connection; the host counts them up and never reuses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One piece of disk work in flight; counted up by the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

#[derive(Debug)]
pub enum Input {
    Connected {
        connection: ConnectionId,
        /// The peer's address without its port, as Kafka shows a member's host (`/127.0.0.1`
        /// without the slash).
        peer: String,
        /// The name of the listener that it came in on (`PLAINTEXT`): answers that name brokers
        /// name their addresses for this listener.
        listener: String,
    },
    /// A decoded and checked request (see [`crate::prepare`]). Requests of one connection arrive
    /// in the order in which they stood on the wire.
    Request {
        connection: ConnectionId,
        request: Box<Prepared>,
    },
    /// Nothing more comes from, or can go to, this connection.
    Disconnected { connection: ConnectionId },
    /// A disk operation finished. A failed write or sync never gets here: the host stops.
    DiskDone { op: OpId, outcome: DiskOutcome },
    /// A read-only operation (lookup, read, compaction) failed; the broker answers with a
    /// storage error or gives the work up, and nothing is lost.
    DiskFailed { op: OpId, error: String },
    /// A deadline from [`crate::Broker::next_deadline`] has passed.
    Tick,
    /// SIGTERM: finish what is in flight, write snapshots and the clean-shutdown marker, then
    /// emit [`crate::Effect::Stopped`].
    ShutDown,
}
