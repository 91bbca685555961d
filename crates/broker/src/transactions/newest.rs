//! Which connection a producer spoke on last, as far as leaders care.
//!
//! Before KIP-890 every transaction of a producer has the same epoch, so a Produce that was held up
//! on the way and arrives late on a connection that its client has long given up may enter a later
//! transaction. Such a client has one connection to each broker for its writes, and opens a new one
//! only after the old: what comes on an older connection than the newest one that its producer used
//! is from before, and is refused. (The coordinator does the same for what it is asked.)
//!
//! The same goes for TxnOffsetCommit: offsets of an aborted transaction that come late would be
//! committed with a later one's. It has a newest connection of its own, because a client may speak to
//! a group's coordinator on another connection than to a leader.
//!
//! Counted by producer id and epoch, the newest epoch alone: a zombie cannot shut its successor out by
//! opening newer connections, and a new instance may use an older one.
//!
//! Only of transactional writes in versions that belong to the old protocol. In memory: after a
//! restart there are no old connections.

use crate::input::ConnectionId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct NewestConnections {
    by_producer: BTreeMap<(Wrote, i64), (i16, ConnectionId)>,
}

/// What a producer may have a connection of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrote {
    Batches,
    Offsets,
}

impl NewestConnections {
    /// Takes note of a write; false if a later connection has been used since. Whether an old epoch
    /// may write is not for here to say.
    pub fn note(
        &mut self,
        wrote: Wrote,
        (producer_id, epoch): (i64, i16),
        connection: ConnectionId,
    ) -> bool {
        let key = (wrote, producer_id);
        let newest = self.by_producer.entry(key).or_insert((epoch, connection));
        if epoch > newest.0 {
            *newest = (epoch, connection);
        }
        if epoch == newest.0 {
            newest.1 = connection.max(newest.1);
        }
        epoch < newest.0 || connection == newest.1
    }

    /// Forgets producers of whom no older connection than the newest is open.
    pub fn forget(&mut self, oldest_open: Option<ConnectionId>) {
        self.by_producer
            .retain(|_, (_, newest)| oldest_open.is_some_and(|oldest| oldest <= *newest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_on_an_older_connection_is_told_from_what_does_not() {
        let mut newest = NewestConnections::default();
        let mut note = |producer_id, connection| {
            newest.note(Wrote::Batches, (producer_id, 0), ConnectionId(connection))
        };
        assert!(note(7, 3));
        assert!(note(7, 3));
        assert!(note(8, 1), "another producer");
        assert!(note(7, 5));
        assert!(!note(7, 3));
        assert!(newest.note(Wrote::Offsets, (7, 0), ConnectionId(3)));
        newest.forget(Some(ConnectionId(4)));
        assert!(
            !newest.note(Wrote::Batches, (7, 0), ConnectionId(3)),
            "4 may be a late one, too"
        );
        newest.forget(Some(ConnectionId(6)));
        assert!(newest.by_producer.is_empty());
    }

    #[test]
    fn a_zombie_does_not_shut_its_successor_out() {
        let mut newest = NewestConnections::default();
        let mut note =
            |epoch, connection| newest.note(Wrote::Batches, (7, epoch), ConnectionId(connection));
        assert!(note(0, 3));
        assert!(note(1, 2), "a new instance, on an older connection");
        assert!(note(0, 9), "the zombie, whom its epoch gives away");
        assert!(note(1, 2));
        assert!(note(1, 4));
        assert!(!note(1, 2));
    }
}
