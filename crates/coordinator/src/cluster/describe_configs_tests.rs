use super::super::testing::{apply, cluster_with, config};
use super::*;
use oncelog_wire::Writer;
use oncelog_wire::messages::ConfigRecord;

fn record(kind: i8, resource: &str, name: &str, value: &str) -> super::super::MetadataRecord {
    ConfigRecord {
        resource_type: kind,
        resource_name: resource.to_owned(),
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..Default::default()
    }
    .into()
}

fn describe(kind: i8, name: &str, keys: Option<&[&str]>, extras: bool) -> DescribeConfigsResult {
    let mut cluster = cluster_with(&[("t", 1)]);
    apply(
        &mut cluster,
        &[
            record(2, "t", "retention.ms", "10"),
            record(4, "1", "log.retention.ms", "20"),
            record(4, "", "log.retention.ms", "30"),
            record(4, "", "log.roll.ms", "40"),
        ],
    );
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: keys.map(|keys| keys.iter().map(|k| k.to_string()).collect()),
            ..Default::default()
        }],
        include_synonyms: extras,
        include_documentation: extras,
        ..Default::default()
    };
    let config = config(&[("log.retention.hours", "2"), ("broker.rack", "r")]);
    let mut response = cluster.describe_configs(&config, &request);
    for version in DescribeConfigsResponse::MIN_VERSION..=DescribeConfigsResponse::MAX_VERSION {
        response
            .encode(&mut Writer::new(), version)
            .expect("fits the version");
    }
    response.results.remove(0)
}

fn line(entry: &Entry) -> String {
    let value = entry.value.as_deref().unwrap_or("null");
    let synonym = |s: &DescribeConfigsSynonym| {
        format!("{}={}/{}", s.name, s.value.as_deref().unwrap(), s.source)
    };
    let synonyms: Vec<String> = entry.synonyms.iter().map(synonym).collect();
    let read_only = if entry.read_only { " read-only" } else { "" };
    format!(
        "{}={value}/{}{read_only} {}",
        entry.name,
        entry.config_source,
        synonyms.join(" ")
    )
}

fn check(kind: i8, name: &str, keys: Option<&[&str]>, extras: bool, expected: &[&str]) {
    let result = describe(kind, name, keys, extras);
    assert_eq!((result.error_code, &result.error_message), (0, &None));
    let lines: Vec<String> = result.configs.iter().map(line).collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    assert_eq!(lines, expected);
    for entry in &result.configs {
        assert_eq!(entry.documentation.is_some(), extras);
        assert_ne!(entry.config_type, 0);
    }
}

#[test]
fn a_topic() {
    check(
        2,
        "t",
        Some(&[
            "retention.ms",
            "segment.ms",
            "follower.replication.throttled.replicas",
        ]),
        true,
        &[
            "follower.replication.throttled.replicas=/5",
            "retention.ms=10/1 retention.ms=10/1 log.retention.ms=20/2 log.retention.ms=30/3 \
             log.retention.hours=2/4 log.retention.hours=168/5",
            "segment.ms=40/3 log.roll.ms=40/3 log.roll.hours=168/5",
        ],
    );
    check(
        2,
        "t",
        Some(&["retention.ms"]),
        false,
        &["retention.ms=10/1"],
    );
    assert_eq!(describe(2, "t", None, true).configs.len(), TOPIC_KEYS.len());
    assert_eq!(
        describe(2, "t", Some(&[]), true).configs.len(),
        TOPIC_KEYS.len()
    );
}

#[test]
fn a_broker() {
    check(
        4,
        "1",
        Some(&[
            "broker.rack",
            "log.retention.ms",
            "log.retention.hours",
            "log.dirs",
            "node.id",
        ]),
        true,
        &[
            "broker.rack=r/4 read-only broker.rack=r/4",
            "log.dirs=null/5 read-only log.dir=oncelog-data/5",
            "log.retention.hours=2/4 read-only log.retention.hours=2/4 log.retention.hours=168/5",
            "log.retention.ms=20/2 log.retention.ms=20/2 log.retention.ms=30/3 \
             log.retention.hours=2/4 log.retention.hours=168/5",
            "node.id=1/5 read-only node.id=1/5 broker.id=-1/5",
        ],
    );
    assert_eq!(
        describe(4, "1", None, false).configs.len(),
        BROKER_KEYS.len()
    );
}

#[test]
fn all_brokers_and_groups() {
    check(
        4,
        "",
        None,
        true,
        &[
            "log.retention.ms=30/3 log.retention.ms=30/3",
            "log.roll.ms=40/3 log.roll.ms=40/3",
        ],
    );
    check(
        32,
        "g",
        None,
        false,
        &[
            "consumer.heartbeat.interval.ms=5000/5 read-only",
            "consumer.session.timeout.ms=45000/5 read-only",
        ],
    );
    check(16, "m", None, false, &[]);
}

#[test]
fn mistakes() {
    use ErrorCode::*;
    for (kind, name, expected) in [
        (2, "x", UnknownTopicOrPartition),
        (2, "a b", InvalidTopicException),
        (4, "2", InvalidRequest),
        (4, "x", InvalidRequest),
        (8, "1", InvalidRequest),
        (16, "", InvalidRequest),
        (32, "", InvalidRequest),
        (0, "1", InvalidRequest),
    ] {
        let result = describe(kind, name, Option::None, true);
        assert_eq!(result.error_code, expected.code(), "{kind} {name}");
        assert!(result.error_message.is_some() && result.configs.is_empty());
    }
}

#[test]
fn a_resource_is_described_once_and_not_too_many() {
    let cluster = cluster_with(&[("t", 1)]);
    let describe = |times: usize| {
        let ask = DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".to_owned(),
            configuration_keys: None,
            ..Default::default()
        };
        let request = DescribeConfigsRequest {
            resources: vec![ask; times],
            ..Default::default()
        };
        cluster.describe_configs(&config(&[]), &request).results
    };
    assert_eq!(describe(1_000).len(), 1);
    assert_eq!(describe(1_000)[0].error_code, 0);
    let refused = describe(super::super::limits::ITEMS_PER_REQUEST + 1);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].error_code, ErrorCode::InvalidRequest.code());
}
