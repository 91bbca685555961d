//! The state of a classic group, and the questions that can be asked of it.

use super::Step;
use super::member::Member;
use super::rebalance::JoinPhase;
use crate::groups::group::{Committer, RetentionStart};
use bytes::Bytes;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::{ConsumerProtocolSubscription, GroupMetadataValue};
use oncelog_wire::{ErrorCode, Reader};
use std::collections::{BTreeMap, BTreeSet};

/// The protocol type of consumers; other types (Connect's, Schema Registry's) keep their
/// metadata to themselves.
pub(crate) const CONSUMER: &str = "consumer";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// Of a group that does not exist; no group in memory has it.
    Dead,
}

impl State {
    /// As DescribeGroups and ListGroups spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

#[derive(Debug)]
pub(crate) struct ClassicGroup {
    /// What the last record says; changed by replay alone. None for a group that has never
    /// written one: a simple group, known by its offsets only.
    pub(super) committed: Option<GroupMetadataValue>,

    pub(super) state: State,
    /// Wall-clock time of the last change of state; None if the last record has none.
    pub(super) state_since_ms: Option<i64>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Instance id -> member id.
    pub(super) static_members: BTreeMap<String, String>,
    /// Member ids given out with MEMBER_ID_REQUIRED and not used yet, and when they lapse.
    pub(super) pending_members: BTreeMap<String, Instant>,
    /// Some exactly in PreparingRebalance.
    pub(super) join_phase: Option<JoinPhase>,
    /// Members of this generation that have not sent their Sync.
    pub(super) pending_sync: BTreeSet<String>,
    /// When those count as failed.
    pub(super) sync_deadline: Instant,
    /// What the members of this generation subscribe to; None if that cannot be known.
    pub(super) subscribed_topics: Option<BTreeSet<String>>,
}

impl ClassicGroup {
    /// A group without members, protocol or record.
    pub(crate) fn new(now: Now) -> ClassicGroup {
        ClassicGroup {
            committed: None,
            state: State::Empty,
            state_since_ms: Some(now.wall_ms),
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            join_phase: None,
            pending_sync: BTreeSet::new(),
            sync_deadline: Instant::NEVER,
            subscribed_topics: None,
        }
    }

    /// Takes a record of this group.
    pub(crate) fn replay(&mut self, value: GroupMetadataValue) {
        self.committed = Some(value);
    }

    /// Makes the live group from the last record, after everything was replayed.
    pub(crate) fn load(&mut self, now: Now) {
        let Some(committed) = self.committed.take() else {
            return;
        };
        let protocol = committed.protocol.clone().unwrap_or_default();
        self.state = if committed.members.is_empty() {
            State::Empty
        } else {
            State::Stable
        };
        self.state_since_ms =
            Some(committed.current_state_timestamp).filter(|timestamp| *timestamp != -1);
        self.generation = committed.generation;
        self.protocol_type = Some(committed.protocol_type.clone()).filter(|t| !t.is_empty());
        self.protocol = committed
            .protocol
            .clone()
            .filter(|protocol| !protocol.is_empty());
        self.leader = committed.leader.clone().filter(|leader| !leader.is_empty());
        for record in &committed.members {
            let member = Member::from_record(record, &protocol, now);
            if let Some(instance_id) = &member.instance_id {
                self.static_members
                    .insert(instance_id.clone(), record.member_id.clone());
            }
            self.members.insert(record.member_id.clone(), member);
        }
        self.subscribed_topics = self.compute_subscribed_topics();
        self.committed = Some(committed);
    }

    /// A group that is larger than it may be (the limit was lowered) rebalances, and the last to
    /// rejoin are turned away; until then everybody can commit offsets.
    pub(crate) fn shrink(&mut self, step: &mut Step) {
        if self.members.len() > step.config.max_size {
            self.prepare_rebalance(step, "more members than group.max.size");
        }
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn committed(&self) -> Option<&GroupMetadataValue> {
        self.committed.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_empty() && self.pending_members.is_empty()
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(super) fn transition(&mut self, to: State, now: Now) {
        self.state = to;
        self.state_since_ms = Some(now.wall_ms);
        if to != State::PreparingRebalance {
            self.join_phase = None;
        }
    }

    /// The longest of the members' rebalance timeouts.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        let longest = self
            .members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max();
        i64::from(longest.unwrap_or(0).max(0))
    }

    /// When something has to happen even if nobody asks; `NEVER` if nothing does.
    pub(crate) fn next_deadline(&self) -> Instant {
        let members = self.members.values().map(|member| member.expires_at);
        let pending = self.pending_members.values().copied();
        let join = self.join_phase.map(JoinPhase::ends);
        members
            .chain(pending)
            .chain(join)
            .fold(self.sync_deadline, Instant::min)
    }

    /// Whether the sender is who it says, by member id and, for static members, instance id.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(ErrorCode::UnknownMemberId),
        }
    }

    pub(super) fn check_member_of(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        self.check_member(member_id, instance_id)?;
        match generation == self.generation {
            true => Ok(()),
            false => Err(ErrorCode::IllegalGeneration),
        }
    }

    pub(crate) fn may_commit(&self, committer: &Committer) -> Result<(), ErrorCode> {
        let Committer {
            member_id,
            instance_id,
            generation_or_epoch: generation,
            is_transactional,
            api_version: _,
        } = *committer;
        if generation < 0 && self.is_empty() {
            // A simple consumer, or an operator who resets offsets.
            return Ok(());
        }
        if committer.is_anonymous() {
            return match is_transactional {
                true => Ok(()),
                false => Err(ErrorCode::UnknownMemberId),
            };
        }
        self.check_member_of(member_id, instance_id, generation)?;
        match self.state {
            State::CompletingRebalance if !is_transactional => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(crate) fn may_delete_offsets(&self) -> Result<(), ErrorCode> {
        match self.is_empty() || self.is_consumer() {
            true => Ok(()),
            false => Err(ErrorCode::NonEmptyGroup),
        }
    }

    pub(super) fn is_consumer(&self) -> bool {
        self.protocol_type() == Some(CONSUMER)
    }

    /// Unknown subscriptions of consumers count as subscribed, so that nothing is lost.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }

    pub(crate) fn retention_start(&self) -> RetentionStart {
        if self.protocol_type.is_none() {
            return RetentionStart::Commit;
        }
        match self.state {
            State::Empty => self
                .state_since_ms
                .map_or(RetentionStart::Commit, RetentionStart::Since),
            // Only the offsets of topics that nobody subscribes to any more.
            State::Stable if self.is_consumer() && self.subscribed_topics.is_some() => {
                RetentionStart::Commit
            }
            _ => RetentionStart::Never,
        }
    }

    pub(super) fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer() {
            return None;
        }
        let protocol = match &self.protocol {
            Some(protocol) => protocol,
            None if self.members.is_empty() => "",
            None => return None,
        };
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription_topics(member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// The group as its record has it.
    pub(crate) fn to_record(&self) -> GroupMetadataValue {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter();
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: members
                .map(|(id, member)| member.to_record(id, protocol))
                .collect(),
            ..Default::default()
        }
    }
}

/// The topics of a consumer's subscription; None if it is not one.
fn subscription_topics(metadata: Bytes) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    // Only the topics are wanted, and every version begins with them.
    Some(
        ConsumerProtocolSubscription::decode(&mut reader, 0)
            .ok()?
            .topics,
    )
}
