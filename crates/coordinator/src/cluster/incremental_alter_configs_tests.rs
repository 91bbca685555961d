use super::super::testing::{apply, cluster_with, config};
use super::*;
use oncelog_wire::ErrorCode;

/// `(operation, key, value)`
type Change<'a> = (i8, &'a str, Option<&'a str>);

fn resource(kind: i8, name: &str, changes: &[Change]) -> AlterConfigsResource {
    let entry = |(operation, key, value): &Change| AlterableConfig {
        name: key.to_string(),
        config_operation: *operation,
        value: value.map(str::to_owned),
        ..Default::default()
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configs: changes.iter().map(entry).collect(),
        ..Default::default()
    }
}

/// Alters first without, then with effect; the codes are the same.
fn alter(cluster: &mut Cluster, resources: Vec<AlterConfigsResource>) -> Vec<ErrorCode> {
    let config = config(&[("log.retention.hours", "2")]);
    let mut request = IncrementalAlterConfigsRequest {
        resources,
        validate_only: true,
        ..Default::default()
    };
    let (records, validated) = cluster.incremental_alter_configs(&config, &request);
    assert_eq!(records, []);
    request.validate_only = false;
    let (records, response) = cluster.incremental_alter_configs(&config, &request);
    assert_eq!(validated, response);
    for version in
        IncrementalAlterConfigsResponse::MIN_VERSION..=IncrementalAlterConfigsResponse::MAX_VERSION
    {
        response
            .encode(&mut oncelog_wire::Writer::new(), version)
            .expect("fits the version");
    }
    apply(cluster, &records);
    let code = |r: &AlterConfigsResourceResponse| ErrorCode::from_code(r.error_code);
    response.responses.iter().map(code).collect()
}

