//! ConsumerGroupHeartbeat, API key 68, versions 0-1 (KIP-848, KIP-1082).
//!
//! - Member epoch 0 joins, -1 leaves, -2 is a static member that leaves for now. In version 0 the
//!   coordinator makes up the id of a member that joins without one; from version 1 on the client
//!   brings its own, and may subscribe by regular expression.
//! - Fields that are null have not changed since the last heartbeat.
//! - The answer carries the assignment if it has changed, if the member joins, and if the request
//!   is complete (rebalance timeout, subscription and owned partitions given).
//! - The epoch must be the member's; the one before is taken as well if what the member reports
//!   to own is assigned to it: then the answer to an earlier heartbeat was lost.
//!   FENCED_MEMBER_EPOCH otherwise.
//! - A static member takes the place of one that left for now; while the old one is there,
//!   UNRELEASED_INSTANCE_ID.
//!
//! Deviations from Kafka: a static member that joins again under its own member id (it lost the
//! answer to its first heartbeat) is let in, where Kafka refuses it until its session has ended; a
//! static member may take its own place in a group that is full; the target assignment is made
//! with the heartbeat that needs it, as with `group.consumer.assignment.interval.ms=0`.

use super::draft::{Draft, owned_partitions};
use super::group::ConsumerGroup;
use super::member::{CurrentAssignment, JOIN, LEAVE, LEAVE_FOR_NOW, Member, Partitions};
use super::{At, Decision, Refusal, records};
use crate::Caller;
use crate::groups::GroupConfig;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use oncelog_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use std::borrow::Cow;

/// What can be said of a request without looking at its group.
pub(super) fn check(
    api_version: i16,
    request: &ConsumerGroupHeartbeatRequest,
    config: &GroupConfig,
) -> Result<(), Refusal> {
    let epoch = request.member_epoch;
    let refuse = |text: &str| Err(Refusal::new(ErrorCode::InvalidRequest, text));
    let is_blank = |text: &str| text.trim().is_empty();
    let is_blank_if_any = |text: &Option<String>| text.as_deref().is_some_and(is_blank);
    let needs_id = api_version >= 1 || epoch > JOIN || epoch == LEAVE;
    if needs_id && is_blank(&request.member_id) {
        return refuse("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return refuse("GroupId can't be empty.");
    }
    if is_blank_if_any(&request.instance_id) {
        return refuse("InstanceId can't be empty.");
    }
    if is_blank_if_any(&request.rack_id) {
        return refuse("RackId can't be empty.");
    }
    if epoch == JOIN {
        if request.rebalance_timeout_ms == -1 {
            return refuse("RebalanceTimeoutMs must be provided in first request.");
        }
        if request
            .topic_partitions
            .as_ref()
            .is_none_or(|owned| !owned.is_empty())
        {
            return refuse("TopicPartitions must be empty when (re-)joining.");
        }
        if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
            return refuse(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                 (re-)joining.",
            );
        }
    }
    if epoch == LEAVE_FOR_NOW && request.instance_id.is_none() {
        return refuse("InstanceId can't be null.");
    }
    if epoch < LEAVE_FOR_NOW {
        return refuse("MemberEpoch is invalid.");
    }
    match &request.server_assignor {
        Some(name) if !config.consumer_assignors.contains(name) => {
            let known = config.consumer_assignors.join(", ");
            let text =
                format!("ServerAssignor {name} is not supported. Supported assignors: {known}.");
            Err(Refusal::new(ErrorCode::UnsupportedAssignor, text))
        }
        _ => Ok(()),
    }
}

