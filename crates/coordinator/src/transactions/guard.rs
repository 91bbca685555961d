//! The guard against requests that arrive late on an old connection.
//!
//! Before KIP-890 one epoch serves many transactions. A client that gives a connection up and
//! retries on another leaves its first request behind in the network; if that arrives after the
//! retry, and after the next transaction began, it is taken for the next transaction's: a late
//! EndTxn commits half of it, or aborts it and the commit that follows fails. Nothing in the
//! request tells them apart. The connection does: a producer speaks to its coordinator on one
//! connection at a time, so what comes on an older one than it has spoken on since is late. It is
//! answered NOT_COORDINATOR, which a client that did send it takes as a reason to look for the
//! coordinator again and retry on its newest connection.
//!
//! - Counted is a connection on which the producer's own identity was shown. A zombie cannot shut
//!   its successor out by opening newer ones.
//! - Guarded are AddPartitionsToTxn, AddOffsetsToTxn and EndTxn up to version 4. EndTxn 5 needs no
//!   guard, its epoch serves one transaction, and adding for a partition leader comes on the
//!   connection that the client produces on, which is another.
//! - InitProducerId is never refused, and begins anew with its own connection, newer or not. A new
//!   instance may share a pool of connections with the old one and get an older of them; sent away
//!   it would come back on the same one for ever. A late InitProducerId does bump the epoch and
//!   fences the living producer, which then fails cleanly: it costs a restart, never a wrong
//!   transaction.
//! - In memory only: connections do not outlive the process either.

use super::draft::Draft;
use crate::Caller;
use oncelog_wire::ErrorCode;

/// A request that showed the producer's identity: NOT_COORDINATOR if it is late.
pub(crate) fn admit(draft: &mut Draft, caller: &Caller, what: &str) -> Result<(), ErrorCode> {
    if caller.connection >= draft.newest_connection {
        draft.newest_connection = caller.connection;
        return Ok(());
    }
    if !draft.config.legacy_guard {
        return Ok(());
    }
    draft.fenced.late_request += 1;
    let (connection, newest) = (caller.connection, draft.newest_connection);
    let (host, client_id) = (&caller.client_host, &caller.client_id);
    draft.log(format!(
        "{what} from {host} (client id {client_id}) refused: it came on connection {connection}, and its producer has spoken on connection {newest} since, so it is late and may belong to an earlier transaction"
    ));
    Err(ErrorCode::NotCoordinator)
}
