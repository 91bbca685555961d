//! One member of a consumer group: what it said of itself, and what it has been given.
//!
//! The two halves are two records, so they change apart: [`MemberMetadata`] when the member says
//! something new, [`CurrentAssignment`] when the coordinator moves it on.

use oncelog_wire::Uuid;
use oncelog_wire::messages::ConsumerGroupCurrentMemberAssignmentValue;
use oncelog_wire::messages::ConsumerGroupMemberMetadataValue;
use oncelog_wire::messages::consumer_group_current_member_assignment_value::TopicPartitions;
use std::collections::{BTreeMap, BTreeSet};

/// A member epoch that asks to join.
pub(crate) const JOIN: i32 = 0;
/// A member epoch that says goodbye for good.
pub(crate) const LEAVE: i32 = -1;
/// A member epoch of a static member that means to come back.
pub(crate) const LEAVE_FOR_NOW: i32 = -2;

/// Topic id -> partitions. No topic is there without a partition.
pub(crate) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// Topic id -> partition -> the epoch of the target assignment by which the member was given it;
/// a commit under an older member epoch is a zombie's. No topic is there without a partition.
pub(crate) type Held = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Every partition of `held`.
pub(crate) fn each(held: &Held) -> impl Iterator<Item = (Uuid, i32)> {
    held.iter()
        .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
}

/// Where a member stands on its way to the target assignment; the numbers are the records'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has what the target assignment of its epoch gives it.
    #[default]
    Stable,
    /// It has to give up partitions before it is moved to the next epoch.
    UnrevokedPartitions,
    /// It waits for partitions that others have not given up yet.
    UnreleasedPartitions,
    /// Written by a newer release: the member has to join again.
    Unknown,
}

impl MemberState {
    fn number(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    fn from_number(number: i8) -> MemberState {
        match number {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Member {
    pub metadata: MemberMetadata,
    pub current: CurrentAssignment,
}

impl Member {
    pub(crate) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == epoch
    }
}

/// What a member said of itself, in this or an earlier heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemberMetadata {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topic_names: BTreeSet<String>,
    /// Empty if there is none; Kafka's records have it so.
    pub topic_regex: String,
    /// How long the member may take to give partitions up. -1 if it never said.
    pub rebalance_timeout_ms: i32,
    pub server_assignor: Option<String>,
}

impl Default for MemberMetadata {
    fn default() -> MemberMetadata {
        MemberMetadata {
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            topic_names: BTreeSet::new(),
            topic_regex: String::new(),
            rebalance_timeout_ms: -1,
            server_assignor: None,
        }
    }
}

impl MemberMetadata {
    pub(crate) fn to_record(&self) -> ConsumerGroupMemberMetadataValue {
        ConsumerGroupMemberMetadataValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.topic_names.iter().cloned().collect(),
            subscribed_topic_regex: Some(self.topic_regex.clone()),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            server_assignor: self.server_assignor.clone(),
            // Not the schema's default: without it Kafka reads a member of the classic protocol.
            classic_member_metadata: None,
            ..Default::default()
        }
    }

    /// What a Kafka broker wrote of a member that spoke the classic protocol in a consumer group
    /// is left out: such a member is asked to join again.
    pub(crate) fn from_record(value: ConsumerGroupMemberMetadataValue) -> MemberMetadata {
        MemberMetadata {
            instance_id: value.instance_id,
            rack_id: value.rack_id,
            client_id: value.client_id,
            client_host: value.client_host,
            topic_names: value.subscribed_topic_names.into_iter().collect(),
            topic_regex: value.subscribed_topic_regex.unwrap_or_default(),
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            server_assignor: value.server_assignor,
        }
    }
}

/// What a member has, and at which epoch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CurrentAssignment {
    pub epoch: i32,
    /// Accepted once more, in case the answer that carried `epoch` was lost. -1 if there is none.
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Held,
    /// Still the member's, until it reports that it has given them up.
    pub revoking: Held,
}

impl Default for CurrentAssignment {
    fn default() -> CurrentAssignment {
        CurrentAssignment {
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Held::new(),
            revoking: Held::new(),
        }
    }
}

impl CurrentAssignment {
    /// Every partition that is the member's and nobody else's.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (Uuid, i32)> {
        each(&self.assigned).chain(each(&self.revoking))
    }

    /// A static member that left for now keeps its partitions, but whatever it was giving up it
    /// gave up. Epochs begin anew with the process that takes its place.
    pub(crate) fn left_for_now(&self) -> CurrentAssignment {
        let mut left = self.clone();
        left.epoch = LEAVE_FOR_NOW;
        left.revoking.clear();
        for epoch in left.assigned.values_mut().flat_map(BTreeMap::values_mut) {
            *epoch = 0;
        }
        left
    }

    pub(crate) fn to_record(&self) -> ConsumerGroupCurrentMemberAssignmentValue {
        ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.number(),
            assigned_partitions: to_topics(&self.assigned),
            partitions_pending_revocation: to_topics(&self.revoking),
            ..Default::default()
        }
    }

    pub(crate) fn from_record(
        value: ConsumerGroupCurrentMemberAssignmentValue,
    ) -> CurrentAssignment {
        CurrentAssignment {
            epoch: value.member_epoch,
            previous_epoch: value.previous_member_epoch,
            state: MemberState::from_number(value.state),
            assigned: from_topics(value.assigned_partitions, value.member_epoch),
            revoking: from_topics(value.partitions_pending_revocation, value.member_epoch),
        }
    }
}

fn to_topics(held: &Held) -> Vec<TopicPartitions> {
    let topic = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..Default::default()
    };
    held.iter().map(topic).collect()
}

/// Kafka before 4.3 wrote no assignment epochs: the member's own stands in.
fn from_topics(topics: Vec<TopicPartitions>, member_epoch: i32) -> Held {
    let mut held = Held::new();
    for topic in topics {
        let epochs = topic.assignment_epochs.unwrap_or_default();
        let has_epochs = epochs.len() == topic.partitions.len();
        let own = member_epoch.max(0);
        let epoch_of = |at: usize| if has_epochs { epochs[at] } else { own };
        let partitions = topic.partitions.iter().enumerate();
        let partitions: BTreeMap<i32, i32> = partitions
            .map(|(at, partition)| (*partition, epoch_of(at)))
            .collect();
        if !partitions.is_empty() {
            held.entry(topic.topic_id).or_default().extend(partitions);
        }
    }
    held
}
