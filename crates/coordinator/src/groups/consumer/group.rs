//! The state of a consumer group, and the questions that can be asked of it.
//!
//! Durable state is changed by [`ConsumerGroup::apply`] alone, one record at a time; what follows
//! from it (who owns which partition, who is static, which topics are subscribed to) is kept in
//! step there and nowhere else.

use super::expiry::Timers;
use super::member::{
    CurrentAssignment, LEAVE_FOR_NOW, Member, MemberMetadata, MemberState, Partitions,
};
use super::records::{self, Change};
use crate::Record;
use crate::groups::GroupConfig;
use crate::groups::group::Committer;
use oncelog_wire::clock::{Instant, Now};
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
    owners: BTreeMap<(Uuid, i32), String>,
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

    // ---- replay ----

    /// Takes one record, but for the group's own tombstone, which is the shard's to carry out.
    /// Gives the deadline that came with it; `NEVER` if none did.
    ///
    /// Any order is taken, that of a compacted log as well: a tombstone for what is not there
    /// changes nothing, and where two members claim a partition the later record has it.
    pub(crate) fn apply(&mut self, change: Change, now: Now, config: &GroupConfig) -> Instant {
        match change {
            Change::Group(Some(value)) => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            Change::Group(None) | Change::PartitionMetadata => {}
            Change::Member(member_id, Some(metadata)) => {
                self.put_metadata(&member_id, metadata);
                return self.start_session(&member_id, now, config);
            }
            Change::Member(member_id, None) => self.remove_member(&member_id),
            Change::TargetMetadata(Some(metadata)) => self.target_metadata = metadata,
            Change::TargetMetadata(None) => {
                self.target_metadata = TargetMetadata {
                    epoch: -1,
                    timestamp_ms: 0,
                };
            }
            Change::Target(member_id, Some(partitions)) => {
                self.target.insert(member_id, partitions);
            }
            Change::Target(member_id, None) => {
                self.target.remove(&member_id);
            }
            Change::Current(member_id, Some(current)) => {
                self.put_current(&member_id, current);
                let session_ends = self.start_session(&member_id, now, config);
                return session_ends.min(self.start_revocation(&member_id, now));
            }
            Change::Current(member_id, None) => {
                if self.members.contains_key(&member_id) {
                    let gone = CurrentAssignment {
                        epoch: -1,
                        ..Default::default()
                    };
                    self.put_current(&member_id, gone);
                }
            }
            Change::Regex(regex, resolved) => self.put_regex(regex, resolved),
        }
        Instant::NEVER
    }

    fn put_metadata(&mut self, member_id: &str, metadata: MemberMetadata) {
        self.forget_metadata_of(member_id);
        for topic in &metadata.topic_names {
            count(&mut self.subscribed, topic);
        }
        if let Some(instance_id) = &metadata.instance_id {
            self.static_members
                .insert(instance_id.clone(), member_id.to_owned());
        }
        let member = self.members.entry(member_id.to_owned()).or_default();
        member.metadata = metadata;
    }

    fn forget_metadata_of(&mut self, member_id: &str) {
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        for topic in &member.metadata.topic_names {
            uncount(&mut self.subscribed, topic);
        }
        if let Some(instance_id) = &member.metadata.instance_id
            && self.static_members.get(instance_id).map(String::as_str) == Some(member_id)
        {
            self.static_members.remove(instance_id);
        }
    }

    fn put_current(&mut self, member_id: &str, current: CurrentAssignment) {
        self.release_claims_of(member_id);
        for partition in current.claims() {
            self.owners.insert(partition, member_id.to_owned());
        }
        let member = self.members.entry(member_id.to_owned()).or_default();
        member.current = current;
    }

    fn release_claims_of(&mut self, member_id: &str) {
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        for partition in member.current.claims() {
            if self.owners.get(&partition).map(String::as_str) == Some(member_id) {
                self.owners.remove(&partition);
            }
        }
    }

    fn remove_member(&mut self, member_id: &str) {
        self.forget_metadata_of(member_id);
        self.release_claims_of(member_id);
        self.members.remove(member_id);
        self.timers.remove(member_id);
    }

    fn put_regex(&mut self, regex: String, resolved: Option<ResolvedRegex>) {
        let before = match resolved {
            Some(resolved) => {
                for topic in &resolved.topics {
                    count(&mut self.subscribed, topic);
                }
                self.regexes.insert(regex, resolved)
            }
            None => self.regexes.remove(&regex),
        };
        for topic in before.iter().flat_map(|resolved| &resolved.topics) {
            uncount(&mut self.subscribed, topic);
        }
    }

    // ---- questions ----

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
        let member = self
            .members
            .get(committer.member_id)
            .ok_or(ErrorCode::UnknownMemberId)?;
        if committer.api_version < 9 {
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

fn count(counts: &mut BTreeMap<String, usize>, topic: &str) {
    match counts.get_mut(topic) {
        Some(count) => *count += 1,
        None => {
            counts.insert(topic.to_owned(), 1);
        }
    }
}

fn uncount(counts: &mut BTreeMap<String, usize>, topic: &str) {
    let count = counts.get_mut(topic).expect("what was counted is there");
    *count -= 1;
    if *count == 0 {
        counts.remove(topic);
    }
}
