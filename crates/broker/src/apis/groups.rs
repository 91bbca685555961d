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
use oncelog_wire::messages::{
    ConsumerGroupDescribeResponse, DeleteGroupsResponse, DescribeGroupsResponse,
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
    let peer = broker.connections.get(connection).map(|c| c.peer.clone());
    let caller = Caller {
        client_id: prepared.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", peer.unwrap_or_default()),
        api_version: prepared.version,
    };
    let (parts, empty) = split(broker, caller, prepared.body);
    groups::ask_many(broker, request, parts, empty);
}

fn split(broker: &Broker, caller: Caller, body: B) -> Parts {
    let version = caller.api_version;
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
        B::OffsetFetch(ask) => {
            let groups = offsets::fetch::groups(version, ask);
            let parts = by_shard(
                broker,
                groups,
                |group| &group.group_id,
                move |groups| {
                    Box::new(move |state, to, view| {
                        let fetch = |group| state.offset_fetch(version, group, view.cluster);
                        let found = groups.iter().map(fetch).collect();
                        Outcome::answer(to, offsets::fetch::response(version, found))
                    })
                },
            );
            (parts, Some(OffsetFetchResponse::default().into()))
        }
        B::DescribeGroups(ask) => {
            let operations = ask.include_authorized_operations;
            let parts = by_shard(
                broker,
                ask.groups,
                |group| group,
                move |groups| {
                    Box::new(move |state, to, _| {
                        let answer = DescribeGroupsResponse {
                            groups: state.describe_groups(version, &groups, operations),
                            ..Default::default()
                        };
                        Outcome::answer(to, answer)
                    })
                },
            );
            (parts, Some(DescribeGroupsResponse::default().into()))
        }
        B::ConsumerGroupDescribe(ask) => {
            let operations = ask.include_authorized_operations;
            let parts = by_shard(
                broker,
                ask.group_ids,
                |group| group,
                move |groups| {
                    Box::new(move |state, to, view| {
                        let answer = ConsumerGroupDescribeResponse {
                            groups: state.consumer_group_describe(
                                &groups,
                                operations,
                                view.cluster,
                            ),
                            ..Default::default()
                        };
                        Outcome::answer(to, answer)
                    })
                },
            );
            (parts, Some(ConsumerGroupDescribeResponse::default().into()))
        }
        B::DeleteGroups(ask) => {
            let parts = by_shard(
                broker,
                ask.groups_names,
                |group| group,
                |groups| {
                    Box::new(move |state, to, _| {
                        let (mut outcome, results) = state.delete_groups(&groups);
                        let answer = DeleteGroupsResponse {
                            results,
                            ..Default::default()
                        };
                        outcome.reply(to, answer);
                        outcome
                    })
                },
            );
            (parts, Some(DeleteGroupsResponse::default().into()))
        }
        B::ListGroups(ask) => {
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
        other => panic!("{:?} is served but has no handler", other.api_key()),
    }
}

fn one(
    broker: &Broker,
    group: &str,
    ask: impl FnOnce(&mut GroupShard, ReplyTo, &View) -> Outcome + 'static,
) -> Parts {
    (vec![(broker.groups.shard_of(group), Box::new(ask))], None)
}

/// Splits a list that names groups by the shards of those groups.
fn by_shard<T>(
    broker: &Broker,
    items: Vec<T>,
    group: impl Fn(&T) -> &String,
    ask: impl Fn(Vec<T>) -> Ask,
) -> Vec<(i32, Ask)> {
    let mut by_shard = BTreeMap::<i32, Vec<T>>::new();
    for item in items {
        let shard = broker.groups.shard_of(group(&item));
        by_shard.entry(shard).or_default().push(item);
    }
    by_shard
        .into_iter()
        .map(|(shard, items)| (shard, ask(items)))
        .collect()
}