fn values(cluster: &Cluster, resource: &ConfigResource) -> String {
    let values = cluster.configs.get(resource).into_iter().flatten();
    values
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_four_operations_on_a_topic() {
    let mut cluster = cluster_with(&[("t", 1)]);
    for (changes, expected) in [
        (
            &[
                (SET, "retention.ms", Some("5")),
                (SET, "flush.ms", Some("9")),
            ][..],
            "flush.ms=9 retention.ms=5",
        ),
        (
            &[(DELETE, "flush.ms", None), (DELETE, "segment.ms", None)],
            "retention.ms=5",
        ),
        (&[(DELETE, "retention.ms", Some("ignored"))], ""),
        (
            &[(APPEND, "cleanup.policy", Some("compact"))],
            "cleanup.policy=delete,compact",
        ),
        (
            &[(APPEND, "cleanup.policy", Some("compact,delete"))],
            "cleanup.policy=delete,compact",
        ),
        (
            &[(SUBTRACT, "cleanup.policy", Some("delete"))],
            "cleanup.policy=compact",
        ),
        (
            &[(SUBTRACT, "cleanup.policy", Some("compact"))],
            "cleanup.policy=",
        ),
        (&[(DELETE, "cleanup.policy", None)], ""),
    ] {
        assert_eq!(
            alter(&mut cluster, vec![resource(2, "t", changes)]),
            [ErrorCode::None]
        );
        assert_eq!(values(&cluster, &ConfigResource::topic("t")), expected);
    }
}

#[test]
fn mistakes_in_a_topics_values() {
    use ErrorCode::*;
    for (changes, expected) in [
        (&[(SET, "retention.ms", Some("x"))][..], InvalidConfig),
        (&[(SET, "nope", Some("1"))], InvalidConfig),
        (&[(SET, "compression.type", Some("none"))], InvalidConfig),
        (
            &[
                (SET, "min.compaction.lag.ms", Some("9")),
                (SET, "max.compaction.lag.ms", Some("5")),
            ],
            InvalidConfig,
        ),
        (&[(APPEND, "retention.ms", Some("1"))], InvalidConfig),
        (&[(APPEND, "cleanup.policy", Some("keep"))], InvalidConfig),
        (&[(SET, "retention.ms", Option::None)], InvalidRequest),
        (&[(APPEND, "cleanup.policy", Option::None)], InvalidRequest),
        (&[(9, "retention.ms", Some("1"))], InvalidRequest),
        (
            &[
                (SET, "retention.ms", Some("1")),
                (DELETE, "retention.ms", Option::None),
            ],
            InvalidRequest,
        ),
    ] {
        let mut cluster = cluster_with(&[("t", 1)]);
        assert_eq!(
            alter(&mut cluster, vec![resource(2, "t", changes)]),
            [expected],
            "{changes:?}"
        );
        assert_eq!(values(&cluster, &ConfigResource::topic("t")), "");
    }
}

#[test]
fn lists_cannot_outgrow_a_record() {
    let mut cluster = cluster_with(&[("t", 1)]);
    let key = "leader.replication.throttled.replicas";
    let pairs = |from: u32| {
        (from..from + 3_000)
            .map(|i| format!("{i}:1"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let append = |from: u32| {
        let pairs = pairs(from);
        vec![resource(2, "t", &[(APPEND, key, Some(&pairs))])]
    };
    assert_eq!(alter(&mut cluster, append(0)), [ErrorCode::None]);
    assert_eq!(
        alter(&mut cluster, append(3_000)),
        [ErrorCode::InvalidConfig]
    );
}

#[test]
fn brokers() {
    use ErrorCode::*;
    let set = |key: &'static str, value: &'static str| [(SET, key, Some(value))];
    for (name, changes, expected) in [
        ("1", set("log.retention.ms", "5"), None),
        ("", set("log.flush.interval.messages", "100"), None),
        ("", [(APPEND, "log.cleanup.policy", Some("compact"))], None),
        ("", set("log.retention.hours", "5"), InvalidRequest),
        ("1", set("listeners", "PLAINTEXT://:1"), InvalidRequest),
        ("1", set("num.io.threads", "5"), InvalidRequest),
        ("1", set("nope", "5"), InvalidRequest),
        ("", set("log.retention.ms", "x"), InvalidRequest),
        (
            "",
            set("log.cleaner.max.compaction.lag.ms", "0"),
            InvalidRequest,
        ),
        ("2", set("log.retention.ms", "5"), InvalidRequest),
        ("x", set("log.retention.ms", "5"), InvalidRequest),
        ("01", set("log.retention.ms", "5"), InvalidRequest),
    ] {
        let mut cluster = cluster_with(&[("t", 1)]);
        let got = alter(&mut cluster, vec![resource(4, name, &changes)]);
        assert_eq!(got, [expected], "{name} {changes:?}");
    }
}

#[test]
fn a_brokers_values_reach_its_topics() {
    let mut cluster = cluster_with(&[("t", 1)]);
    let config = config(&[("log.retention.hours", "2")]);
    assert_eq!(cluster.topic_config(&config, "t").retention_ms, 7_200_000);
    for (kind, name, key, value, expected) in [
        (4, "", "log.retention.ms", "30", 30),
        (4, "1", "log.retention.ms", "20", 20),
        (2, "t", "retention.ms", "10", 10),
    ] {
        alter(
            &mut cluster,
            vec![resource(kind, name, &[(SET, key, Some(value))])],
        );
        assert_eq!(cluster.topic_config(&config, "t").retention_ms, expected);
    }
    assert_eq!(cluster.default_topic_config(&config).retention_ms, 20);
}

#[test]
fn resources() {
    use ErrorCode::*;
    let mut cluster = cluster_with(&[("t", 1)]);
    let ask = |kind, name: &str| resource(kind, name, &[(SET, "retention.ms", Some("1"))]);
    let asks = vec![
        ask(2, "x"),
        ask(2, "t"),
        ask(8, "1"),
        ask(16, "m"),
        ask(32, "g"),
        ask(0, "?"),
        ask(7, "?"),
    ];
    let expected = [
        UnknownTopicOrPartition,
        None,
        InvalidRequest,
        InvalidRequest,
        InvalidRequest,
        InvalidRequest,
        InvalidRequest,
    ];
    assert_eq!(alter(&mut cluster, asks), expected);
    assert_eq!(
        values(&cluster, &ConfigResource::topic("t")),
        "retention.ms=1"
    );
    let twice = vec![ask(2, "t"), ask(2, "t")];
    assert_eq!(alter(&mut cluster, twice), [InvalidRequest, InvalidRequest]);
}
