//! CreatePartitions (key 37, versions 0-3): more partitions for topics that exist.
//!
//! Behaviour: the count must grow; new partitions get as many replicas as the topic's first.
//!
//! Deviations from Kafka: the broker's own topics keep their count, for groups are found by
//! hashing over it.

use super::create_topics::Taken;
use super::placement::new_partition;
use super::record::MetadataRecord;
use super::refusal::{Refusal, code_and_message};
use super::repeated::repeated;
use super::state::Cluster;
use super::topic_name::is_internal;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::create_partitions_request::CreatePartitionsTopic;
use oncelog_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use oncelog_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

impl Cluster {
    pub fn create_partitions(
        &self,
        request: &CreatePartitionsRequest,
    ) -> (Vec<MetadataRecord>, CreatePartitionsResponse) {
        let mut records = Vec::new();
        let mut response = CreatePartitionsResponse::default();
        let mut answer = |name: &str, outcome: &Result<(), Refusal>| {
            let (error_code, error_message) = code_and_message(outcome);
            response.results.push(CreatePartitionsTopicResult {
                name: name.to_owned(),
                error_code,
                error_message,
                ..Default::default()
            });
        };
        if let Err(refusal) = Refusal::too_many(request.topics.len()) {
            answer(&request.topics[0].name, &Err(refusal));
            return (records, response);
        }
        let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        for name in &repeated {
            answer(
                name,
                &Err(Refusal::invalid_request("Duplicate topic name.")),
            );
        }
        for topic in request
            .topics
            .iter()
            .filter(|t| !repeated.contains(t.name.as_str()))
        {
            let planned = self.plan_growth(topic, records.len());
            let outcome = planned.map(|planned| records.extend(planned));
            answer(&topic.name, &outcome);
        }
        if request.validate_only {
            records.clear();
        }
        (records, response)
    }

    /// `before`: partitions that the same request has been given already.
    fn plan_growth(
        &self,
        ask: &CreatePartitionsTopic,
        before: usize,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let topic = self
            .topics
            .get(&ask.name)
            .ok_or_else(|| Refusal::unknown_topic(&ask.name))?;
        if is_internal(&topic.name) {
            let message = format!(
                "Topic '{}' is the broker's own and keeps its partitions.",
                topic.name
            );
            return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
        }
        let has = topic.partitions.len();
        let wanted = usize::try_from(ask.count).unwrap_or(0);
        if wanted <= has {
            let message = match wanted == has {
                true => format!("Topic already has {has} partition(s)."),
                false => format!(
                    "The topic {} currently has {has} partition(s); {} would not be an increase.",
                    ask.name, ask.count
                ),
            };
            return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
        }
        let more = wanted - has;
        Taken::default().check_partitions(before.saturating_add(more))?;
        let factor = topic
            .partitions
            .first()
            .map_or(1, |first| first.replicas.len());
        let replicas = match &ask.assignments {
            None => self.place(has, wanted, factor as i16)?,
            Some(given) => {
                if given.len() != more {
                    let message = format!(
                        "Attempted to add {more} additional partition(s), but {} assignment(s) \
                         were specified.",
                        given.len()
                    );
                    return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
                }
                for assignment in given {
                    self.check_assignment(&assignment.broker_ids, Some(factor))?;
                }
                given
                    .iter()
                    .map(|assignment| assignment.broker_ids.clone())
                    .collect()
            }
        };
        let indexed = (has..wanted).zip(replicas);
        Ok(indexed
            .map(|(index, replicas)| new_partition(topic.id, index, replicas))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{apply, cluster_with};
    use super::*;
    use oncelog_wire::messages::create_partitions_request::CreatePartitionsAssignment;

    fn topic(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
        let assignment = |ids: &&[i32]| CreatePartitionsAssignment {
            broker_ids: ids.to_vec(),
            ..Default::default()
        };
        CreatePartitionsTopic {
            name: name.to_owned(),
            count,
            assignments: assignments.map(|all| all.iter().map(assignment).collect()),
            ..Default::default()
        }
    }

    fn check(asks: Vec<CreatePartitionsTopic>, expected: &[ErrorCode], partitions: usize) {
        for validate_only in [true, false] {
            let mut cluster = cluster_with(&[("a", 2), ("__consumer_offsets", 1)]);
            let request = CreatePartitionsRequest {
                topics: asks.clone(),
                validate_only,
                ..Default::default()
            };
            let (records, response) = cluster.create_partitions(&request);
            for version in
                CreatePartitionsResponse::MIN_VERSION..=CreatePartitionsResponse::MAX_VERSION
            {
                response
                    .encode(&mut oncelog_wire::Writer::new(), version)
                    .expect("fits the version");
            }
            let codes: Vec<i16> = response.results.iter().map(|r| r.error_code).collect();
            let wanted: Vec<i16> = expected.iter().map(|code| code.code()).collect();
            assert_eq!(codes, wanted);
            apply(&mut cluster, &records);
            let has = cluster.topic("a").unwrap().partitions.len();
            assert_eq!(has, if validate_only { 2 } else { partitions });
        }
    }

    #[test]
    fn growth() {
        use ErrorCode::{
            InvalidPartitions, InvalidReplicaAssignment, InvalidRequest, InvalidTopicException,
            PolicyViolation, UnknownTopicOrPartition,
        };
        let ok = ErrorCode::None;
        check(vec![topic("a", 5, None)], &[ok], 5);
        check(vec![topic("a", 3, Some(&[&[1]]))], &[ok], 3);
        check(vec![topic("a", 2, None)], &[InvalidPartitions], 2);
        check(vec![topic("a", 1, None)], &[InvalidPartitions], 2);
        check(vec![topic("a", -1, None)], &[InvalidPartitions], 2);
        check(vec![topic("a", i32::MAX, None)], &[PolicyViolation], 2);
        check(vec![topic("x", 3, None)], &[UnknownTopicOrPartition], 2);
        check(
            vec![topic("a", 3, None), topic("a", 4, None)],
            &[InvalidRequest],
            2,
        );
        check(
            vec![topic("__consumer_offsets", 3, None)],
            &[InvalidTopicException],
            2,
        );
        for assignments in [&[&[1][..], &[1]][..], &[&[]], &[&[2]], &[&[1, 1]], &[]] {
            check(
                vec![topic("a", 3, Some(assignments))],
                &[InvalidReplicaAssignment],
                2,
            );
        }
    }
}
