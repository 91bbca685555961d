//! A member's way from what it has to what it is to have, one step per heartbeat.
//!
//! ```text
//!                 something must go             it reports that it has gone
//!   Stable ----------------------> UnrevokedPartitions ----+
//!     ^  |                                ^                |
//!     |  | nothing must go                | something      v
//!     |  +--------> everything is free? --+---- must go -- +
//!     |               yes |    | no
//!     +-------------------+    +---> UnreleasedPartitions, looks again with each heartbeat
//! ```
//!
//! A member stays at its epoch until it has given up what the target assignment takes away; then
//! it is moved to the target's epoch and given what is free, and the rest as others release it.
//!
//! Invariant: a partition is given to a member only if nobody else has it, assigned or pending
//! revocation. `is_free` answers for that, and the member's own word for what it gave up.

use super::member::{CurrentAssignment, Held, MemberState, Partitions};
use oncelog_wire::Uuid;
use std::collections::{BTreeMap, BTreeSet};

/// What a step goes by.
pub(super) struct Goal<'a> {
    pub target_epoch: i32,
    pub target: &'a Partitions,
    /// Topics that the member subscribes to and that exist. Of others nothing may stay.
    pub subscribed: &'a BTreeSet<Uuid>,
    pub has_subscription_changed: bool,
    /// What the member reports to own; None if it reports nothing this time.
    pub owned: Option<&'a Partitions>,
    /// Nobody but the member itself has the partition.
    pub is_free: &'a dyn Fn(Uuid, i32) -> bool,
}

/// The member has to give up everything and join again: its state is of a newer release.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MustRejoin;

pub(super) fn reconcile(
    current: &CurrentAssignment,
    goal: &Goal,
) -> Result<CurrentAssignment, MustRejoin> {
    let next = match current.state {
        MemberState::Stable if current.epoch != goal.target_epoch => advance(current, goal),
        MemberState::Stable if goal.has_subscription_changed => drop_unsubscribed(current, goal),
        MemberState::Stable => current.clone(),
        MemberState::UnrevokedPartitions if goal.owns_any(&current.revoking) => {
            match goal.has_subscription_changed {
                true => drop_unsubscribed(current, goal),
                false => current.clone(),
            }
        }
        MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
            advance(current, goal)
        }
        MemberState::Unknown if goal.owned.is_some_and(Partitions::is_empty) => {
            let mut fresh = current.clone();
            fresh.epoch = goal.target_epoch;
            advance(&fresh, goal)
        }
        MemberState::Unknown => return Err(MustRejoin),
    };
    Ok(next)
}

impl Goal<'_> {
    /// Silence counts as yes: only what the member reports can free a partition.
    fn owns_any(&self, partitions: &Held) -> bool {
        let Some(owned) = self.owned else { return true };
        owned.iter().any(|(topic, owned)| {
            let held = partitions.get(topic);
            held.is_some_and(|held| owned.iter().any(|partition| held.contains_key(partition)))
        })
    }

    fn wants(&self, topic: Uuid, partition: i32) -> bool {
        let target = self.target.get(&topic);
        self.subscribed.contains(&topic) && target.is_some_and(|t| t.contains(&partition))
    }
}

/// The next step to the target. What was pending revocation has been given up.
fn advance(current: &CurrentAssignment, goal: &Goal) -> CurrentAssignment {
    let mut next = CurrentAssignment {
        epoch: goal.target_epoch,
        previous_epoch: current.epoch,
        state: MemberState::Stable,
        assigned: Held::new(),
        revoking: Held::new(),
    };
    for (topic, partitions) in &current.assigned {
        for (partition, epoch) in partitions {
            let to = match goal.wants(*topic, *partition) {
                true => &mut next.assigned,
                false => &mut next.revoking,
            };
            put(to, *topic, *partition, *epoch);
        }
    }
    if !next.revoking.is_empty() && goal.owns_any(&next.revoking) {
        next.epoch = current.epoch;
        next.state = MemberState::UnrevokedPartitions;
        return next;
    }
    next.revoking.clear();
    for (topic, partitions) in goal.target {
        for partition in partitions.iter().filter(|p| goal.wants(*topic, **p)) {
            let has_it = next
                .assigned
                .get(topic)
                .is_some_and(|held| held.contains_key(partition));
            if has_it {
                continue;
            }
            if (goal.is_free)(*topic, *partition) {
                put(&mut next.assigned, *topic, *partition, goal.target_epoch);
            } else {
                next.state = MemberState::UnreleasedPartitions;
            }
        }
    }
    next
}

