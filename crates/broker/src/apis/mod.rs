//! One file per API (or per family of APIs that share one shape), and the switch between them.
//!
//! What is served, in which versions, is said in one place: [`oncelog_wire::apis`]. A request gets
//! here only if that table has its key and version, so the last arm below is a programmer's error.

pub(crate) mod admin;
pub(crate) mod api_versions;
pub(crate) mod delete_records;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod groups;
pub(crate) mod init_producer_id;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod transactions;
pub(crate) mod txn_offset_commit;
pub(crate) mod write_txn_markers;

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use crate::quorum::{self, Again, Job};
use oncelog_partition::Isolation;
use oncelog_wire::RequestBody as B;

pub(crate) fn dispatch(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    let version = prepared.version;
    match prepared.body {
        B::Produce(_) => produce::handle(broker, connection, Some(request), prepared),
        B::Fetch(fetch) => fetch::handle(broker, request, version, fetch),
        B::ApiVersions(ask) => api_versions::handle(broker, request, version, ask),
        B::ListOffsets(ask) => list_offsets::handle(broker, request, version, ask),
        B::OffsetForLeaderEpoch(ask) => offset_for_leader_epoch::handle(broker, request, ask),
        B::DeleteRecords(ask) => delete_records::handle(broker, request, ask),
        B::DescribeLogDirs(ask) => describe_log_dirs::handle(broker, request, ask),
        B::CreateTopics(_)
        | B::DeleteTopics(_)
        | B::CreatePartitions(_)
        | B::AlterConfigs(_)
        | B::IncrementalAlterConfigs(_) => {
            let body = prepared.body;
            let job = Job::Change {
                request,
                version,
                body,
            };
            quorum::submit(broker, job);
        }
        B::DescribeConfigs(_)
        | B::DescribeCluster(_)
        | B::DescribeTopicPartitions(_)
        | B::ListConfigResources(_) => {
            admin::view(broker, connection, request, version, prepared.body)
        }
        B::AddPartitionsToTxn(_) | B::AddOffsetsToTxn(_) | B::EndTxn(_) => {
            transactions::handle(broker, connection, request, prepared);
        }
        B::TxnOffsetCommit(_) => txn_offset_commit::handle(broker, connection, request, prepared),
        B::WriteTxnMarkers(ask) => write_txn_markers::handle(broker, request, &ask),
        B::DescribeProducers(ask) => describe_producers::handle(broker, request, &ask),
        B::ListTransactions(ask) => transactions::list(broker, request, &ask),
        B::DescribeTransactions(ask) => transactions::describe(broker, request, &ask),
        B::Metadata(_) => metadata::handle(broker, connection, request, prepared),
        B::InitProducerId(_) => init_producer_id::handle(broker, connection, request, prepared),
        B::FindCoordinator(_) => find_coordinator::handle(broker, connection, request, prepared),
        _ => groups::handle(broker, connection, request, prepared),
    }
}

/// A leader epoch as the wire has it: -1 is none.
pub(crate) fn epoch(wire: i32) -> Option<i32> {
    (wire >= 0).then_some(wire)
}

/// READ_COMMITTED is 1; everything else reads uncommitted, as in Kafka.
pub(crate) fn isolation(wire: i8) -> Isolation {
    match wire {
        1 => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    }
}

/// Makes missing topics and takes the request up again; only once, so that a topic which cannot
/// be made does not loop.
pub(crate) fn ensure_topics(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    mut prepared: Prepared,
    names: Vec<String>,
) {
    prepared.topics_ensured = true;
    let then = Again {
        connection,
        request,
        prepared: Box::new(prepared),
    };
    quorum::submit(broker, Job::EnsureTopics { names, then });
}
