//! A heartbeat on its way: the group as it is, and next to it what this heartbeat changes.
//!
//! Deciding must not touch the group, so each step reads the group through the draft and leaves
//! what it decided in the draft and as records. The steps are in `heartbeat`, in their order.

use super::At;
use super::group::{ConsumerGroup, ResolvedRegex, TargetMetadata};
use super::member::{CurrentAssignment, Member, MemberMetadata, Partitions};
use super::reconcile::{Goal, MustRejoin, reconcile};
use super::records;
use super::subscription;
use super::target;
use crate::Record;
use oncelog_wire::Uuid;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Draft<'a> {
    pub group: &'a ConsumerGroup,
    pub at: &'a At<'a>,
    pub member_id: String,
    /// The static member whose place this one takes.
    pub replaces: Option<String>,
    /// The member as it was; of a new one nothing, of one that takes a place what was there.
    pub before: Member,
    /// Nobody knew the member, under this id or as a static one.
    pub is_new: bool,
    pub metadata: MemberMetadata,
    pub regexes: Cow<'a, BTreeMap<String, ResolvedRegex>>,
    /// What the member subscribes to is not what it was.
    pub has_subscription_changed: bool,
    /// An expression of the group matches other topics than it did.
    pub has_regex_changed: bool,
    pub epoch: i32,
    pub records: Vec<Record>,
    pub log: Vec<String>,
}

