use super::super::testing::{apply, cluster_with};
use super::*;
use oncelog_wire::Writer;
use oncelog_wire::messages::PartitionChangeRecord;

fn cluster() -> Cluster {
    cluster_with(&[("a", 2), ("b", 1), ("__consumer_offsets", 1)])
}

fn ask(name: Option<&str>, id: Uuid) -> MetadataRequestTopic {
    MetadataRequestTopic {
        topic_id: id,
        name: name.map(str::to_owned),
        ..Default::default()
    }
}

fn named(name: &str) -> MetadataRequestTopic {
    ask(Some(name), Uuid::ZERO)
}

fn answer(cluster: &Cluster, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let response = cluster.metadata_response(request, version, "PLAINTEXT");
    response
        .encode(&mut Writer::new(), version)
        .expect("fits the version");
    response
}

/// The topics of the answer as `name:partitions` or `name!code`.
fn check(version: i16, topics: Option<Vec<MetadataRequestTopic>>, expected: &str) {
    let request = MetadataRequest {
        topics,
        ..Default::default()
    };
    let response = answer(&cluster(), &request, version);
    let show = |topic: &MetadataResponseTopic| {
        let name = topic.name.as_deref().unwrap_or("null");
        match topic.error_code {
            0 => format!("{name}:{}", topic.partitions.len()),
            code => format!("{name}!{code}"),
        }
    };
    assert_eq!(
        response
            .topics
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" "),
        expected
    );
}

#[test]
fn which_topics() {
    let all = "__consumer_offsets:1 a:2 b:1";
    check(0, Some(vec![]), all);
    check(1, Some(vec![]), "");
    check(1, None, all);
    check(13, None, all);
    for version in [0, 1, 9, 13] {
        check(
            version,
            Some(vec![named("b"), named("x"), named("b")]),
            "b:1 x!3",
        );
        check(version, Some(vec![named("a b")]), "a b!17");
    }
    let id = cluster().topic("a").unwrap().id;
    for version in [12, 13] {
        check(
            version,
            Some(vec![ask(None, id), ask(None, Uuid([9; 16]))]),
            "a:2 null!100",
        );
        check(version, Some(vec![ask(None, Uuid::ZERO)]), "null!42");
    }
    for version in [10, 11] {
        check(version, Some(vec![ask(None, id), named("b")]), "!42 b!42");
    }
}

#[test]
fn what_is_told() {
    let request = MetadataRequest {
        topics: Some(vec![named("a"), named("__consumer_offsets")]),
        ..Default::default()
    };
    for version in MetadataResponse::MIN_VERSION..=MetadataResponse::MAX_VERSION {
        let response = answer(&cluster(), &request, version);
        let [broker] = &response.brokers[..] else {
            panic!("{:?}", response.brokers)
        };
        assert_eq!(
            (broker.node_id, broker.host.as_str(), broker.port),
            (1, "localhost", 9092)
        );
        assert_eq!(
            (response.cluster_id.as_deref(), response.controller_id),
            (Some("test-cluster"), 1)
        );
        let internal: Vec<bool> = response
            .topics
            .iter()
            .map(|topic| topic.is_internal)
            .collect();
        assert_eq!(internal, [false, true]);
        let partition = &response.topics[0].partitions[1];
        assert_eq!(
            (
                partition.partition_index,
                partition.leader_id,
                partition.leader_epoch
            ),
            (1, 1, 0)
        );
        assert_eq!(
            (&partition.replica_nodes[..], &partition.isr_nodes[..]),
            (&[1][..], &[1][..])
        );
        assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
    }
}

#[test]
fn operations_when_asked() {
    let request = MetadataRequest {
        topics: Some(vec![named("a"), named("x")]),
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    for (version, topic, cluster_wide) in [
        (7, i32::MIN, i32::MIN),
        (8, 3576, 8096),
        (10, 3576, 8096),
        (11, 3576, i32::MIN),
        (13, 3576, i32::MIN),
    ] {
        let response = answer(&cluster(), &request, version);
        assert_eq!(response.topics[0].topic_authorized_operations, topic);
        assert_eq!(response.topics[1].topic_authorized_operations, i32::MIN);
        assert_eq!(response.cluster_authorized_operations, cluster_wide);
    }
}

#[test]
fn a_partition_without_a_leader() {
    let mut cluster = cluster();
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: cluster.topic("a").unwrap().id,
        leader: 5,
        replicas: Some(vec![5, 1]),
        ..Default::default()
    };
    apply(&mut cluster, &[change.into()]);
    let request = MetadataRequest {
        topics: Some(vec![named("a")]),
        ..Default::default()
    };
    let response = answer(&cluster, &request, 13);
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id), (5, -1));
    assert_eq!(
        (partition.leader_epoch, &partition.offline_replicas[..]),
        (1, &[5][..])
    );
}

#[test]
fn a_listener_that_no_broker_has() {
    let response = cluster().metadata_response(&MetadataRequest::default(), 9, "OTHER");
    assert_eq!(response.brokers, []);
}

/// However often and by whatever name a topic is asked for, it is described once.
#[test]
fn an_id_counts_once_whatever_name_stands_beside_it() {
    let id = cluster().topic("a").unwrap().id;
    check(
        12,
        Some(vec![ask(Some("x"), id), ask(Some("y"), id), ask(None, id)]),
        "a:2",
    );
}
