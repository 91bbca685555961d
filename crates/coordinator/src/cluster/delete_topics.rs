//! DeleteTopics (key 20, versions 1-6): topics gone with their partitions and configurations.
//!
//! Behaviour: by name, or from v6 on by id. `delete.topic.enable=false` refuses with
//! TOPIC_DELETION_DISABLED (INVALID_REQUEST before v3).
//!
//! Deviations from Kafka: the broker's own topics are protected (INVALID_TOPIC_EXCEPTION), for
//! the offsets of every group would go with them.

use super::config::BrokerConfig;
use super::record::MetadataRecord;
use super::refusal::{Refusal, code_and_message};
use super::state::{Cluster, TopicState};
use super::topic_name::is_internal;
use oncelog_wire::messages::delete_topics_request::DeleteTopicState;
use oncelog_wire::messages::delete_topics_response::DeletableTopicResult;
use oncelog_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse, RemoveTopicRecord};
use oncelog_wire::{ErrorCode, Uuid};
use std::collections::BTreeMap;

impl Cluster {
    pub fn delete_topics(
        &self,
        config: &BrokerConfig,
        request: &DeleteTopicsRequest,
        version: i16,
    ) -> (Vec<MetadataRecord>, DeleteTopicsResponse) {
        let named = |name: &String| DeleteTopicState {
            name: Some(name.clone()),
            topic_id: Uuid::ZERO,
            ..Default::default()
        };
        let asked: Vec<DeleteTopicState> = match version {
            ..6 => request.topic_names.iter().map(named).collect(),
            _ => request.topics.clone(),
        };
        if let Err(refusal) = Refusal::too_many(asked.len()) {
            let responses = vec![result(&asked[0], &Err(refusal))];
            return (
                Vec::new(),
                DeleteTopicsResponse {
                    responses,
                    ..Default::default()
                },
            );
        }
        let find = |ask: &DeleteTopicState| match config.delete_topic_enable {
            true => self.find_to_delete(ask),
            false => Err(disabled(version)),
        };
        let mut found: Vec<Result<&TopicState, Refusal>> = asked.iter().map(find).collect();
        refuse_repeated(&mut found);
        let record = |topic: &TopicState| RemoveTopicRecord {
            topic_id: topic.id,
            ..Default::default()
        };
        let records = found
            .iter()
            .flatten()
            .map(|topic| record(topic).into())
            .collect();
        let response = DeleteTopicsResponse {
            responses: asked
                .iter()
                .zip(&found)
                .map(|(ask, found)| result(ask, found))
                .collect(),
            ..Default::default()
        };
        (records, response)
    }

    fn find_to_delete(&self, ask: &DeleteTopicState) -> Result<&TopicState, Refusal> {
        let topic = match (&ask.name, ask.topic_id) {
            (Some(name), Uuid::ZERO) => self
                .topics
                .get(name)
                .ok_or_else(|| Refusal::unknown_topic(name))?,
            (None, Uuid::ZERO) => {
                return Err(Refusal::invalid_request(
                    "Neither topic name nor id were specified.",
                ));
            }
            (None, id) => self.topic_by_id(id).ok_or_else(|| {
                let message = format!("There is no topic with id {id}.");
                Refusal::new(ErrorCode::UnknownTopicId, message)
            })?,
            (Some(_), _) => {
                let message = "You may not specify both topic name and topic id.";
                return Err(Refusal::invalid_request(message));
            }
        };
        if is_internal(&topic.name) {
            let message = format!(
                "Topic '{}' is the broker's own and cannot be deleted.",
                topic.name
            );
            return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
        }
        Ok(topic)
    }
}

/// A topic that is named twice, be it once by name and once by id, is not deleted at all.
fn refuse_repeated(found: &mut [Result<&TopicState, Refusal>]) {
    let mut times = BTreeMap::new();
    for topic in found.iter().flatten() {
        *times.entry(topic.id).or_insert(0) += 1;
    }
    for outcome in found {
        if outcome.as_ref().is_ok_and(|topic| times[&topic.id] > 1) {
            *outcome = Err(Refusal::invalid_request("Duplicate topic name."));
        }
    }
}

fn disabled(version: i16) -> Refusal {
    let message = "Topic deletion is disabled (delete.topic.enable=false).";
    let code = match version {
        ..3 => ErrorCode::InvalidRequest,
        _ => ErrorCode::TopicDeletionDisabled,
    };
    Refusal::new(code, message)
}

