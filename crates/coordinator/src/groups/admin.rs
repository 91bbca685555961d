//! What operators ask: DescribeGroups (15), ListGroups (16), DeleteGroups (42).
//!
//! Each method gives this shard's part; the broker puts the parts of all shards together.
//!
//! - DescribeGroups 0-6: a group that does not exist, or that is not a classic one, is `Dead`;
//!   from version 6 (KIP-1043) with GROUP_ID_NOT_FOUND and a message.
//! - ListGroups 0-5: filters by state (KIP-518) and type (KIP-848), letter case ignored. An
//!   unknown name in a filter matches nothing.
//! - DeleteGroups 0-2: tombstones for the group and each of its offsets, also those that are
//!   pending in transactions: these do not keep a group without members, as in Kafka.

use super::GroupShard;
use super::classic::State;
use super::group::Group;
use super::records;
use crate::Outcome;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::ListGroupsRequest;
use oncelog_wire::messages::delete_groups_response::DeletableGroupResult;
use oncelog_wire::messages::describe_groups_response::DescribedGroup;
use oncelog_wire::messages::list_groups_response::ListedGroup;

/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS, as bits by Kafka's operation
/// codes: what anybody may do with a group on a cluster without access control.
pub(super) const ALL_GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

impl GroupShard {
    /// In the order of `group_ids`. `operations`: the request asks for authorized operations.
    pub fn describe_groups(
        &self,
        api_version: i16,
        group_ids: &[String],
        operations: bool,
    ) -> Vec<DescribedGroup> {
        self.assert_loaded();
        let describe = |group_id: &String| {
            let mut described = match self.groups.get(group_id) {
                Some(Group::Classic(group)) => group.describe(group_id),
                Some(Group::Consumer(_)) => {
                    let message = format!("Group {group_id} is not a classic group.");
                    not_found(api_version, group_id, message)
                }
                None => {
                    let message = format!("Group {group_id} not found.");
                    not_found(api_version, group_id, message)
                }
            };
            if operations && described.error_code == ErrorCode::None.code() {
                described.authorized_operations = ALL_GROUP_OPERATIONS;
            }
            described
        };
        group_ids.iter().map(describe).collect()
    }

    pub fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        self.assert_loaded();
        let matches = |filter: &[String], name: &str| {
            filter.is_empty()
                || filter
                    .iter()
                    .any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let wanted = self.groups.iter().filter(|(_, group)| {
            matches(&request.states_filter, group.state_name())
                && matches(&request.types_filter, group.kind())
        });
        wanted
            .map(|(group_id, group)| group.listed(group_id))
            .collect()
    }

    /// The results in the order of `group_ids`.
    pub fn delete_groups(&mut self, group_ids: &[String]) -> (Outcome, Vec<DeletableGroupResult>) {
        self.assert_loaded();
        let mut out = Outcome::default();
        let mut results = Vec::new();
        for group_id in group_ids {
            let error = match self.groups.get(group_id) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) => match group.may_be_deleted() {
                    Err(error) => error,
                    Ok(()) => {
                        for (topic, partition) in self.offsets.places_of(group_id) {
                            out.records
                                .push(records::offset_tombstone(group_id, topic, partition));
                        }
                        group.bury(group_id, &mut out.records);
                        out.log.push(format!("group {group_id}: deleted"));
                        ErrorCode::None
                    }
                },
            };
            results.push(DeletableGroupResult {
                group_id: group_id.clone(),
                error_code: error.code(),
                ..Default::default()
            });
        }
        (out, results)
    }
}

fn not_found(api_version: i16, group_id: &str, message: String) -> DescribedGroup {
    let mut described = DescribedGroup {
        group_id: group_id.to_owned(),
        group_state: State::Dead.name().to_owned(),
        ..Default::default()
    };
    if api_version >= 6 {
        described.error_code = ErrorCode::GroupIdNotFound.code();
        described.error_message = Some(message);
    }
    described
}
