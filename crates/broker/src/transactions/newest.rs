//! Which connection a producer spoke on last, as far as leaders care.
//!
//! Before KIP-890 every transaction of a producer has the same epoch, so a Produce that was held up
//! on the way and arrives late on a connection that its client has long given up may enter a later
//! transaction. Such a client has one connection to each broker for its writes, and opens a new one
//! only after the old: what comes on an older connection than the newest one that its producer used
//! is from before, and is refused. (The coordinator does the same for what it is asked.)
//!
//! Only of transactional batches in versions that belong to the old protocol. In memory: after a
//! restart there are no old connections.

use crate::input::ConnectionId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct NewestConnections {
    by_producer: BTreeMap<i64, ConnectionId>,
}

impl NewestConnections {
    /// Takes note of a write; false if a later connection has been used since.
    pub fn note(&mut self, producer_id: i64, connection: ConnectionId) -> bool {
        let newest = self.by_producer.entry(producer_id).or_insert(connection);
        *newest = connection.max(*newest);
        *newest == connection
    }

    /// Forgets producers of whom no older connection than the newest is open.
    pub fn forget(&mut self, oldest_open: Option<ConnectionId>) {
        self.by_producer
            .retain(|_, newest| oldest_open.is_some_and(|oldest| oldest <= *newest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_on_an_older_connection_is_told_from_what_does_not() {
        let mut newest = NewestConnections::default();
        assert!(newest.note(7, ConnectionId(3)));
        assert!(newest.note(7, ConnectionId(3)));
        assert!(newest.note(8, ConnectionId(1)), "another producer");
        assert!(newest.note(7, ConnectionId(5)));
        assert!(!newest.note(7, ConnectionId(3)));
        newest.forget(Some(ConnectionId(4)));
        assert!(!newest.note(7, ConnectionId(3)), "4 may be a late one, too");
        newest.forget(Some(ConnectionId(6)));
        assert!(newest.by_producer.is_empty());
    }
}
