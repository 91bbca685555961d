//! Replay of a consumer group: the one place where its durable state changes, and what follows
//! from it (owners, static members, subscribed topics) is kept in step.

use super::group::{ConsumerGroup, ResolvedRegex, TargetMetadata};
use super::member::{CurrentAssignment, MemberMetadata};
use super::records::Change;
use crate::groups::GroupConfig;
use oncelog_wire::clock::{Instant, Now};
use std::collections::BTreeMap;

impl ConsumerGroup {
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
