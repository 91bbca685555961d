//! The join phase: from the first reason to rebalance to the next generation.

use super::group::{ClassicGroup, State};
use super::member::{Parked, join_protocol_name};
use super::{Step, member::Member};
use crate::groups::records;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::JoinGroupResponse;
use oncelog_wire::messages::join_group_response::JoinGroupResponseMember;
use std::collections::BTreeMap;

/// Looking again for absent static members waits at least this long, whatever rebalance timeout
/// they asked for: 0 would mean looking without pause until their sessions end.
const STATIC_WAIT_MS_MIN: i64 = 1_000;

/// What ends a join phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinPhase {
    /// The first members of an empty group: time alone ends it, and whoever comes meanwhile
    /// makes it longer, up to the rebalance timeout.
    Initial {
        ends: Instant,
        delay_ms: i64,
        remaining_ms: i64,
        member_added: bool,
    },
    /// Ends when every member has joined, or at the rebalance timeout.
    Rejoin { ends: Instant },
}

impl JoinPhase {
    pub(super) fn ends(self) -> Instant {
        match self {
            JoinPhase::Initial { ends, .. } | JoinPhase::Rejoin { ends } => ends,
        }
    }
}

impl ClassicGroup {
    /// Something changed that the group has to agree on anew.
    pub(super) fn rebalance(&mut self, step: &mut Step, reason: &str) {
        match self.state {
            State::PreparingRebalance => self.complete_join_if_all_joined(step),
            _ => self.prepare_rebalance(step, reason),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, step: &mut Step, reason: &str) {
        if self.state == State::CompletingRebalance {
            self.cancel_syncs(step, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        self.sync_deadline = Instant::NEVER;
        step.log(format_args!(
            "preparing to rebalance from {}, generation {}: {reason}",
            self.state.name(),
            self.generation
        ));
        let initial = self.state == State::Empty;
        self.transition(State::PreparingRebalance, step.now);
        if initial {
            self.begin_initial_join(step);
        } else {
            self.wait_for_rejoin(step, 0);
            self.complete_join_if_all_joined(step);
        }
    }

    fn begin_initial_join(&mut self, step: &mut Step) {
        let delay_ms = i64::from(step.config.initial_rebalance_delay_ms.max(0));
        self.join_phase = Some(JoinPhase::Initial {
            ends: step.now.instant.plus_ms(delay_ms),
            delay_ms,
            remaining_ms: (self.rebalance_timeout_ms() - delay_ms).max(0),
            member_added: false,
        });
        if delay_ms == 0 {
            self.complete_join(step);
        }
    }

    fn wait_for_rejoin(&mut self, step: &Step, ms_min: i64) {
        let ends = step
            .now
            .instant
            .plus_ms(self.rebalance_timeout_ms().max(ms_min));
        self.join_phase = Some(JoinPhase::Rejoin { ends });
    }

    /// The end of the join phase's time has come.
    pub(super) fn join_phase_over(&mut self, step: &mut Step) {
        let phase = self.join_phase.expect("only a join phase has an end");
        match phase {
            JoinPhase::Initial {
                delay_ms,
                remaining_ms,
                member_added: true,
                ..
            } if remaining_ms > 0 => {
                let next_ms =
                    i64::from(step.config.initial_rebalance_delay_ms.max(0)).min(remaining_ms);
                self.join_phase = Some(JoinPhase::Initial {
                    ends: step.now.instant.plus_ms(next_ms),
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                    member_added: false,
                });
            }
            _ => self.complete_join(step),
        }
    }

    fn all_joined(&self) -> bool {
        self.pending_members.is_empty()
            && self
                .members
                .values()
                .all(|member| member.awaiting_join.is_some())
    }

    pub(super) fn complete_join_if_all_joined(&mut self, step: &mut Step) {
        if matches!(self.join_phase, Some(JoinPhase::Rejoin { .. })) && self.all_joined() {
            self.complete_join(step);
        }
    }

    /// Ends the join phase with the members that have joined, and the static ones in any case.
    fn complete_join(&mut self, step: &mut Step) {
        self.remove_those_who_did_not_join(step);
        if !self.members.is_empty() && !self.elect_joined_leader(step) {
            // Only static members are left and none is here. Their sessions will end, or they
            // come back.
            self.wait_for_rejoin(step, STATIC_WAIT_MS_MIN);
            return;
        }
        // The next number after the last is 0, as clients compare for equality only.
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        if self.members.is_empty() {
            self.become_empty(step);
        } else {
            self.begin_generation(step);
        }
    }

    fn remove_those_who_did_not_join(&mut self, step: &mut Step) {
        let gone = |(_, member): &(&String, &Member)| {
            member.awaiting_join.is_none() && member.instance_id.is_none()
        };
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(gone)
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in gone {
            step.log(format_args!(
                "member {member_id} did not rejoin in time and is removed"
            ));
            self.remove_member(step, &member_id);
        }
    }

    /// Makes sure that the leader is a member that has joined; false if nobody has.
    fn elect_joined_leader(&mut self, step: &mut Step) -> bool {
        let joined = |member: &Member| member.awaiting_join.is_some();
        if self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))
            .is_some_and(joined)
        {
            return true;
        }
        let next = self.members.iter().find(|(_, member)| joined(member));
        let Some(next) = next.map(|(id, _)| id.clone()) else {
            return false;
        };
        step.log(format_args!(
            "leader {:?} did not rejoin; {next} leads now",
            self.leader
        ));
        self.leader = Some(next);
        true
    }

    fn become_empty(&mut self, step: &mut Step) {
        self.protocol = None;
        self.leader = None;
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition(State::Empty, step.now);
        step.log(format_args!("empty, generation {}", self.generation));
        step.out
            .records
            .push(records::group(step.group_id, &self.to_record()));
    }

    fn begin_generation(&mut self, step: &mut Step) {
        self.protocol = Some(self.select_protocol());
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition(State::CompletingRebalance, step.now);
        step.log(format_args!(
            "generation {} has {} members",
            self.generation,
            self.members.len()
        ));
        let mut parked = Vec::new();
        for (member_id, member) in &mut self.members {
            member.touch(step.now);
            member.is_new = false;
            if let Some(join) = member.awaiting_join.take() {
                parked.push((member_id.clone(), join));
            }
        }
        for (member_id, join) in parked {
            let everybody = self.is_leader(&member_id);
            step.out
                .reply(join.reply, self.joined(&member_id, join, everybody));
        }
        self.pending_sync = self.members.keys().cloned().collect();
        self.sync_deadline = step.now.instant.plus_ms(self.rebalance_timeout_ms());
    }

    /// The answer to a Join into the current generation. `everybody`: with the list of members,
    /// as the leader needs it.
    pub(super) fn joined(
        &self,
        member_id: &str,
        parked: Parked,
        everybody: bool,
    ) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let listed = |(id, member): (&String, &Member)| JoinGroupResponseMember {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
            ..Default::default()
        };
        let members = match everybody {
            true => self.members.iter().map(listed).collect(),
            false => Vec::new(),
        };
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: join_protocol_name(parked.api_version, self.protocol.as_deref()),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            members,
            ..Default::default()
        }
    }

    /// The protocol that every member offers and most of them prefer; the leader's preference
    /// decides between equals.
    pub(super) fn select_protocol(&self) -> String {
        let leader = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader));
        let leader = leader.or_else(|| self.members.values().next());
        let leader = leader.expect("a protocol is selected for a group with members");
        let names = leader.protocols.iter().map(|(name, _)| name.as_str());
        let common: Vec<&str> = names
            .filter(|name| self.members.values().all(|m| m.offers(name)))
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find(|(name, _)| common.contains(&name.as_str()));
            if let Some((name, _)) = vote {
                *votes.entry(name).or_default() += 1;
            }
        }
        // `max_by_key` takes the last of equals, so the least preferred comes first.
        let winner = common.iter().rev().max_by_key(|name| votes.get(*name));
        winner
            .expect("a member joins only with a protocol that all others offer")
            .to_string()
    }

    /// Whether a member with these protocols can be part of the group.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type() == Some(protocol_type)
            && protocols
                .iter()
                .any(|(name, _)| self.members.values().all(|m| m.offers(name)))
    }
}
