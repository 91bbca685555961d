//! The invariants of a consumer group, for tests to check after every step.

use super::group::{ConsumerGroup, State};
use super::member::{Held, MemberState};
use std::collections::BTreeMap;

impl ConsumerGroup {
    pub(crate) fn check(&self, group_id: &str) {
        let at = format!("group {group_id}");
        assert!(self.contested().is_empty(), "{at}: {:?}", self.contested());
        let mut owners = BTreeMap::new();
        for (member_id, member) in &self.members {
            let at = format!("{at}, member {member_id}");
            for partition in member.current.claims() {
                let other = owners.insert(partition, member_id);
                assert_eq!(other, None, "{at}: {partition:?} has another owner");
            }
            let current = &member.current;
            assert!(current.epoch <= self.epoch, "{at}: epoch");
            if current.epoch >= 0 {
                assert!(
                    current.previous_epoch <= current.epoch,
                    "{at}: previous epoch"
                );
                let is_revoking = current.state == MemberState::UnrevokedPartitions;
                assert_eq!(
                    !current.revoking.is_empty(),
                    is_revoking,
                    "{at}: {current:?}"
                );
            }
            for held in [&current.assigned, &current.revoking] {
                assert!(
                    held.values().all(|partitions| !partitions.is_empty()),
                    "{at}"
                );
            }
            assert!(
                is_within(&current.assigned, self.target_metadata.epoch),
                "{at}: {current:?}"
            );
            if member.is_reconciled_to(self.target_metadata.epoch) {
                let target = self.target.get(member_id).cloned().unwrap_or_default();
                for (topic, partitions) in &current.assigned {
                    assert!(partitions.keys().all(|p| target[topic].contains(p)), "{at}");
                }
            }
            if let Some(instance_id) = &member.metadata.instance_id {
                assert_eq!(
                    self.static_members.get(instance_id),
                    Some(member_id),
                    "{at}"
                );
            }
            assert!(self.timers.contains_key(member_id), "{at}: no session");
        }
        assert_eq!(self.timers.len(), self.members.len(), "{at}: sessions");
        assert!(
            self.target.keys().all(|id| self.members.contains_key(id)),
            "{at}: a target for nobody"
        );
        let mut intended = BTreeMap::new();
        for (member_id, target) in &self.target {
            for (topic, partitions) in target {
                for partition in partitions {
                    let other = intended.insert((topic, partition), member_id);
                    assert_eq!(other, None, "{at}: {topic}-{partition} is meant for two");
                }
            }
        }
        assert!(
            self.target_metadata.epoch <= self.epoch,
            "{at}: assignment epoch"
        );
        if self.state() == State::Empty {
            assert!(self.regexes.is_empty(), "{at}: expressions of nobody");
            assert!(self.subscribed.is_empty(), "{at}: {:?}", self.subscribed);
        }
        for regex in self.regexes.keys() {
            let mut members = self.members.values();
            assert!(
                members.any(|m| m.metadata.topic_regex == *regex),
                "{at}: {regex}"
            );
        }
    }

    /// Everything that must survive a restart.
    pub(crate) fn durable(&self) -> String {
        format!(
            "{} {} {:?} {:#?} {:#?} {:#?}",
            self.epoch,
            self.metadata_hash,
            self.target_metadata,
            self.members,
            self.target,
            self.regexes
        )
    }
}

fn is_within(held: &Held, epoch: i32) -> bool {
    held.values()
        .flat_map(BTreeMap::values)
        .all(|since| *since <= epoch)
}
