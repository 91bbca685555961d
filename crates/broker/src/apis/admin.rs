//! APIs over the cluster metadata: CreateTopics (19), DeleteTopics (20), DescribeConfigs (32),
//! AlterConfigs (33), CreatePartitions (37), IncrementalAlterConfigs (44), DescribeCluster (60),
//! ListConfigResources (74), DescribeTopicPartitions (75).
//!
//! The rules are in `oncelog_coordinator::cluster`; here they are only called with what they need.
//! Changes come from the metadata queue (see [`crate::quorum`]), views are answered at once.

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::input::ConnectionId;
use oncelog_coordinator::cluster::MetadataRecord;
use oncelog_wire::{RequestBody as B, ResponseBody as R};

/// Decides a change against the committed state.
pub(crate) fn decide(broker: &mut Broker, version: i16, body: B) -> (Vec<MetadataRecord>, R) {
    let (cluster, config, seed) = (&broker.cluster, &broker.config, &mut broker.seed);
    match body {
        B::CreateTopics(ask) => {
            let (records, response) = cluster.create_topics(config, &ask, seed);
            (records, R::CreateTopics(response))
        }
        B::DeleteTopics(ask) => {
            let (records, response) = cluster.delete_topics(config, &ask, version);
            (records, R::DeleteTopics(response))
        }
        B::CreatePartitions(ask) => {
            let (records, response) = cluster.create_partitions(&ask);
            (records, R::CreatePartitions(response))
        }
        B::AlterConfigs(ask) => {
            let (records, response) = cluster.alter_configs(config, &ask);
            (records, R::AlterConfigs(response))
        }
        B::IncrementalAlterConfigs(ask) => {
            let (records, response) = cluster.incremental_alter_configs(config, &ask);
            (records, R::IncrementalAlterConfigs(response))
        }
        other => panic!("{:?} changes no metadata", other.api_key()),
    }
}

/// Answers a question about the committed state.
pub(crate) fn view(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    version: i16,
    body: B,
) {
    let listener = broker.listener_of(connection);
    let (cluster, config) = (&broker.cluster, &broker.config);
    let response = match body {
        B::DescribeConfigs(ask) => R::DescribeConfigs(cluster.describe_configs(config, &ask)),
        B::DescribeCluster(ask) => R::DescribeCluster(cluster.describe_cluster(&ask, &listener)),
        B::DescribeTopicPartitions(ask) => {
            R::DescribeTopicPartitions(cluster.describe_topic_partitions(config, &ask))
        }
        B::ListConfigResources(ask) => {
            R::ListConfigResources(cluster.list_config_resources(&ask, version))
        }
        other => panic!("{:?} is no view of the metadata", other.api_key()),
    };
    broker.answer(request, response);
}