impl Draft<'_> {
    /// Everybody else in the group.
    pub(super) fn others(&self) -> impl Iterator<Item = (&str, &Member)> {
        let members = self.group.members.iter();
        members
            .map(|(id, member)| (id.as_str(), member))
            .filter(|(id, _)| *id != self.member_id && self.replaces.as_deref() != Some(id))
    }

    /// The group has not been held against the topics as they are now.
    pub(super) fn have_topics_changed(&self) -> bool {
        self.group.topics_seen != Some(self.at.topics.epoch())
    }

    /// Writes what the member says of itself, if it is news.
    pub(super) fn write_metadata(&mut self) {
        let has_changed = self.metadata != self.before.metadata;
        if has_changed || self.is_new || self.replaces.is_some() {
            let metadata = Some(&self.metadata);
            let record = records::member(self.at.group_id, &self.member_id, metadata);
            self.records.push(record);
        }
        self.has_subscription_changed = self.metadata.topic_names
            != self.before.metadata.topic_names
            || self.metadata.topic_regex != self.before.metadata.topic_regex;
    }

    /// Looks up what the group's expressions match. The error says why the member's own cannot
    /// be compiled.
    pub(super) fn resolve_regexes(&mut self) -> Result<(), String> {
        let own = self.metadata.topic_regex.clone();
        if !own.is_empty() && !self.regexes.contains_key(&own) {
            let regex = subscription::compile(&own)?;
            self.resolve(own, &regex);
        }
        let old = &self.before.metadata.topic_regex;
        let is_abandoned = !old.is_empty()
            && *old != self.metadata.topic_regex
            && self.others().all(|(_, m)| m.metadata.topic_regex != *old);
        if is_abandoned && self.regexes.contains_key(old) {
            self.records
                .push(records::regex(self.at.group_id, old, None));
            self.regexes.to_mut().remove(old);
        }
        if self.have_topics_changed() {
            self.resolve_all();
        }
        Ok(())
    }

    fn resolve_all(&mut self) {
        let others = self.others().map(|(_, member)| &member.metadata);
        let in_use: BTreeSet<String> = others
            .chain([&self.metadata])
            .map(|metadata| metadata.topic_regex.clone())
            .filter(|regex| !regex.is_empty())
            .collect();
        for expression in in_use {
            match subscription::compile(&expression) {
                Ok(regex) => self.resolve(expression, &regex),
                // Of another coordinator, whose syntax is not quite ours: what it matched stays.
                Err(error) => self.log.push(format!(
                    "group {}: expression {expression:?} cannot be looked at again: {error}",
                    self.at.group_id
                )),
            }
        }
    }

    fn resolve(&mut self, expression: String, regex: &regex::Regex) {
        let topics = subscription::matching(regex, self.at.topics);
        let known = self.regexes.get(&expression);
        if known.is_some_and(|known| known.topics == topics) {
            return;
        }
        let resolved = ResolvedRegex {
            topics,
            topics_epoch: self.at.topics.epoch() as i64,
            timestamp_ms: self.at.now.wall_ms,
        };
        let record = records::regex(self.at.group_id, &expression, Some(&resolved));
        self.records.push(record);
        self.regexes.to_mut().insert(expression, resolved);
        self.has_regex_changed = true;
    }

    /// Moves the group to its next epoch if there is something to assign anew.
    pub(super) fn advance_epoch(&mut self) {
        let has_changed = self.has_subscription_changed || self.has_regex_changed;
        if !has_changed && !self.have_topics_changed() {
            return;
        }
        let mut without = vec![self.member_id.as_str()];
        without.extend(self.replaces.as_deref());
        let by_regex = self.regexes.values().flat_map(|resolved| &resolved.topics);
        let names = self.group.topic_names_without(&without).into_iter();
        let names = names.chain(self.metadata.topic_names.iter().map(String::as_str));
        let names = names.chain(by_regex.map(String::as_str));
        let hash = subscription::metadata_hash(names, self.at.topics);
        if has_changed || hash != self.group.metadata_hash {
            self.epoch = self.group.epoch.saturating_add(1);
            let group_id = self.at.group_id;
            self.records
                .push(records::epoch(group_id, self.epoch, hash));
            self.log
                .push(format!("group {group_id}: epoch {}", self.epoch));
        }
    }

    /// What this member is to have, and as of which epoch; for everybody, if the group has moved.
    pub(super) fn assign(&mut self) -> (i32, Partitions) {
        let place = self.replaces.as_deref().unwrap_or(&self.member_id);
        if self.group.target_metadata.epoch >= self.epoch {
            let target = self.group.target.get(place).cloned().unwrap_or_default();
            if self.replaces.is_some() {
                let record = records::target(self.at.group_id, &self.member_id, Some(&target));
                self.records.push(record);
            }
            return (self.group.target_metadata.epoch, target);
        }
        let mut own = Partitions::new();
        for (member_id, partitions) in target::compute(self) {
            if self.group.target.get(&member_id) != Some(&partitions) {
                let record = records::target(self.at.group_id, &member_id, Some(&partitions));
                self.records.push(record);
            }
            if member_id == self.member_id {
                own = partitions;
            }
        }
        let metadata = TargetMetadata {
            epoch: self.epoch,
            timestamp_ms: self.at.now.wall_ms,
        };
        self.records
            .push(records::target_metadata(self.at.group_id, Some(metadata)));
        (self.epoch, own)
    }

    /// The member's next step to the target.
    pub(super) fn reconcile(
        &mut self,
        target_epoch: i32,
        target: &Partitions,
        owned: Option<&Partitions>,
    ) -> Result<CurrentAssignment, MustRejoin> {
        let is_stable = self.before.is_reconciled_to(target_epoch);
        if is_stable && !self.has_subscription_changed && self.replaces.is_none() {
            return Ok(self.before.current.clone());
        }
        let is_free = |topic, partition| match self.group.owner(topic, partition) {
            None => true,
            Some(owner) => owner == self.member_id || self.replaces.as_deref() == Some(owner),
        };
        let subscribed = target::topic_ids(&self.metadata, &self.regexes, self.at.topics);
        let goal = Goal {
            target_epoch,
            target,
            subscribed: &subscribed,
            has_subscription_changed: self.has_subscription_changed,
            owned,
            is_free: &is_free,
        };
        let next = reconcile(&self.before.current, &goal)?;
        for (topic, partition) in next.claims() {
            assert!(
                is_free(topic, partition),
                "{topic}-{partition} has one owner"
            );
        }
        let has_changed = next != self.before.current;
        if has_changed || self.is_new || self.replaces.is_some() {
            let record = records::current(self.at.group_id, &self.member_id, Some(&next));
            self.records.push(record);
        }
        Ok(next)
    }
}

/// The request's topic partitions, sorted.
pub(super) fn owned_partitions(
    topics: &[oncelog_wire::messages::consumer_group_heartbeat_request::TopicPartitions],
) -> Partitions {
    let mut owned: BTreeMap<Uuid, BTreeSet<i32>> = Partitions::new();
    for topic in topics.iter().filter(|t| !t.partitions.is_empty()) {
        let partitions = owned.entry(topic.topic_id).or_default();
        partitions.extend(&topic.partitions);
    }
    owned
}
