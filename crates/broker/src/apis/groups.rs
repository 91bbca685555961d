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
use oncelog_coordinator::groups::{GroupShard, offsets};
use oncelog_coordinator::{Caller, Outcome, ReplyTo};
use oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use oncelog_wire::messages::{
    ConsumerGroupDescribeResponse, DeleteGroupsResponse, DescribeGroupsResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetFetchResponse,
};
use oncelog_wire::{RequestBody as B, ResponseBody};
use std::collections::BTreeMap;

/// What one shard is asked.
type Ask = Box<dyn FnOnce(&mut GroupShard, ReplyTo, &View) -> Outcome>;

/// Which shards are asked what, and the answer if there is nobody to ask.
type Parts = (Vec<(i32, Ask)>, Option<ResponseBody>);

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
    let client_id = prepared.client_id.as_deref();
    let caller = caller(broker, connection, client_id, prepared.version);
    let (parts, empty) = split(broker, caller, prepared.body);
    groups::ask_many(broker, request, parts, empty);
}

/// Who asks, as the coordinators want to know it.
pub(crate) fn caller(
    broker: &Broker,
    connection: ConnectionId,
    client_id: Option<&str>,
    api_version: i16,
) -> Caller {
    let peer = broker.connections.get(connection).map(|c| c.peer.clone());
    Caller {
        connection: connection.0,
        client_id: client_id.unwrap_or_default().to_owned(),
        client_host: format!("/{}", peer.unwrap_or_default()),
        api_version,
    }
}

/// Requests of one group; the others are split.
fn split(broker: &Broker, caller: Caller, body: B) -> Parts {
    match body {
        B::JoinGroup(ask) => one(broker, &ask.group_id.clone(), move |state, to, view| {
            state.join_group(view.now, to, &caller, ask)
        }),
        B::SyncGroup(ask) => one(broker, &ask.group_id.clone(), move |state, to, view| {
            state.sync_group(view.now, to, &caller, ask)
        }),
        B::Heartbeat(ask) => one(broker, &ask.group_id.clone(), move |state, to, view| {
            state.heartbeat(view.now, to, &caller, &ask)
        }),
        B::LeaveGroup(ask) => one(broker, &ask.group_id.clone(), move |state, to, view| {
            state.leave_group(view.now, to, &caller, ask)
        }),
        B::OffsetCommit(ask) => one(broker, &ask.group_id.clone(), move |state, to, view| {
            state.offset_commit(view.now, to, &caller, ask, view.cluster)
        }),
        B::OffsetDelete(ask) => one(broker, &ask.group_id.clone(), move |state, to, view| {
            state.offset_delete(to, &ask, view.cluster)
        }),
        B::ConsumerGroupHeartbeat(ask) => {
            one(broker, &ask.group_id.clone(), move |state, to, view| {
                state.consumer_group_heartbeat(view.now, to, &caller, ask, view.cluster)
            })
        }
        body => split_by_group(broker, caller.api_version, body),
    }
}

/// Requests of several groups: each shard is asked for its own.
fn split_by_group(broker: &Broker, version: i16, body: B) -> Parts {
    let itself = |group: &String| group.clone();
    match body {
        B::OffsetFetch(ask) => {
            let stable = ask.require_stable;
            let groups = offsets::fetch::groups(version, ask);
            let name = |group: &OffsetFetchRequestGroup| group.group_id.clone();
            several(broker, groups, name, move |state, to, view, groups| {
                let fetch = |group| state.offset_fetch(version, group, stable, view.cluster);
                let found = groups.iter().map(fetch).collect();
                Outcome::answer(to, offsets::fetch::response(version, found))
            })
            .or(OffsetFetchResponse::default())
        }
        B::DescribeGroups(ask) => {
            let operations = ask.include_authorized_operations;
            several(broker, ask.groups, itself, move |state, to, _, groups| {
                let answer = DescribeGroupsResponse {
                    groups: state.describe_groups(version, &groups, operations),
                    ..Default::default()
                };
                Outcome::answer(to, answer)
            })
            .or(DescribeGroupsResponse::default())
        }
        B::ConsumerGroupDescribe(ask) => {
            let operations = ask.include_authorized_operations;
            several(
                broker,
                ask.group_ids,
                itself,
                move |state, to, view, groups| {
                    let answer = ConsumerGroupDescribeResponse {
                        groups: state.consumer_group_describe(&groups, operations, view.cluster),
                        ..Default::default()
                    };
                    Outcome::answer(to, answer)
                },
            )
            .or(ConsumerGroupDescribeResponse::default())
        }
        B::DeleteGroups(ask) => {
            several(broker, ask.groups_names, itself, |state, to, _, groups| {
                let (mut outcome, results) = state.delete_groups(&groups);
                let answer = DeleteGroupsResponse {
                    results,
                    ..Default::default()
                };
                outcome.reply(to, answer);
                outcome
            })
            .or(DeleteGroupsResponse::default())
        }
        B::ListGroups(ask) => list(broker, &ask),
        other => panic!("{:?} is served but has no handler", other.api_key()),
    }
}

/// Every shard is asked for all that it has.
fn list(broker: &Broker, ask: &ListGroupsRequest) -> Parts {
    let part = |shard| {
        let ask = ask.clone();
        let ask: Ask = Box::new(move |state, to, _| {
            let answer = ListGroupsResponse {
                groups: state.list_groups(&ask),
                ..Default::default()
            };
            Outcome::answer(to, answer)
        });
        (shard, ask)
    };
    let parts = (0..broker.groups.shard_count()).map(part).collect();
    (parts, Some(ListGroupsResponse::default().into()))
}

fn one(
    broker: &Broker,
    group: &str,
    ask: impl FnOnce(&mut GroupShard, ReplyTo, &View) -> Outcome + 'static,
) -> Parts {
    (vec![(broker.groups.shard_of(group), Box::new(ask))], None)
}

/// Splits a list that names groups by the shards of those groups.
fn several<T: 'static>(
    broker: &Broker,
    items: Vec<T>,
    group: impl Fn(&T) -> String,
    ask: impl Fn(&mut GroupShard, ReplyTo, &View, Vec<T>) -> Outcome + Clone + 'static,
) -> Several {
    let mut by_shard = BTreeMap::<i32, Vec<T>>::new();
    for item in items {
        let shard = broker.groups.shard_of(&group(&item));
        by_shard.entry(shard).or_default().push(item);
    }
    let part = |(shard, items)| {
        let ask = ask.clone();
        let ask: Ask = Box::new(move |state, to, view| ask(state, to, view, items));
        (shard, ask)
    };
    Several(by_shard.into_iter().map(part).collect())
}

struct Several(Vec<(i32, Ask)>);

impl Several {
    /// The answer if no group was named at all.
    fn or(self, empty: impl Into<ResponseBody>) -> Parts {
        (self.0, Some(empty.into()))
    }
}
