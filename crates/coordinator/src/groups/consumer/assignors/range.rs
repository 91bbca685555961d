//! `range`: of every topic each subscriber gets one run of partitions, the first ones get one
//! more if they do not come out even.
//!
//! Partitions of the same number go to the same member as far as topics have equally many and the
//! same subscribers, so that topics with the same keys can be joined. Members are taken in a
//! fixed order, static ones first and by their instance id, so that a restart changes nothing.
//! Otherwise it is not sticky.

use super::Assignment;
use crate::groups::consumer::member::Partitions;

pub(super) fn assign(assignment: &Assignment) -> Vec<Partitions> {
    let members = &assignment.members;
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|at| {
        let member = &members[*at];
        match member.instance_id {
            Some(instance_id) => (0, instance_id),
            None => (1, member.member_id),
        }
    });
    let mut rank = vec![0; members.len()];
    for (place, at) in order.iter().enumerate() {
        rank[*at] = place;
    }
    let mut given = vec![Partitions::new(); members.len()];
    for (topic, subscribers) in assignment.subscribers() {
        let mut subscribers = subscribers.to_vec();
        subscribers.sort_by_key(|at| rank[*at]);
        let partitions = assignment.partition_count(topic);
        let sharing = subscribers.len() as i32;
        let (each, mut extra) = (partitions / sharing, partitions % sharing);
        let mut next = 0;
        for at in subscribers {
            let end = next + each + i32::from(extra > 0);
            extra -= i32::from(extra > 0);
            if next < end {
                given[at].insert(topic, (next..end).collect());
            }
            next = end;
        }
        assert_eq!(next, partitions, "every partition is given out");
    }
    given
}
