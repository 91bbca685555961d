//! What both assignors promise, and what each does, on random groups.

use super::{Assignment, RANGE, Subscriber, UNIFORM};
use crate::groups::consumer::member::Partitions;
use oncelog_wire::Uuid;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A group: of each topic the number of partitions, of each member its topics.
#[derive(Clone, Debug)]
struct Case {
    partitions: Vec<i32>,
    members: BTreeMap<String, BTreeSet<usize>>,
}

fn topic(index: usize) -> Uuid {
    let mut id = [0; 16];
    id[15] = index as u8 + 1;
    Uuid(id)
}

type Assigned = BTreeMap<String, Partitions>;

fn assign(assignor: &str, case: &Case, previous: &Assigned) -> Assigned {
    let nothing = Partitions::new();
    let members = case.members.iter().map(|(member_id, topics)| Subscriber {
        member_id,
        instance_id: None,
        topics: Rc::new(topics.iter().map(|index| topic(*index)).collect()),
        previous: previous.get(member_id).unwrap_or(&nothing),
    });
    let subscribed: BTreeSet<usize> = case.members.values().flatten().copied().collect();
    let assignment = Assignment {
        members: members.collect(),
        partition_counts: subscribed
            .iter()
            .map(|index| (topic(*index), case.partitions[*index]))
            .collect(),
    };
    let assigned = assignment.by(assignor);
    let assigned: Assigned = case.members.keys().cloned().zip(assigned).collect();
    check(case, &assigned);
    assigned
}

/// Every partition of a subscribed topic has one owner, which subscribes to it.
fn check(case: &Case, assigned: &Assigned) {
    let mut owners = BTreeMap::new();
    for (member_id, topics) in assigned {
        for (id, partitions) in topics {
            assert!(!partitions.is_empty());
            let index = id.0[15] as usize - 1;
            assert!(
                case.members[member_id].contains(&index),
                "{member_id} wants no {index}"
            );
            for partition in partitions {
                assert!((0..case.partitions[index]).contains(partition));
                assert_eq!(owners.insert((index, *partition), member_id), None);
            }
        }
    }
    let subscribed: BTreeSet<usize> = case.members.values().flatten().copied().collect();
    let expected: i32 = subscribed.iter().map(|index| case.partitions[*index]).sum();
    assert_eq!(owners.len() as i32, expected);
}