impl ConsumerGroup {
    /// A heartbeat that joins or stays. `member_id` is the request's, or one made up for it.
    pub(super) fn heartbeat(
        &self,
        at: &At,
        caller: &Caller,
        member_id: String,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<Decision, Refusal> {
        let owned = request.topic_partitions.as_deref().map(owned_partitions);
        let mut draft = self.identify(at, member_id, request, owned.as_ref())?;
        take_metadata(&mut draft, caller, request);
        draft.write_metadata();
        draft.resolve_regexes().map_err(|reason| {
            let regex = &draft.metadata.topic_regex;
            let text = format!(
                "SubscribedTopicRegex `{regex}` is not a valid regular expression: {reason}."
            );
            Refusal::new(ErrorCode::InvalidRegularExpression, text)
        })?;
        draft.advance_epoch();
        let (target_epoch, target) = draft.assign();
        let current = draft
            .reconcile(target_epoch, &target, owned.as_ref())
            .map_err(|_| {
                let text = "The consumer group member is in a unknown state. The member must \
                            abandon all its partitions and rejoin.";
                Refusal::new(ErrorCode::FencedMemberEpoch, text)
            })?;
        let is_complete = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && owned.is_some();
        let is_news = current.assigned != draft.before.current.assigned;
        let is_join = request.member_epoch == JOIN;
        let response = ConsumerGroupHeartbeatResponse {
            member_id: Some(draft.member_id.clone()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: at.config.consumer_heartbeat_interval_ms,
            assignment: (is_join || is_complete || is_news).then(|| assignment(&current)),
            ..Default::default()
        };
        Ok(Decision {
            alive: Some(draft.member_id),
            records: draft.records,
            log: draft.log,
            response,
        })
    }

    /// Who sends the heartbeat, and whether under an epoch that counts.
    fn identify<'a>(
        &'a self,
        at: &'a At,
        member_id: String,
        request: &ConsumerGroupHeartbeatRequest,
        owned: Option<&Partitions>,
    ) -> Result<Draft<'a>, Refusal> {
        let is_join = request.member_epoch == JOIN;
        let known = self.members.get(&member_id);
        let instance_id = request.instance_id.as_deref();
        let of_instance = instance_id.and_then(|id| self.static_members.get(id));
        let replaces = match (instance_id, of_instance) {
            (Some(_), Some(current)) if *current == member_id => None,
            (Some(instance_id), Some(current)) if is_join => {
                self.check_released(&member_id, instance_id, current)?;
                Some(current.clone())
            }
            (Some(instance_id), Some(current)) => {
                return Err(fenced_instance(&member_id, instance_id, current));
            }
            (Some(instance_id), None) if !is_join => {
                let text = format!("Instance id {instance_id} is unknown.");
                return Err(Refusal::new(ErrorCode::UnknownMemberId, text));
            }
            _ => None,
        };
        let is_new = known.is_none() && replaces.is_none();
        if is_new && !is_join {
            return Err(unknown_member(at.group_id, &member_id));
        }
        if is_new && self.members.len() >= at.config.consumer_max_size {
            let text = format!(
                "The consumer group has reached its maximum capacity of {} members.",
                at.config.consumer_max_size
            );
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, text));
        }
        let before = match &replaces {
            None => known.cloned().unwrap_or_default(),
            Some(old) => taken_over(&self.members[old]),
        };
        if !is_join {
            check_epoch(&before.current, request.member_epoch, owned)?;
        }
        let mut draft = Draft {
            group: self,
            at,
            member_id,
            replaces,
            metadata: before.metadata.clone(),
            before,
            is_new,
            regexes: Cow::Borrowed(&self.regexes),
            has_subscription_changed: false,
            has_regex_changed: false,
            epoch: self.epoch,
            records: Vec::new(),
            log: Vec::new(),
        };
        draft.write_arrival();
        Ok(draft)
    }

    fn check_released(
        &self,
        member_id: &str,
        instance_id: &str,
        current: &str,
    ) -> Result<(), Refusal> {
        if self.members[current].current.epoch == LEAVE_FOR_NOW {
            return Ok(());
        }
        let text = format!(
            "Static member {member_id} with instance id {instance_id} cannot join the group \
             because the instance id is owned by {current} member."
        );
        Err(Refusal::new(ErrorCode::UnreleasedInstanceId, text))
    }
}

impl Draft<'_> {
    fn write_arrival(&mut self) {
        let (group_id, member_id) = (self.at.group_id, &self.member_id);
        if let Some(old) = &self.replaces {
            // First, so that at no time two members have the same partitions.
            self.records.extend(records::without_member(group_id, old));
            let line = format!("group {group_id}: member {member_id} takes the place of {old}");
            self.log.push(line);
        } else if self.is_new {
            let line = format!("group {group_id}: member {member_id} joins");
            self.log.push(line);
        }
    }
}

fn take_metadata(draft: &mut Draft, caller: &Caller, request: &ConsumerGroupHeartbeatRequest) {
    let metadata = &mut draft.metadata;
    metadata.client_id = caller.client_id.clone();
    metadata.client_host = caller.client_host.clone();
    if let Some(instance_id) = &request.instance_id {
        metadata.instance_id = Some(instance_id.clone());
    }
    if let Some(rack_id) = &request.rack_id {
        metadata.rack_id = Some(rack_id.clone());
    }
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        metadata.topic_names = names.iter().cloned().collect();
    }
    if let Some(regex) = &request.subscribed_topic_regex {
        metadata.topic_regex = regex.clone();
    }
    if let Some(assignor) = &request.server_assignor {
        metadata.server_assignor = Some(assignor.clone());
    }
}

/// A static member's place as its next process finds it.
fn taken_over(old: &Member) -> Member {
    let mut member = old.clone();
    member.current.epoch = 0;
    member.current.previous_epoch = 0;
    member
}

fn check_epoch(
    current: &CurrentAssignment,
    received: i32,
    owned: Option<&Partitions>,
) -> Result<(), Refusal> {
    let owns_only_assigned = || {
        owned.is_some_and(|owned| {
            owned.iter().all(|(topic, partitions)| {
                let assigned = current.assigned.get(topic);
                assigned.is_some_and(|held| partitions.iter().all(|p| held.contains_key(p)))
            })
        })
    };
    let is_previous = received == current.previous_epoch && owns_only_assigned();
    let relation = match received.cmp(&current.epoch) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less if is_previous => return Ok(()),
        std::cmp::Ordering::Less => "smaller",
        std::cmp::Ordering::Greater => "greater",
    };
    let text = format!(
        "The consumer group member has a {relation} member epoch ({received}) than the one known \
         by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
        current.epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, text))
}

pub(super) fn unknown_member(group_id: &str, member_id: &str) -> Refusal {
    let text = format!("Member {member_id} is not a member of group {group_id}.");
    Refusal::new(ErrorCode::UnknownMemberId, text)
}

pub(super) fn fenced_instance(member_id: &str, instance_id: &str, current: &str) -> Refusal {
    let text = format!(
        "Static member {member_id} with instance id {instance_id} was fenced by member {current}."
    );
    Refusal::new(ErrorCode::FencedInstanceId, text)
}

fn assignment(current: &CurrentAssignment) -> Assignment {
    let topics = current.assigned.iter();
    let topics = topics.map(|(topic_id, partitions)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        ..Default::default()
    });
    Assignment {
        topic_partitions: topics.collect(),
        ..Default::default()
    }
}
