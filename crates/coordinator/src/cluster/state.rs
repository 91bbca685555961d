//! The cluster's state and what can be asked of it; `replay` is the only thing that changes it.

use super::config::{BrokerConfig, Layers, Listener, TopicConfig};
use super::resource::ConfigResource;
use super::topic_name::without_dots;
use crate::topics::{TopicView, Topics};
use oncelog_wire::Uuid;
use oncelog_wire::messages::RegisterBrokerRecord;
use oncelog_wire::messages::register_broker_record::BrokerEndpoint;
use std::collections::BTreeMap;

/// One partition, as the controller sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// In order of preference.
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub removing_replicas: Vec<i32>,
    pub adding_replicas: Vec<i32>,
    /// -1: none.
    pub leader: i32,
    /// 1 while an unclean leader is recovering, else 0.
    pub leader_recovery_state: i8,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// One for each replica.
    pub directories: Vec<Uuid>,
    pub eligible_leader_replicas: Vec<i32>,
    pub last_known_elr: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    pub name: String,
    pub id: Uuid,
    /// By number, from 0.
    pub partitions: Vec<PartitionState>,
}

/// A broker that has registered, as its last registration says.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisteredBroker {
    pub record: RegisterBrokerRecord,
}

impl RegisteredBroker {
    /// Where clients of a listener find this broker; `None` if it does not have that listener.
    pub fn endpoint(&self, listener: &str) -> Option<&BrokerEndpoint> {
        self.record
            .end_points
            .iter()
            .find(|endpoint| endpoint.name == listener)
    }
}

/// Everything that is known of the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) cluster_id: String,
    /// The broker in which this value lives.
    pub(super) node_id: i32,
    pub(super) brokers: BTreeMap<i32, RegisteredBroker>,
    pub(super) topics: BTreeMap<String, TopicState>,
    pub(super) names: BTreeMap<Uuid, String>,
    /// Names by what they are without dots, see [`without_dots`].
    pub(super) dotless: BTreeMap<String, String>,
    pub(super) configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    pub(super) features: BTreeMap<String, i16>,
    pub(super) next_producer_id: i64,
    /// Of the last record replayed, -1 if there was none.
    pub(super) metadata_offset: i64,
    pub(super) topics_epoch: u64,
}

/// Equal if the same records would bring both about; how many it took does not count.
impl PartialEq for Cluster {
    fn eq(&self, other: &Cluster) -> bool {
        self.cluster_id == other.cluster_id
            && self.node_id == other.node_id
            && self.brokers == other.brokers
            && self.topics == other.topics
            && self.names == other.names
            && self.dotless == other.dotless
            && self.configs == other.configs
            && self.features == other.features
            && self.next_producer_id == other.next_producer_id
    }
}

impl Cluster {
    /// A cluster without topics, whose one broker is the one with this configuration.
    ///
    /// This broker's registration comes from its configuration at every start and never from the
    /// log, so that a changed address cannot be overruled by an old record.
    pub fn new(config: &BrokerConfig, cluster_id: String) -> Cluster {
        let mut cluster = Cluster {
            cluster_id,
            node_id: config.node_id,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            dotless: BTreeMap::new(),
            configs: BTreeMap::new(),
            features: BTreeMap::new(),
            next_producer_id: 0,
            metadata_offset: -1,
            topics_epoch: 0,
        };
        let record = own_registration(config);
        cluster
            .brokers
            .insert(config.node_id, RegisteredBroker { record });
        cluster
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    /// Of the last record replayed; -1 before the first.
    pub fn metadata_offset(&self) -> i64 {
        self.metadata_offset
    }

    /// In order of name.
    pub fn topics(&self) -> impl Iterator<Item = &TopicState> {
        self.topics.values()
    }

    pub fn topic(&self, name: &str) -> Option<&TopicState> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&TopicState> {
        self.topics.get(self.names.get(&id)?)
    }

    pub fn brokers(&self) -> impl Iterator<Item = &RegisteredBroker> {
        self.brokers.values()
    }

    pub fn broker(&self, node_id: i32) -> Option<&RegisteredBroker> {
        self.brokers.get(&node_id)
    }

    /// Finalized feature levels, by name.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// What a topic without values of its own goes by.
    pub fn default_topic_config(&self, config: &BrokerConfig) -> TopicConfig {
        TopicConfig::new(&self.layers(config, None))
    }

    /// What a topic's partitions go by. A topic that does not exist gets the broker's defaults.
    pub fn topic_config(&self, config: &BrokerConfig, name: &str) -> TopicConfig {
        let overrides = self.configs.get(&ConfigResource::topic(name));
        TopicConfig::new(&self.layers(config, overrides))
    }

    /// The existing topic whose name differs from this one only in `.` and `_`.
    pub(super) fn colliding(&self, name: &str) -> Option<&str> {
        let known = self.dotless.get(&without_dots(name))?;
        (known != name).then_some(known)
    }

    /// The layers of configuration below a topic's own.
    pub(super) fn layers<'a>(
        &'a self,
        config: &'a BrokerConfig,
        topic: Option<&'a BTreeMap<String, String>>,
    ) -> Layers<'a> {
        Layers {
            topic,
            broker: self.configs.get(&ConfigResource::broker(self.node_id)),
            default_broker: self.configs.get(&ConfigResource::all_brokers()),
            file: Some(&config.properties),
        }
    }
}

fn own_registration(config: &BrokerConfig) -> RegisterBrokerRecord {
    let endpoint = |listener: &Listener| BrokerEndpoint {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        ..Default::default()
    };
    RegisterBrokerRecord {
        broker_id: config.node_id,
        end_points: config.advertised_listeners.iter().map(endpoint).collect(),
        rack: config.rack.clone(),
        fenced: false,
        ..Default::default()
    }
}

impl Topics for Cluster {
    fn topic(&self, name: &str) -> Option<TopicView> {
        let topic = self.topics.get(name)?;
        Some(TopicView {
            id: topic.id,
            partitions: topic.partitions.len() as i32,
        })
    }

    fn topic_by_id(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn epoch(&self) -> u64 {
        self.topics_epoch
    }
}
