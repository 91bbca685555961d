//! Leaving a consumer group, and being put out of it.
//!
//! A member goes by its heartbeat with epoch -1, by an operator's LeaveGroup, and when a deadline
//! of its has passed (`expiry`). All of its partitions are free at once; the group moves to its
//! next epoch and the others are given them with their next heartbeats. A static member that
//! leaves for now (-2) keeps its partitions until it is back or its session has ended.

use super::group::ConsumerGroup;
use super::heartbeat::{fenced_instance, unknown_member};
use super::member::{JOIN, LEAVE_FOR_NOW};
use super::{At, Decision, Refusal, records, subscription};
use crate::{Record, Topics};
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::leave_group_response::MemberResponse;
use oncelog_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use std::collections::BTreeSet;

impl ConsumerGroup {
    pub(super) fn leave(
        &self,
        at: &At,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<Decision, Refusal> {
        assert!(request.member_epoch < JOIN, "the heartbeat leaves");
        let group_id = at.group_id;
        let instance_id = request.instance_id.as_deref();
        let member_id = self.resolve(group_id, &request.member_id, instance_id)?;
        let mut decision = Decision {
            // Of a static member that left for now the session goes on.
            alive: None,
            response: ConsumerGroupHeartbeatResponse {
                member_id: Some(member_id.clone()),
                member_epoch: request.member_epoch,
                ..Default::default()
            },
            records: Vec::new(),
            log: Vec::new(),
        };
        if request.member_epoch == LEAVE_FOR_NOW {
            let left = self.members[&member_id].current.left_for_now();
            decision.log.push(format!(
                "group {group_id}: member {member_id} leaves for now"
            ));
            decision
                .records
                .push(records::current(group_id, &member_id, Some(&left)));
        } else {
            decision
                .log
                .push(format!("group {group_id}: member {member_id} leaves"));
            let members = BTreeSet::from([member_id]);
            decision.records = self.without(group_id, &members, Some(at.topics));
        }
        Ok(decision)
    }

    /// LeaveGroup (13) for a consumer group: an operator removes members.
    pub(crate) fn remove(
        &self,
        group_id: &str,
        leaving: Vec<MemberIdentity>,
        log: &mut Vec<String>,
    ) -> (Vec<MemberResponse>, Vec<Record>) {
        let mut gone = BTreeSet::new();
        let mut responses = Vec::new();
        for member in leaving {
            let instance_id = member.group_instance_id.as_deref();
            let found = self.resolve(group_id, &member.member_id, instance_id);
            if let Ok(member_id) = &found {
                let reason = member.reason.as_deref().unwrap_or("not provided");
                log.push(format!(
                    "group {group_id}: member {member_id} is removed; client reason: {reason}"
                ));
                gone.insert(member_id.clone());
            }
            responses.push(MemberResponse {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                error_code: found.map_or_else(|refusal| refusal.error.code(), |_| 0),
                ..Default::default()
            });
        }
        (responses, self.without(group_id, &gone, None))
    }

    /// The member that is meant; by the instance id alone if no member id is given.
    fn resolve(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<String, Refusal> {
        let Some(instance_id) = instance_id else {
            return match self.members.contains_key(member_id) {
                true => Ok(member_id.to_owned()),
                false => Err(unknown_member(group_id, member_id)),
            };
        };
        match self.static_members.get(instance_id) {
            None => {
                let text = format!("Instance id {instance_id} is unknown.");
                Err(Refusal::new(ErrorCode::UnknownMemberId, text))
            }
            Some(current) if !member_id.is_empty() && current != member_id => {
                Err(fenced_instance(member_id, instance_id, current))
            }
            Some(current) => Ok(current.clone()),
        }
    }

    /// The records that put `gone` out of the group; none if that is nobody.
    ///
    /// Without `topics` the hash of what the others subscribe to cannot be made anew and stays as
    /// it is. If the others subscribe to less, the next change of a topic is then taken for one
    /// that concerns the group, which at worst costs an epoch.
    pub(crate) fn without(
        &self,
        group_id: &str,
        gone: &BTreeSet<String>,
        topics: Option<&dyn Topics>,
    ) -> Vec<Record> {
        let mut written = Vec::new();
        if gone.is_empty() {
            return written;
        }
        for member_id in gone {
            written.extend(records::without_member(group_id, member_id));
        }
        let others = self.members.iter().filter(|(id, _)| !gone.contains(*id));
        let in_use: BTreeSet<&str> = others
            .map(|(_, member)| member.metadata.topic_regex.as_str())
            .collect();
        let (kept, abandoned): (Vec<_>, Vec<_>) = self
            .regexes
            .iter()
            .partition(|(regex, _)| in_use.contains(regex.as_str()));
        for (regex, _) in abandoned {
            written.push(records::regex(group_id, regex, None));
        }
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        let mut names = self.topic_names_without(&gone);
        let by_regex = kept.iter().flat_map(|(_, resolved)| &resolved.topics);
        names.extend(by_regex.map(String::as_str));
        let hash = match topics {
            Some(topics) => subscription::metadata_hash(names, topics),
            None if names.is_empty() => 0,
            None => self.metadata_hash,
        };
        let epoch = self.epoch.saturating_add(1);
        written.push(records::epoch(group_id, epoch, hash));
        written
    }
}
