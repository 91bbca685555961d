//! `uniform`, the default: members have equally many partitions, and keep what they have.
//!
//! What a member had and still subscribes to stays with it; free partitions go to whoever has the
//! fewest; then partitions are moved one by one from members with many to members with few, until
//! no single move between two subscribers of a topic would even things out. If all members
//! subscribe to the same topics, that makes the numbers differ by one at most and moves no
//! partition that need not move. Otherwise it is the best that single moves can reach.
//!
//! Each move makes the sum of the squares of the numbers smaller, so balancing ends; the rounds
//! are bounded all the same, for the groups of many different subscriptions where evening out
//! would have to travel through many members.

use super::Assignment;
use crate::groups::consumer::member::Partitions;
use oncelog_wire::Uuid;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const BALANCING_ROUNDS_MAX: usize = 64;

pub(super) fn assign(assignment: &Assignment) -> Vec<Partitions> {
    let mut sharing = Sharing::keep_previous(assignment);
    let subscribers = assignment.subscribers();
    let mut topics: Vec<(&Uuid, &Rc<Vec<usize>>)> = subscribers.iter().collect();
    // Those with the least choice first.
    topics.sort_by_key(|(topic, subscribers)| (subscribers.len(), **topic));
    // Kept from topic to topic as long as the subscribers are the same.
    let mut by_load = ByLoad::new();
    let mut of: Option<&Rc<Vec<usize>>> = None;
    for (topic, subscribers) in &topics {
        if !of.is_some_and(|of| Rc::ptr_eq(of, subscribers)) {
            by_load = sharing.by_load(subscribers);
            of = Some(subscribers);
        }
        sharing.give_out(**topic, &mut by_load);
    }
    for _ in 0..BALANCING_ROUNDS_MAX {
        let mut moved = false;
        for (topic, subscribers) in &topics {
            moved |= sharing.balance(**topic, subscribers);
        }
        if !moved {
            break;
        }
    }
    sharing.into_partitions(assignment.members.len())
}

/// Members by how many partitions they have, then by their place.
type ByLoad = BTreeSet<(usize, usize)>;

/// Who has what so far; members by their place.
struct Sharing {
    owners: BTreeMap<Uuid, Vec<Option<usize>>>,
    /// How many partitions each member has.
    load: Vec<usize>,
}

impl Sharing {
    fn keep_previous(assignment: &Assignment) -> Sharing {
        let topics = assignment.partition_counts.iter();
        let mut sharing = Sharing {
            owners: topics
                .map(|(topic, count)| (*topic, vec![None; *count as usize]))
                .collect(),
            load: vec![0; assignment.members.len()],
        };
        for (at, member) in assignment.members.iter().enumerate() {
            for (topic, partitions) in member.previous {
                let Some(owners) = sharing.owners.get_mut(topic) else {
                    continue;
                };
                if !member.topics.contains(topic) {
                    continue;
                }
                for partition in partitions {
                    // A topic made anew can have fewer, and a log cut short can name two.
                    let owner = usize::try_from(*partition).ok();
                    if let Some(owner @ None) = owner.and_then(|p| owners.get_mut(p)) {
                        *owner = Some(at);
                        sharing.load[at] += 1;
                    }
                }
            }
        }
        sharing
    }

    fn by_load(&self, members: &[usize]) -> ByLoad {
        members.iter().map(|at| (self.load[*at], *at)).collect()
    }

    fn give_out(&mut self, topic: Uuid, by_load: &mut ByLoad) {
        let owners = self.owners.get_mut(&topic).expect("subscribed");
        for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
            let (load, least) = by_load.pop_first().expect("a topic has a subscriber");
            *owner = Some(least);
            self.load[least] = load + 1;
            by_load.insert((load + 1, least));
        }
    }

    /// Whether anything was moved.
    fn balance(&mut self, topic: Uuid, subscribers: &[usize]) -> bool {
        let loads = subscribers.iter().map(|at| self.load[*at]);
        if loads.clone().max() <= loads.min().map(|least| least + 1) {
            return false;
        }
        let mut by_load = self.by_load(subscribers);
        let load = &mut self.load;
        let owners = self.owners.get_mut(&topic).expect("subscribed");
        let mut held = BTreeMap::<usize, Vec<usize>>::new();
        for (partition, owner) in owners.iter().enumerate() {
            let owner = owner.expect("everything was given out");
            held.entry(owner).or_default().push(partition);
        }
        let mut holders: ByLoad = held.keys().map(|at| (load[*at], *at)).collect();
        let mut moved = false;
        while let (Some(most), Some(least)) = (holders.last().copied(), by_load.first().copied()) {
            if most.0 <= least.0 + 1 {
                break;
            }
            holders.remove(&most);
            by_load.remove(&most);
            holders.remove(&least);
            by_load.remove(&least);
            let (from, to) = (most.1, least.1);
            let of_from = held.get_mut(&from).expect("a holder");
            let partition = of_from.pop().expect("a holder has one");
            let has_more = !of_from.is_empty();
            held.entry(to).or_default().push(partition);
            owners[partition] = Some(to);
            load[from] -= 1;
            load[to] += 1;
            by_load.extend([(load[from], from), (load[to], to)]);
            holders.insert((load[to], to));
            if has_more {
                holders.insert((load[from], from));
            }
            moved = true;
        }
        moved
    }

    fn into_partitions(self, members: usize) -> Vec<Partitions> {
        let mut given = vec![Partitions::new(); members];
        for (topic, owners) in self.owners {
            for (partition, owner) in owners.into_iter().enumerate() {
                let owner = owner.expect("everything was given out");
                given[owner]
                    .entry(topic)
                    .or_default()
                    .insert(partition as i32);
            }
        }
        given
    }
}
