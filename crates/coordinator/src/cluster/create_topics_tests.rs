use super::super::testing::{apply, cluster_with, config};
use super::*;
use oncelog_wire::Writer;
use oncelog_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopicConfig,
};

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor,
        ..Default::default()
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(partition_index, ids): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: ids.to_vec(),
        ..Default::default()
    };
    CreatableTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..topic(name, -1, -1)
    }
}

fn with_config(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: name.to_string(),
        value: value.map(str::to_owned),
        ..Default::default()
    };
    CreatableTopic {
        configs: configs.iter().map(config).collect(),
        ..topic(name, 1, 1)
    }
}

/// Creates on a cluster that has a topic `exists.here`; checks the codes, and that the answer fits
/// every version. Returns what there is afterwards, and the answer.
fn check(asks: Vec<CreatableTopic>, expected: &[ErrorCode]) -> (Cluster, CreateTopicsResponse) {
    let mut cluster = cluster_with(&[("exists.here", 1)]);
    let request = CreateTopicsRequest {
        topics: asks,
        ..Default::default()
    };
    let config = config(&[("num.partitions", "4")]);
    let (records, response) = cluster.create_topics(&config, &request, &mut Seed::new(7));
    let codes: Vec<ErrorCode> = response
        .topics
        .iter()
        .map(|t| ErrorCode::from_code(t.error_code))
        .collect();
    assert_eq!(codes, expected, "{:?}", response.topics);
    for topic in &response.topics {
        assert_eq!(topic.error_message.is_some(), topic.error_code != 0);
    }
    for version in CreateTopicsResponse::MIN_VERSION..=CreateTopicsResponse::MAX_VERSION {
        response
            .encode(&mut Writer::new(), version)
            .expect("fits the version");
    }
    apply(&mut cluster, &records);

    let only_validate = CreateTopicsRequest {
        validate_only: true,
        ..request
    };
    let before = cluster_with(&[("exists.here", 1)]);
    let (records, validated) = before.create_topics(&config, &only_validate, &mut Seed::new(7));
    assert_eq!(records, []);
    let codes: Vec<i16> = validated.topics.iter().map(|t| t.error_code).collect();
    assert_eq!(
        codes,
        response
            .topics
            .iter()
            .map(|t| t.error_code)
            .collect::<Vec<_>>()
    );
    assert!(validated.topics.iter().all(|t| t.topic_id.is_zero()));
    (cluster, response)
}

#[test]
fn a_topic_is_made_as_asked() {
    let ask = with_config("a", &[("retention.ms", Some("1000"))]);
    let (cluster, response) = check(vec![ask], &[ErrorCode::None]);
    let made = cluster.topic("a").expect("made");
    let answer = &response.topics[0];
    assert_eq!((answer.num_partitions, answer.replication_factor), (1, 1));
    assert_eq!(answer.topic_id, made.id);
    let state = &made.partitions[0];
    assert_eq!(
        (&state.replicas[..], &state.isr[..], state.leader),
        (&[1][..], &[1][..], 1)
    );
    assert_eq!((state.leader_epoch, state.partition_epoch), (0, 0));
    assert_eq!(cluster.topic_config(&config(&[]), "a").retention_ms, 1000);

    let configs = answer.configs.as_ref().expect("told from version 5 on");
    assert_eq!(configs.len(), TOPIC_KEYS.len());
    let of = |name: &str| configs.iter().find(|config| config.name == name).unwrap();
    assert_eq!(
        (
            of("retention.ms").value.as_deref(),
            of("retention.ms").config_source
        ),
        (Some("1000"), 1)
    );
    assert_eq!(
        (
            of("flush.messages").value.as_deref(),
            of("flush.messages").config_source
        ),
        (Some("1"), 5)
    );
}

#[test]
fn defaults_and_assignments() {
    let (cluster, _) = check(vec![topic("a", -1, -1)], &[ErrorCode::None]);
    assert_eq!(cluster.topic("a").unwrap().partitions.len(), 4);
    let (cluster, _) = check(
        vec![assigned("a", &[(1, &[1]), (0, &[1])])],
        &[ErrorCode::None],
    );
    assert_eq!(cluster.topic("a").unwrap().partitions.len(), 2);
}

