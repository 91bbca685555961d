//! Where a group or a transactional id lives: each has a coordinator, existing or not.

use oncelog_wire::messages::FindCoordinatorRequest;

use crate::failure::Failure;

use super::{Cluster, check};

/// FindCoordinator's key types.
#[derive(Clone, Copy)]
pub enum Kind {
    Group = 0,
    Transaction = 1,
}

/// The broker that coordinates `key`.
pub fn find(cluster: &mut Cluster<'_>, kind: Kind, key: &str) -> Result<i32, Failure> {
    let request = FindCoordinatorRequest {
        key: key.to_owned(),
        key_type: kind as i8,
        ..FindCoordinatorRequest::default()
    };
    // The first question of a new cluster makes it create its topic, which takes a moment.
    let response = cluster.while_retriable(
        |cluster| cluster.any(&request),
        |response| response.error_code,
    )?;
    let message = response.error_message.as_deref();
    check(response.error_code, message, || {
        let what = match kind {
            Kind::Group => "group",
            Kind::Transaction => "transactional id",
        };
        format!("cannot find the coordinator of {what} {key}")
    })?;
    Ok(response.node_id)
}