fn result(ask: &DeleteTopicState, found: &Result<&TopicState, Refusal>) -> DeletableTopicResult {
    let (error_code, error_message) = code_and_message(found);
    let (name, topic_id) = match found {
        Ok(topic) => (Some(topic.name.clone()), topic.id),
        Err(_) => (ask.name.clone(), ask.topic_id),
    };
    DeletableTopicResult {
        name,
        topic_id,
        error_code,
        error_message,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{apply, cluster_with, config};
    use super::*;

    fn check(
        settings: &[(&str, &str)],
        version: i16,
        asks: Vec<DeleteTopicState>,
        expected: &[ErrorCode],
    ) -> Vec<String> {
        let mut cluster = cluster_with(&[("a", 2), ("b", 1), ("__consumer_offsets", 1)]);
        let mut request = DeleteTopicsRequest::default();
        if version < 6 {
            request.topic_names = asks.into_iter().filter_map(|ask| ask.name).collect();
        } else {
            request.topics = asks;
        }
        let (records, response) = cluster.delete_topics(&config(settings), &request, version);
        response
            .encode(&mut oncelog_wire::Writer::new(), version)
            .expect("fits the version");
        let codes: Vec<i16> = response.responses.iter().map(|r| r.error_code).collect();
        let wanted: Vec<i16> = expected.iter().map(|code| code.code()).collect();
        assert_eq!(codes, wanted);
        apply(&mut cluster, &records);
        cluster.topics().map(|topic| topic.name.clone()).collect()
    }

    fn named(name: &str) -> DeleteTopicState {
        let name = Some(name.to_owned());
        DeleteTopicState {
            name,
            ..Default::default()
        }
    }

    #[test]
    fn by_name_and_id() {
        use ErrorCode::{
            InvalidRequest, InvalidTopicException, UnknownTopicId, UnknownTopicOrPartition,
        };
        let id = cluster_with(&[("a", 2)]).topic("a").unwrap().id;
        let by_id = |topic_id| DeleteTopicState {
            name: None,
            topic_id,
            ..Default::default()
        };
        let both = DeleteTopicState {
            topic_id: id,
            ..named("a")
        };
        for (version, asks, expected, left) in [
            (
                1,
                vec![named("a"), named("x")],
                vec![ErrorCode::None, UnknownTopicOrPartition],
                "b",
            ),
            (6, vec![by_id(id)], vec![ErrorCode::None], "b"),
            (6, vec![by_id(Uuid([9; 16]))], vec![UnknownTopicId], "a,b"),
            (6, vec![by_id(Uuid::ZERO)], vec![InvalidRequest], "a,b"),
            (6, vec![both], vec![InvalidRequest], "a,b"),
            (
                6,
                vec![named("a"), by_id(id)],
                vec![InvalidRequest, InvalidRequest],
                "a,b",
            ),
            (
                5,
                vec![named("b"), named("b")],
                vec![InvalidRequest, InvalidRequest],
                "a,b",
            ),
            (
                6,
                vec![named("__consumer_offsets")],
                vec![InvalidTopicException],
                "a,b",
            ),
        ] {
            let names = check(&[], version, asks, &expected);
            assert_eq!(names[1..].join(","), left);
        }
    }

    #[test]
    fn switched_off() {
        let off = [("delete.topic.enable", "false")];
        check(&off, 2, vec![named("a")], &[ErrorCode::InvalidRequest]);
        check(
            &off,
            3,
            vec![named("a")],
            &[ErrorCode::TopicDeletionDisabled],
        );
    }

    #[test]
    fn configurations_go_with_the_topic() {
        let mut cluster = cluster_with(&[("a", 1)]);
        let before = cluster_with(&[]);
        let set = oncelog_wire::messages::ConfigRecord {
            resource_type: 2,
            resource_name: "a".to_owned(),
            name: "retention.ms".to_owned(),
            value: Some("1".to_owned()),
            ..Default::default()
        };
        apply(&mut cluster, &[set.into()]);
        let request = DeleteTopicsRequest {
            topics: vec![named("a")],
            ..Default::default()
        };
        let (records, _) = cluster.delete_topics(&config(&[]), &request, 6);
        apply(&mut cluster, &records);
        assert_eq!(cluster, before);
    }
}
