//! The shard's side of the consumer group protocol: finding the group, carrying out what was
//! decided, replaying, expiring.

use super::group::ConsumerGroup;
use super::heartbeat::check;
use super::member::JOIN;
use super::records::{Change, ConsumerRecord};
use super::{At, Decision, Refusal};
use crate::groups::GroupShard;
use crate::groups::group::Group;
use crate::{Caller, Outcome, Record, ReplyTo, Topics};
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::ConsumerGroupHeartbeatRequest;
use std::collections::BTreeSet;

impl GroupShard {
    /// The answer comes at once.
    pub fn consumer_group_heartbeat(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: ConsumerGroupHeartbeatRequest,
        topics: &dyn Topics,
    ) -> Outcome {
        self.assert_loaded();
        let decided = check(caller.api_version, &request, &self.config)
            .and_then(|()| self.decide(now, caller, &request, topics));
        match decided {
            Err(refusal) => Outcome::answer(reply, refusal.response()),
            Ok(decision) => {
                let mut out = Outcome::answer(reply, decision.response);
                out.records = decision.records;
                out.log = decision.log;
                out
            }
        }
    }

    fn decide(
        &mut self,
        now: Now,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn Topics,
    ) -> Result<Decision, Refusal> {
        let group_id = &request.group_id;
        let member_id = match request.member_id.as_str() {
            "" => self.seed.uuid().to_string(),
            member_id => member_id.to_owned(),
        };
        let at = At {
            group_id,
            now,
            config: &self.config,
            topics,
        };
        if request.member_epoch < JOIN {
            return self.consumer_group(group_id)?.leave(&at, request);
        }
        let is_join = request.member_epoch == JOIN;
        let mut converted = Vec::new();
        let fresh = is_join.then(|| self.place_for_consumer_group(group_id, &mut converted));
        let fresh = fresh.transpose()?.flatten();
        let group = match &fresh {
            Some(fresh) => fresh,
            None => self.consumer_group(group_id)?,
        };
        let mut decision = group.heartbeat(&at, caller, member_id, request)?;
        check_sizes(&decision.records, self.config.group_record_bytes_max)?;
        decision.records.splice(0..0, converted);
        if let Some(fresh) = fresh {
            self.groups.insert(group_id.clone(), Group::Consumer(fresh));
        }
        let Some(Group::Consumer(group)) = self.groups.get_mut(group_id) else {
            panic!("the group is there: it has just decided");
        };
        group.topics_seen = Some(topics.epoch());
        if let Some(member_id) = &decision.alive {
            let session_ends = group.keep_alive(member_id, now, &self.config);
            self.deadlines.arm(group_id, session_ends);
        }
        Ok(decision)
    }

    fn consumer_group(&self, group_id: &str) -> Result<&ConsumerGroup, Refusal> {
        let text = match self.groups.get(group_id) {
            Some(Group::Consumer(group)) => return Ok(group),
            Some(Group::Classic(_)) => format!("Group {group_id} is not a consumer group."),
            None => format!("Consumer group {group_id} not found."),
        };
        Err(Refusal::new(ErrorCode::GroupIdNotFound, text))
    }

    /// A new group if there is none that a member could join. It takes the place of an empty
    /// classic group, with the records that remove that one.
    fn place_for_consumer_group(
        &self,
        group_id: &str,
        converted: &mut Vec<Record>,
    ) -> Result<Option<ConsumerGroup>, Refusal> {
        match self.groups.get(group_id) {
            Some(Group::Consumer(_)) => Ok(None),
            None => Ok(Some(ConsumerGroup::new())),
            Some(group @ Group::Classic(classic)) if classic.is_empty() => {
                group.bury(group_id, converted);
                Ok(Some(ConsumerGroup::new()))
            }
            Some(Group::Classic(_)) => {
                let text = format!(
                    "Cannot upgrade classic group {group_id} to consumer group because it is not \
                     empty: groups change their protocol only when they are empty."
                );
                Err(Refusal::new(ErrorCode::GroupIdNotFound, text))
            }
        }
    }

    /// Takes one record. Whatever is there of the group under another protocol gives way, as does
    /// nothing to a tombstone.
    pub(in crate::groups) fn replay_consumer(&mut self, record: ConsumerRecord, now: Now) {
        let ConsumerRecord { group_id, change } = record;
        let is_consumer = matches!(self.groups.get(&group_id), Some(Group::Consumer(_)));
        if change == Change::Group(None) && is_consumer {
            self.groups.remove(&group_id);
            self.deadlines.disarm(&group_id);
            return;
        }
        if !is_consumer {
            if change.is_tombstone() {
                return;
            }
            let group = Group::Consumer(ConsumerGroup::new());
            self.groups.insert(group_id.clone(), group);
        }
        let Some(Group::Consumer(group)) = self.groups.get_mut(&group_id) else {
            panic!("just made sure of");
        };
        let deadline = group.apply(change, now, &self.config);
        if self.loaded {
            self.deadlines.arm(&group_id, deadline);
        }
    }
}

/// A subscription or an assignment can outgrow what the partition takes as one record.
fn check_sizes(records: &[Record], max: usize) -> Result<(), Refusal> {
    let size = |record: &Record| record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
    let largest = records.iter().map(size).max().unwrap_or(0);
    if largest <= max {
        return Ok(());
    }
    let text = format!("What is known of the member takes {largest} bytes; {max} are possible.");
    Err(Refusal::new(ErrorCode::UnknownServerError, text))
}

impl ConsumerGroup {
    /// Everything has been replayed. Two members with the same partition, which only a log that
    /// was cut short or read while it was compacted can leave, lose their places: they join again.
    pub(in crate::groups) fn loaded(
        &mut self,
        group_id: &str,
        now: Now,
        config: &crate::groups::GroupConfig,
        out: &mut Outcome,
    ) -> Instant {
        self.load(now, config);
        let contested = self.contested();
        for member_id in &contested {
            out.log.push(format!(
                "group {group_id}: member {member_id} is put out: it has a partition of another's"
            ));
        }
        out.records.extend(self.without(group_id, &contested, None));
        self.next_deadline()
    }

    /// Puts out whoever is late.
    pub(in crate::groups) fn expire(&self, group_id: &str, now: Now, out: &mut Outcome) {
        let late = self.late(now);
        for (member_id, reason) in &late {
            out.log.push(format!(
                "group {group_id}: member {member_id} is put out: {reason}"
            ));
        }
        let gone: BTreeSet<String> = late.into_keys().collect();
        out.records.extend(self.without(group_id, &gone, None));
    }
}
