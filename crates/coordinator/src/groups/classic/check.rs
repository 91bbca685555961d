//! The invariants of a classic group, for tests to check after every step.

use super::group::{ClassicGroup, State};
use crate::ReplyTo;

impl ClassicGroup {
    pub(crate) fn check(&self, group_id: &str) {
        let at = format!("group {group_id} in {}", self.state.name());
        assert_eq!(
            self.join_phase.is_some(),
            self.state == State::PreparingRebalance,
            "{at}"
        );
        assert_eq!(
            self.members.is_empty(),
            self.leader.is_none(),
            "{at}: leader"
        );
        if let Some(leader) = &self.leader {
            assert!(
                self.members.contains_key(leader),
                "{at}: the leader is a member"
            );
        }
        if self.state == State::Empty {
            assert!(self.members.is_empty(), "{at}: members");
            if self.generation > 0 {
                let committed = self
                    .committed
                    .as_ref()
                    .expect("an empty generation is written");
                assert_eq!(committed.generation, self.generation, "{at}: generation");
                assert!(committed.members.is_empty(), "{at}: members in the record");
            }
        }
        for (instance_id, member_id) in &self.static_members {
            let member = &self.members[member_id];
            assert_eq!(member.instance_id.as_ref(), Some(instance_id), "{at}");
        }
        for (member_id, member) in &self.members {
            assert!(
                !self.pending_members.contains_key(member_id),
                "{at}: {member_id} pends"
            );
            if let Some(instance_id) = &member.instance_id {
                assert_eq!(
                    self.static_members.get(instance_id),
                    Some(member_id),
                    "{at}"
                );
            }
            if member.awaiting_join.is_some() {
                assert_eq!(
                    self.state,
                    State::PreparingRebalance,
                    "{at}: {member_id} joins"
                );
            }
            if member.awaiting_sync.is_some() {
                assert_eq!(
                    self.state,
                    State::CompletingRebalance,
                    "{at}: {member_id} syncs"
                );
                assert!(
                    !self.pending_sync.contains(member_id),
                    "{at}: {member_id} synced"
                );
            }
        }
        assert!(
            self.pending_sync
                .iter()
                .all(|id| self.members.contains_key(id)),
            "{at}"
        );
        if self.state == State::Stable {
            let committed = self.committed.as_ref().expect("a stable group is written");
            assert_eq!(
                committed,
                &self.to_record(),
                "{at}: the record says what is"
            );
        }
        if matches!(self.state, State::Stable | State::CompletingRebalance) {
            let protocol = self.protocol.as_ref().expect("a generation has a protocol");
            assert!(
                self.members.values().all(|member| member.offers(protocol)),
                "{at}"
            );
            assert!(!self.members.is_empty(), "{at}: members");
        }
    }

    /// Everybody who waits for an answer.
    pub(crate) fn parked(&self) -> impl Iterator<Item = ReplyTo> {
        let members = self.members.values();
        members
            .flat_map(|member| [member.awaiting_join, member.awaiting_sync])
            .flatten()
            .map(|parked| parked.reply)
    }
}