fn size(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

/// Nothing could be evened out by moving one partition between two of its topic's subscribers.
fn check_even(case: &Case, assigned: &Assigned) {
    for (from, partitions) in assigned {
        for id in partitions.keys() {
            let index = id.0[15] as usize - 1;
            for (to, topics) in &case.members {
                let could_take = topics.contains(&index);
                let (from, to) = (size(&assigned[from]), size(&assigned[to]));
                assert!(
                    !could_take || from <= to + 1,
                    "{from} and {to}: {assigned:?}"
                );
            }
        }
    }
}

/// Partitions that have changed hands, of those that had an owner who is still there.
fn moved(before: &Assigned, after: &Assigned) -> usize {
    let mut moved = 0;
    for (member_id, topics) in before.iter().filter(|(id, _)| after.contains_key(*id)) {
        for (id, partitions) in topics {
            let kept = after[member_id].get(id);
            moved += partitions
                .iter()
                .filter(|p| kept.is_none_or(|k| !k.contains(p)))
                .count();
        }
    }
    moved
}

fn alike() -> impl Strategy<Value = Case> {
    (prop::collection::vec(0..9i32, 1..5), 1..9usize).prop_map(|(partitions, members)| {
        let all: BTreeSet<usize> = (0..partitions.len()).collect();
        let members = (0..members)
            .map(|m| (format!("m{m}"), all.clone()))
            .collect();
        Case {
            partitions,
            members,
        }
    })
}

fn mixed() -> impl Strategy<Value = Case> {
    let topics = prop::collection::btree_set(0..4usize, 0..=4);
    (
        prop::collection::vec(0..9i32, 4),
        prop::collection::vec(topics, 1..9),
    )
        .prop_map(|(partitions, members)| {
            let members = members.into_iter().enumerate();
            let members = members
                .map(|(m, topics)| (format!("m{m}"), topics))
                .collect();
            Case {
                partitions,
                members,
            }
        })
}

proptest! {
    #[test]
    fn uniform_is_even_and_moves_nothing_without_need(case in alike(), leaver in 0..9usize) {
        let first = assign(UNIFORM, &case, &Assigned::new());
        let sizes: Vec<usize> = first.values().map(size).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        prop_assert_eq!(&assign(UNIFORM, &case, &first), &first, "nothing changed");

        // One joins: it is given its share, and nobody else is given anything.
        let mut larger = case.clone();
        let all = larger.members["m0"].clone();
        larger.members.insert("new".into(), all);
        let second = assign(UNIFORM, &larger, &first);
        check_even(&larger, &second);
        prop_assert_eq!(moved(&first, &second), size(&second["new"]));

        // One leaves: the others keep everything, unless nobody is left.
        let mut smaller = case.clone();
        smaller.members.remove(&format!("m{leaver}"));
        if !smaller.members.is_empty() {
            let third = assign(UNIFORM, &smaller, &first);
            check_even(&smaller, &third);
            prop_assert_eq!(moved(&first, &third), 0);
        }

        // A topic grows: everybody keeps what they have.
        let mut grown = case.clone();
        grown.partitions[0] += 3;
        let fourth = assign(UNIFORM, &grown, &first);
        check_even(&grown, &fourth);
        prop_assert_eq!(moved(&first, &fourth), 0);
    }

    #[test]
    fn uniform_is_as_even_as_single_moves_can_make_it(before in mixed(), after in mixed()) {
        let first = assign(UNIFORM, &before, &Assigned::new());
        check_even(&before, &first);
        prop_assert_eq!(&assign(UNIFORM, &before, &first), &first, "nothing changed");
        // From an assignment that fits nothing any more.
        check_even(&after, &assign(UNIFORM, &after, &first));
    }

    #[test]
    fn range_gives_runs_that_are_even_by_topic(case in mixed()) {
        let assigned = assign(RANGE, &case, &Assigned::new());
        for index in 0..case.partitions.len() {
            let subscribers = case.members.iter().filter(|(_, topics)| topics.contains(&index));
            let runs: Vec<Vec<i32>> = subscribers
                .map(|(id, _)| assigned[id].get(&topic(index)).into_iter().flatten().copied().collect())
                .collect();
            for run in &runs {
                prop_assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", run);
            }
            let sizes: Vec<usize> = runs.iter().map(Vec::len).collect();
            prop_assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]), "{:?}", sizes);
            let spread = sizes.first().unwrap_or(&0) - sizes.last().unwrap_or(&0);
            prop_assert!(spread <= 1, "{:?}", sizes);
        }
    }
}

#[test]
fn range_pairs_topics_and_puts_static_members_first() {
    let all: Rc<BTreeSet<Uuid>> = Rc::new([topic(0), topic(1)].into());
    let nothing = Partitions::new();
    let member = |member_id, instance_id| Subscriber {
        member_id,
        instance_id,
        topics: Rc::clone(&all),
        previous: &nothing,
    };
    let assignment = Assignment {
        members: vec![
            member("a", None),
            member("b", Some("i2")),
            member("c", Some("i1")),
        ],
        partition_counts: [(topic(0), 4), (topic(1), 4)].into(),
    };
    let assigned = assignment.by(RANGE);
    let run = |partitions: &[i32]| -> Partitions {
        let partitions: BTreeSet<i32> = partitions.iter().copied().collect();
        [(topic(0), partitions.clone()), (topic(1), partitions)].into()
    };
    // c by its instance i1, then b, then the dynamic member.
    assert_eq!(assigned, [run(&[3]), run(&[2]), run(&[0, 1])]);
}

#[test]
fn a_target_that_names_a_partition_twice_is_put_right() {
    let case = Case {
        partitions: vec![2],
        members: [("a".to_owned(), [0].into()), ("b".to_owned(), [0].into())].into(),
    };
    let both: Partitions = [(topic(0), [0, 1, 7, -1].into())].into();
    let previous = [("a".to_owned(), both.clone()), ("b".to_owned(), both)].into();
    check_even(&case, &assign(UNIFORM, &case, &previous));
}
