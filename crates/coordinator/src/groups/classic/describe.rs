//! DescribeGroups, API key 15, versions 0-6: one classic group as operators see it.

use super::group::{ClassicGroup, State};
use oncelog_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};

impl ClassicGroup {
    /// Protocol and subscriptions are those of a stable group; while it rebalances they are left
    /// out.
    pub(crate) fn describe(&self, group_id: &str) -> DescribedGroup {
        let stable = self.state == State::Stable;
        let protocol = self
            .protocol
            .as_deref()
            .filter(|_| stable)
            .unwrap_or_default();
        let members = self
            .members
            .iter()
            .map(|(member_id, member)| DescribedGroupMember {
                member_id: member_id.clone(),
                group_instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                member_metadata: match stable {
                    true => member.metadata(protocol),
                    false => Default::default(),
                },
                member_assignment: member.assignment.clone(),
                ..Default::default()
            });
        DescribedGroup {
            group_id: group_id.to_owned(),
            group_state: self.state.name().to_owned(),
            protocol_type: self.protocol_type().unwrap_or_default().to_owned(),
            protocol_data: protocol.to_owned(),
            members: members.collect(),
            ..Default::default()
        }
    }
}