#[test]
fn refusals() {
    use ErrorCode::*;
    for (ask, expected) in [
        (topic("", 1, 1), InvalidTopicException),
        (topic("a b", 1, 1), InvalidTopicException),
        (topic("exists_here", 1, 1), InvalidTopicException),
        (topic("__consumer_offsets", 1, 1), InvalidTopicException),
        (topic("__cluster_metadata", 1, 1), InvalidTopicException),
        (topic("exists.here", 1, 1), TopicAlreadyExists),
        (topic("a", 0, 1), InvalidPartitions),
        (topic("a", -2, 1), InvalidPartitions),
        (topic("a", i32::MAX, 1), PolicyViolation),
        (topic("a", 1, 0), InvalidReplicationFactor),
        (topic("a", 1, -2), InvalidReplicationFactor),
        (topic("a", 1, 2), InvalidReplicationFactor),
        (topic("a", 1, i16::MAX), InvalidReplicationFactor),
        (assigned("a", &[(0, &[])]), InvalidReplicaAssignment),
        (assigned("a", &[(0, &[2])]), InvalidReplicaAssignment),
        (assigned("a", &[(0, &[1, 1])]), InvalidReplicaAssignment),
        (
            assigned("a", &[(0, &[1]), (0, &[1])]),
            InvalidReplicaAssignment,
        ),
        (assigned("a", &[(1, &[1])]), InvalidReplicaAssignment),
        (
            assigned("a", &[(-1, &[1]), (0, &[1])]),
            InvalidReplicaAssignment,
        ),
        (
            CreatableTopic {
                num_partitions: 1,
                ..assigned("a", &[(0, &[1])])
            },
            InvalidRequest,
        ),
        (
            CreatableTopic {
                replication_factor: 1,
                ..assigned("a", &[(0, &[1])])
            },
            InvalidRequest,
        ),
        (
            with_config("a", &[("retention.ms", Option::None)]),
            InvalidConfig,
        ),
        (
            with_config("a", &[("retention.ms", Some("x"))]),
            InvalidConfig,
        ),
        (with_config("a", &[("nope", Some("x"))]), InvalidConfig),
        (
            with_config("a", &[("compression.type", Some("none"))]),
            InvalidConfig,
        ),
    ] {
        let (cluster, _) = check(vec![ask], &[expected]);
        assert_eq!(cluster.topics().count(), 1);
    }
}

#[test]
fn topics_of_one_request() {
    use ErrorCode::*;
    let asks = vec![topic("a", 1, 1), topic("b", 0, 1), topic("c", 1, 1)];
    let (cluster, _) = check(asks, &[None, InvalidPartitions, None]);
    assert_eq!(cluster.topics().count(), 3);
    check(
        vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1)],
        &[InvalidRequest, None],
    );
    check(
        vec![topic("a.b", 1, 1), topic("a_b", 1, 1)],
        &[None, InvalidTopicException],
    );
    check(
        vec![
            topic("a", 6_000, 1),
            topic("b", 6_000, 1),
            topic("c", 4_000, 1),
        ],
        &[None, PolicyViolation, None],
    );
}

#[test]
fn ids_follow_the_seed() {
    let ids = |seed| {
        let request = CreateTopicsRequest {
            topics: vec![topic("a", 1, 1), topic("b", 1, 1)],
            ..Default::default()
        };
        let (_, response) =
            cluster_with(&[]).create_topics(&config(&[]), &request, &mut Seed::new(seed));
        response
            .topics
            .iter()
            .map(|topic| topic.topic_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
    assert_ne!(ids(1)[0], ids(1)[1]);
}

#[test]
fn a_request_that_names_too_much_is_refused_as_a_whole() {
    let too_many = super::super::limits::ITEMS_PER_REQUEST + 1;
    check(
        vec![topic("a", 1, 1); too_many],
        &[ErrorCode::InvalidRequest],
    );
}
