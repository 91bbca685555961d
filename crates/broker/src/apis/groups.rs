//! The group APIs: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch,
//! OffsetDelete, DescribeGroups, ListGroups, DeleteGroups, ConsumerGroupHeartbeat,
//! ConsumerGroupDescribe.
//!
//! Nothing is decided here: each request goes to the shard of its group
//! (`oncelog_coordinator::groups` has one method per API), requests that name several groups are
//! split by shard. The first group request makes `__consumer_offsets`.

use crate::apis;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::groups::{self, OFFSETS_TOPIC, View};
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use oncelog_coordinator::groups::{Caller, GroupShard, Outcome, ReplyTo};
use oncelog_wire::messages::{
    DeleteGroupsResponse, DescribeGroupsResponse, ListGroupsResponse, OffsetFetchResponse,
    RequestBody as B, ResponseBody,
};
use std::collections::BTreeMap;

/// What one shard is asked.
type Ask = Box<dyn FnOnce(&mut GroupShard, ReplyTo, &View) -> Outcome>;

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    if !broker.groups.ready() && !prepared.topics_ensured {
        let names = vec![OFFSETS_TOPIC.to_owned()];
        return apis::ensure_topics(broker, connection, request, prepared, names);
    }
    assert!(broker.groups.ready(), "{OFFSETS_TOPIC} was just made");
    let peer = broker.connections.get(connection).map(|c| c.peer.clone());
    let caller = Caller {
        client_id: prepared.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", peer.unwrap_or_default()),
        api_version: prepared.version,
    };
    let (parts, empty) = split(broker, caller, prepared.body);
    groups::ask_many(broker, request, parts, empty);
}

/// Which shards are asked what, and the answer if there is nobody to ask.
fn split(broker: &Broker, caller: Caller, body: B) -> (Vec<(i32, Ask)>, Option<ResponseBody>) {
    macro_rules! one {
        ($ask:ident, $group:expr, $method:ident) => {{
            let shard = broker.groups.shard_of(&$group);
            let ask: Ask = Box::new(move |state, to, view| {
                state.$method(view.now, view.cluster, to, &caller, $ask)
            });
            (vec![(shard, ask)], None)
        }};
    }
    macro_rules! several {
        ($ask:ident, $field:ident, $name:expr, $method:ident, $empty:expr) => {{
            let mut by_shard = BTreeMap::<i32, Vec<_>>::new();
            for group in $ask.$field.clone() {
                let shard = broker.groups.shard_of($name(&group));
                by_shard.entry(shard).or_default().push(group);
            }
            let mut parts = Vec::<(i32, Ask)>::new();
            for (shard, groups) in by_shard {
                let mut ask = $ask.clone();
                ask.$field = groups;
                let caller = caller.clone();
                parts.push((
                    shard,
                    Box::new(move |state, to, view| {
                        state.$method(view.now, view.cluster, to, &caller, ask)
                    }),
                ));
            }
            (parts, Some($empty))
        }};
    }
    match body {
        B::JoinGroup(ask) => one!(ask, ask.group_id, join_group),
        B::SyncGroup(ask) => one!(ask, ask.group_id, sync_group),
        B::Heartbeat(ask) => one!(ask, ask.group_id, heartbeat),
        B::LeaveGroup(ask) => one!(ask, ask.group_id, leave_group),
        B::OffsetCommit(ask) => one!(ask, ask.group_id, offset_commit),
        B::OffsetDelete(ask) => one!(ask, ask.group_id, offset_delete),
        B::ConsumerGroupHeartbeat(ask) => one!(ask, ask.group_id, consumer_group_heartbeat),
        B::OffsetFetch(ask) if caller.api_version < 8 => one!(ask, ask.group_id, offset_fetch),
        B::OffsetFetch(ask) => {
            let empty = ResponseBody::OffsetFetch(OffsetFetchResponse::default());
            let name = |group: &oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestGroup| {
                group.group_id.clone()
            };
            several!(ask, groups, |group| &name(group).clone(), offset_fetch, empty)
        }
        B::DescribeGroups(ask) => {
            let empty = ResponseBody::DescribeGroups(DescribeGroupsResponse::default());
            several!(ask, groups, String::as_str, describe_groups, empty)
        }
        B::DeleteGroups(ask) => {
            let empty = ResponseBody::DeleteGroups(DeleteGroupsResponse::default());
            several!(ask, groups_names, String::as_str, delete_groups, empty)
        }
        B::ConsumerGroupDescribe(ask) => {
            let empty = ResponseBody::ConsumerGroupDescribe(Default::default());
            several!(ask, group_ids, String::as_str, consumer_group_describe, empty)
        }
        B::ListGroups(ask) => {
            let empty = ResponseBody::ListGroups(ListGroupsResponse::default());
            let part = |shard| {
                let (ask, caller) = (ask.clone(), caller.clone());
                let ask: Ask = Box::new(move |state, to, view| {
                    state.list_groups(view.now, view.cluster, to, &caller, ask)
                });
                (shard, ask)
            };
            ((0..broker.groups.shard_count()).map(part).collect(), Some(empty))
        }
        other => panic!("{:?} is served but has no handler", other.api_key()),
    }
}
