//! What a shard can tell of its groups for metrics: a snapshot, taken on demand.

use super::GroupShard;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    pub group_id: String,
    /// As ListGroups spells it.
    pub state: &'static str,
    pub members: usize,
    /// Topic, partition, committed offset.
    pub offsets: Vec<(String, i32, i64)>,
    /// Partitions that open transactions have committed offsets for.
    pub pending: usize,
}

impl GroupShard {
    pub fn figures(&self) -> Vec<GroupFigures> {
        let figures = |(group_id, group): (&String, &super::group::Group)| GroupFigures {
            group_id: group_id.clone(),
            state: group.state_name(),
            members: group.member_count(),
            offsets: self
                .offsets
                .of_group(group_id)
                .map(|(topic, partition, committed)| {
                    (topic.to_owned(), partition, committed.offset)
                })
                .collect(),
            pending: self.offsets.pending_count(group_id),
        };
        self.groups.iter().map(figures).collect()
    }
}
