//! The target assignment: the group as the assignor sees it.

use super::assignors::{Assignment, Subscriber};
use super::draft::Draft;
use super::group::{ConsumerGroup, ResolvedRegex};
use super::member::{MemberMetadata, Partitions};
use crate::Topics;
use crate::groups::GroupConfig;
use oncelog_wire::Uuid;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What everybody is to have in the group as the draft leaves it.
pub(super) fn compute(draft: &Draft) -> BTreeMap<String, Partitions> {
    let nothing = Partitions::new();
    let place = draft.replaces.as_deref().unwrap_or(&draft.member_id);
    let own = (draft.member_id.as_str(), place, &draft.metadata);
    let others = draft
        .others()
        .map(|(id, member)| (id, id, &member.metadata));
    // Members mostly subscribe to the same: each subscription is looked up once.
    let mut known = BTreeMap::<(&BTreeSet<String>, &str), Rc<BTreeSet<Uuid>>>::new();
    let mut partition_counts = BTreeMap::new();
    let mut members = Vec::new();
    for (member_id, place, metadata) in others.chain([own]) {
        let subscription = (&metadata.topic_names, metadata.topic_regex.as_str());
        let topics = known
            .entry(subscription)
            .or_insert_with(|| Rc::new(topic_ids(metadata, &draft.regexes, draft.at.topics)));
        members.push(Subscriber {
            member_id,
            instance_id: metadata.instance_id.as_deref(),
            topics: Rc::clone(topics),
            previous: draft.group.target.get(place).unwrap_or(&nothing),
        });
    }
    for topic in known.values().flat_map(|topics| topics.iter()) {
        let view = draft
            .at
            .topics
            .topic_by_id(*topic)
            .and_then(|name| draft.at.topics.topic(name));
        partition_counts.insert(*topic, view.map_or(0, |view| view.partitions));
    }
    // The same order whoever sends the heartbeat.
    members.sort_by_key(|member| member.member_id);
    let ids: Vec<String> = members.iter().map(|m| m.member_id.to_owned()).collect();
    let metadata = draft
        .others()
        .map(|(_, m)| &m.metadata)
        .chain([&draft.metadata]);
    let assignor = preferred(metadata, draft.at.config);
    let assignment = Assignment {
        members,
        partition_counts,
    };
    ids.into_iter().zip(assignment.by(assignor)).collect()
}

/// The assignor that most members name, of those that the broker has; its first if none does.
fn preferred<'a>(
    members: impl Iterator<Item = &'a MemberMetadata>,
    config: &'a GroupConfig,
) -> &'a str {
    let mut votes = BTreeMap::<&str, usize>::new();
    for name in members.filter_map(|member| member.server_assignor.as_deref()) {
        *votes.entry(name).or_default() += 1;
    }
    let first = config.consumer_assignors.first();
    let mut preferred = first.expect("the broker has an assignor").as_str();
    for name in &config.consumer_assignors {
        let votes_of = |name: &str| votes.get(name).copied().unwrap_or(0);
        if votes_of(name) > votes_of(preferred) {
            preferred = name;
        }
    }
    preferred
}

impl ConsumerGroup {
    /// The assignor that the group goes by now.
    pub(super) fn assignor<'a>(&'a self, config: &'a GroupConfig) -> &'a str {
        preferred(self.members.values().map(|member| &member.metadata), config)
    }
}

/// Topics that the member subscribes to, by name or expression, and that exist.
pub(super) fn topic_ids(
    metadata: &MemberMetadata,
    regexes: &BTreeMap<String, ResolvedRegex>,
    topics: &dyn Topics,
) -> BTreeSet<Uuid> {
    let matched = regexes.get(&metadata.topic_regex);
    let matched = matched.iter().flat_map(|resolved| &resolved.topics);
    let names = metadata.topic_names.iter().chain(matched);
    names
        .filter_map(|name| topics.topic(name))
        .map(|view| view.id)
        .collect()
}