/// Topics that the member does not subscribe to any more go at once, whatever the target says.
fn drop_unsubscribed(current: &CurrentAssignment, goal: &Goal) -> CurrentAssignment {
    let is_subscribed = |topic: &Uuid| goal.subscribed.contains(topic);
    if current.assigned.keys().all(is_subscribed) {
        return current.clone();
    }
    let mut next = current.clone();
    next.previous_epoch = current.epoch;
    next.assigned.retain(|topic, _| is_subscribed(topic));
    for (topic, partitions) in &current.assigned {
        if !is_subscribed(topic) {
            let revoking: &mut BTreeMap<i32, i32> = next.revoking.entry(*topic).or_default();
            revoking.extend(partitions);
        }
    }
    match goal.owns_any(&next.revoking) {
        true => next.state = MemberState::UnrevokedPartitions,
        false => next.revoking.clear(),
    }
    next
}

fn put(held: &mut Held, topic: Uuid, partition: i32, epoch: i32) {
    held.entry(topic).or_default().insert(partition, epoch);
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Uuid = Uuid([7; 16]);
    const U: Uuid = Uuid([8; 16]);

    fn held(topic: Uuid, partitions: &[(i32, i32)]) -> Held {
        let partitions: BTreeMap<i32, i32> = partitions.iter().copied().collect();
        let topics = [(topic, partitions)].into_iter();
        topics.filter(|(_, held)| !held.is_empty()).collect()
    }

    fn partitions(topic: Uuid, partitions: &[i32]) -> Partitions {
        let partitions: BTreeSet<i32> = partitions.iter().copied().collect();
        let topics = [(topic, partitions)].into_iter();
        topics.filter(|(_, p)| !p.is_empty()).collect()
    }

    fn at(epoch: i32, state: MemberState, assigned: Held, revoking: Held) -> CurrentAssignment {
        CurrentAssignment {
            epoch,
            previous_epoch: epoch - 1,
            state,
            assigned,
            revoking,
        }
    }

    /// One step to target epoch 5 with `target` of T, where `taken` belongs to others.
    fn step(
        current: &CurrentAssignment,
        target: &[i32],
        owned: Option<&[i32]>,
        taken: &[i32],
    ) -> CurrentAssignment {
        let owned = owned.map(|owned| partitions(T, owned));
        let goal = Goal {
            target_epoch: 5,
            target: &partitions(T, target),
            subscribed: &BTreeSet::from([T]),
            has_subscription_changed: false,
            owned: owned.as_ref(),
            is_free: &|_, partition| !taken.contains(&partition),
        };
        reconcile(current, &goal).unwrap()
    }

    #[test]
    fn revokes_first_then_takes_what_is_free_then_the_rest() {
        use MemberState::*;
        let first = at(4, Stable, held(T, &[(0, 2), (1, 4)]), Held::new());
        // 0 has to go before 2 and 3 come.
        let revoking = step(&first, &[1, 2, 3], Some(&[0, 1]), &[3]);
        assert_eq!(revoking.state, UnrevokedPartitions);
        assert_eq!((revoking.epoch, revoking.previous_epoch), (4, 4));
        assert_eq!(revoking.assigned, held(T, &[(1, 4)]));
        assert_eq!(revoking.revoking, held(T, &[(0, 2)]));
        // Neither silence nor a report of before frees it.
        assert_eq!(step(&revoking, &[1, 2, 3], None, &[3]), revoking);
        assert_eq!(step(&revoking, &[1, 2, 3], Some(&[0, 1]), &[3]), revoking);
        // It is given up: the epoch moves on, and 3 is not free yet.
        let waiting = step(&revoking, &[1, 2, 3], Some(&[1]), &[3]);
        assert_eq!(waiting.state, UnreleasedPartitions);
        assert_eq!((waiting.epoch, waiting.previous_epoch), (5, 4));
        assert_eq!(waiting.assigned, held(T, &[(1, 4), (2, 5)]));
        assert!(waiting.revoking.is_empty());
        let stable = step(&waiting, &[1, 2, 3], None, &[]);
        assert_eq!(stable.state, Stable);
        assert_eq!(stable.assigned, held(T, &[(1, 4), (2, 5), (3, 5)]));
        assert_eq!(step(&stable, &[1, 2, 3], None, &[]), stable);
    }

    #[test]
    fn what_the_member_does_not_own_need_not_be_revoked() {
        let first = at(4, MemberState::Stable, held(T, &[(0, 4)]), Held::new());
        let next = step(&first, &[1], Some(&[]), &[]);
        assert_eq!(next.state, MemberState::Stable);
        assert_eq!((next.epoch, next.assigned), (5, held(T, &[(1, 5)])));
    }

    #[test]
    fn what_comes_back_while_it_is_given_up_is_assigned_anew() {
        let revoking = at(
            4,
            MemberState::UnrevokedPartitions,
            held(T, &[(1, 4)]),
            held(T, &[(0, 2)]),
        );
        let next = step(&revoking, &[0, 1], Some(&[1]), &[]);
        assert_eq!(next.state, MemberState::Stable);
        // Under the new epoch: commits of before are a zombie's.
        assert_eq!(next.assigned, held(T, &[(0, 5), (1, 4)]));
    }

    #[test]
    fn topics_without_subscription_go_whatever_the_target_says() {
        let both: Held = [held(T, &[(0, 3)]), held(U, &[(0, 3)])]
            .into_iter()
            .flatten()
            .collect();
        let first = at(5, MemberState::Stable, both, Held::new());
        let target: Partitions = [partitions(T, &[0]), partitions(U, &[0])]
            .into_iter()
            .flatten()
            .collect();
        let goal = Goal {
            target_epoch: 5,
            target: &target,
            subscribed: &BTreeSet::from([T]),
            has_subscription_changed: true,
            owned: Some(&target),
            is_free: &|_, _| true,
        };
        let next = reconcile(&first, &goal).unwrap();
        assert_eq!(next.state, MemberState::UnrevokedPartitions);
        assert_eq!(next.assigned, held(T, &[(0, 3)]));
        assert_eq!(next.revoking, held(U, &[(0, 3)]));
        // Nor are they given: here the target is of before, and the epoch moves.
        let none = at(4, MemberState::Stable, Held::new(), Held::new());
        let next = reconcile(&none, &goal).unwrap();
        assert_eq!(next.state, MemberState::Stable);
        assert_eq!((next.epoch, next.assigned), (5, held(T, &[(0, 5)])));
    }

    #[test]
    fn a_state_of_a_newer_release_starts_over() {
        let odd = at(4, MemberState::Unknown, Held::new(), Held::new());
        assert_eq!(step(&odd, &[0], Some(&[]), &[]).epoch, 5);
        let goal = Goal {
            target_epoch: 5,
            target: &partitions(T, &[0]),
            subscribed: &BTreeSet::from([T]),
            has_subscription_changed: false,
            owned: None,
            is_free: &|_, _| true,
        };
        assert_eq!(reconcile(&odd, &goal), Err(MustRejoin));
    }
}
