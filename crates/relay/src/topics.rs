//! The narrow port for "a transaction on topics". [`crate::kafka`] implements it with librdkafka; `sim`
//! with frames to a simulated broker.

use crate::event::Event;
use crate::position::Progress;

/// The producer, or what it needs, did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// Nothing is known of how it ended, or it is known to have failed: begin anew.
    #[error("{0}")]
    Lost(String),
    /// Another producer has the transactional id: it has taken over, and this relay has to stop.
    #[error("{0}")]
    Fenced(String),
    /// An event that the broker or the client will never take: too large, a topic's name that is none.
    /// Which one is not known where `index` is `None`.
    #[error("{reason}")]
    Rejected {
        index: Option<usize>,
        reason: String,
    },
    /// Something that somebody has to change: not authorized, a property that is none.
    #[error("{0}")]
    Refused(String),
}

pub trait Topics: Send {
    /// A new producer. For exactly once: `InitProducerId` on the stable transactional id, which fences
    /// the producers before it and resolves the transaction that they may have left.
    fn init(&mut self) -> Result<(), TopicsError>;

    /// The last committed progress, read to the end of the progress topic; only after [`Topics::init`].
    fn progress(&mut self) -> Result<Option<Progress>, TopicsError>;

    /// Sends the events in order and waits until each is acknowledged (as far as the guarantee has
    /// acknowledgements). At most once, nothing has been sent where [`TopicsError::Rejected`] comes back. With `progress`: both in one transaction, which is begun here.
    fn publish(&mut self, events: &[Event], progress: Option<&Progress>)
    -> Result<(), TopicsError>;

    /// Ends the transaction of the last [`Topics::publish`].
    fn commit(&mut self) -> Result<(), TopicsError>;

    fn abort(&mut self) -> Result<(), TopicsError>;
}
