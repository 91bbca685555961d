//! The state of a consumer group, and the questions that can be asked of it.
//!
//! Durable state is changed by `replay` alone, one record at a time, and with it what follows from
//! it: who owns which partition, who is static, which topics are subscribed to.

use super::expiry::Timers;
use super::member::{LEAVE_FOR_NOW, Member, MemberState, Partitions};
use super::records;
use crate::Record;
use crate::groups::group::Committer;
use oncelog_wire::{ErrorCode, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// The epoch of the group and of the target assignment before anything has happened, as in Kafka:
/// member epoch 0 asks to join, so the first member is given 1 at least.
const EPOCH_INITIAL: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody is in the group.
    Empty,
    /// The target assignment is older than the group.
    Assigning,
    /// Members are on their way to the target assignment.
    Reconciling,
    Stable,
}

impl State {
    /// As ConsumerGroupDescribe and ListGroups spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

/// The topics that a regular expression matched when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ResolvedRegex {
    pub topics: BTreeSet<String>,
    /// [`crate::Topics::epoch`] at that time.
    pub topics_epoch: i64,
    pub timestamp_ms: i64,
}

/// Which group epoch the target assignment is for, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TargetMetadata {
    pub epoch: i32,
    pub timestamp_ms: i64,
}

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    // Durable.
    pub(super) epoch: i32,
    /// What the subscribed topics looked like at `epoch`; see `subscription`.
    pub(super) metadata_hash: i64,
    pub(super) target_metadata: TargetMetadata,
    pub(in crate::groups) members: BTreeMap<String, Member>,
    pub(super) target: BTreeMap<String, Partitions>,
    pub(super) regexes: BTreeMap<String, ResolvedRegex>,

    // What follows from it.
    /// Partition -> the member that it is assigned to or being revoked from.
    pub(super) owners: BTreeMap<(Uuid, i32), String>,
    /// Instance id -> member id.
    pub(super) static_members: BTreeMap<String, String>,
    /// Topic name -> how many members and expressions ask for it.
    pub(super) subscribed: BTreeMap<String, usize>,

    // Of the broker that leads now.
    pub(super) timers: BTreeMap<String, Timers>,
    /// [`crate::Topics::epoch`] when the subscriptions were last held against the topics.
    pub(super) topics_seen: Option<u64>,
}

impl ConsumerGroup {
    pub(crate) fn new() -> ConsumerGroup {
        ConsumerGroup {
            epoch: EPOCH_INITIAL,
            metadata_hash: 0,
            target_metadata: TargetMetadata {
                epoch: EPOCH_INITIAL,
                timestamp_ms: 0,
            },
            members: BTreeMap::new(),
            target: BTreeMap::new(),
            regexes: BTreeMap::new(),
            owners: BTreeMap::new(),
            static_members: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            timers: BTreeMap::new(),
            topics_seen: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        let target_epoch = self.target_metadata.epoch;
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > target_epoch {
            State::Assigning
        } else if self
            .members
            .values()
            .all(|member| member.is_reconciled_to(target_epoch))
        {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn owner(&self, topic: Uuid, partition: i32) -> Option<&str> {
        self.owners.get(&(topic, partition)).map(String::as_str)
    }

    /// Members that claim a partition which a later record gave to somebody else. None come from
    /// this coordinator; see [`ConsumerGroup::apply`].
    pub(crate) fn contested(&self) -> BTreeSet<String> {
        let loses = |member_id: &str, member: &Member| {
            let mut claims = member.current.claims();
            claims.any(|(topic, partition)| self.owner(topic, partition) != Some(member_id))
        };
        let members = self.members.iter();
        members
            .filter(|(member_id, member)| loses(member_id, member))
            .map(|(member_id, _)| member_id.clone())
            .collect()
    }

    /// Topics that others than these members subscribe to by name.
    pub(super) fn topic_names_without(&self, members: &[&str]) -> BTreeSet<&str> {
        let counts = self.subscribed.iter();
        let mut counts: BTreeMap<&str, usize> = counts.map(|(t, n)| (t.as_str(), *n)).collect();
        let members = members.iter().filter_map(|id| self.members.get(*id));
        let theirs = members.flat_map(|member| &member.metadata.topic_names);
        let matched = self.regexes.values().flat_map(|resolved| &resolved.topics);
        for topic in theirs.chain(matched) {
            let count = counts.get_mut(topic.as_str());
            *count.expect("what was counted is there") -= 1;
        }
        let left = counts.into_iter().filter(|(_, count)| *count > 0);
        left.map(|(topic, _)| topic).collect()
    }

    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed.contains_key(topic)
    }

    /// Whether the member may commit at all. Under an epoch of the past it may for the partitions
    /// that it has had since then: [`ConsumerGroup::may_commit_partition`].
    pub(crate) fn may_commit(&self, committer: &Committer) -> Result<(), ErrorCode> {
        if committer.generation_or_epoch < 0 && self.is_empty() {
            // A simple consumer, or an operator who resets offsets.
            return Ok(());
        }
        if committer.is_transactional && committer.is_anonymous() {
            return Ok(());
        }
        let member = self
            .members
            .get(committer.member_id)
            .ok_or(ErrorCode::UnknownMemberId)?;
        if committer.api_version < 9 && !committer.is_transactional {
            return Err(ErrorCode::UnsupportedVersion);
        }
        match committer.generation_or_epoch <= member.current.epoch {
            true => Ok(()),
            false => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    /// KIP-1251: a commit that was on its way while the member was moved to a newer epoch counts
    /// if the partition has been the member's since the epoch that the commit names.
    pub(crate) fn may_commit_partition(
        &self,
        committer: &Committer,
        topic: Uuid,
        partition: i32,
    ) -> Result<(), ErrorCode> {
        let Some(member) = self.members.get(committer.member_id) else {
            return Ok(());
        };
        let current = &member.current;
        if committer.generation_or_epoch == current.epoch {
            return Ok(());
        }
        let held = [&current.assigned, &current.revoking];
        let mut since = held
            .iter()
            .filter_map(|held| held.get(&topic)?.get(&partition));
        match since.next() {
            Some(since) if *since <= committer.generation_or_epoch => Ok(()),
            _ => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    /// An empty member id and a negative epoch are a client that is no member: it may.
    pub(crate) fn may_fetch(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        if member_id.is_empty() && epoch < 0 {
            return Ok(());
        }
        let member = self.members.get(member_id);
        match member.ok_or(ErrorCode::UnknownMemberId)?.current.epoch == epoch {
            true => Ok(()),
            false => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    /// Adds what removes the group; there must be no members.
    pub(crate) fn bury(&self, group_id: &str, records: &mut Vec<Record>) {
        assert!(self.is_empty(), "a group is buried when it is empty");
        for member_id in self.target.keys() {
            records.push(records::target(group_id, member_id, None));
        }
        records.push(records::target_metadata(group_id, None));
        for regex in self.regexes.keys() {
            records.push(records::regex(group_id, regex, None));
        }
        // Kafka's own leftovers of before 4.1, if this was its partition.
        records.push(records::partition_metadata_tombstone(group_id));
        records.push(records::epoch_tombstone(group_id));
    }

    pub(super) fn is_revoking(member: &Member) -> bool {
        member.current.state == MemberState::UnrevokedPartitions
            && member.current.epoch != LEAVE_FOR_NOW
    }
}
