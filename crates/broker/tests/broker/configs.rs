//! Configurations: described, altered in both ways, and in force on running partitions.

use crate::host::{Host, start};
use crate::requests::*;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::describe_configs_request::DescribeConfigsResource;
use oncelog_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    FetchResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListConfigResourcesRequest, ListConfigResourcesResponse, alter_configs_request,
    incremental_alter_configs_request as incremental,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

fn alter(
    host: &mut Host,
    version: i16,
    resource: (i8, &str),
    changes: &[(&str, i8, Option<&str>)],
) -> ErrorCode {
    let change =
        |(name, operation, value): &(&str, i8, Option<&str>)| incremental::AlterableConfig {
            name: (*name).to_owned(),
            config_operation: *operation,
            value: value.map(str::to_owned),
            ..Default::default()
        };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: resource.0,
            resource_name: resource.1.to_owned(),
            configs: changes.iter().map(change).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer: IncrementalAlterConfigsResponse = host.ask(version, request);
    code(answer.responses[0].error_code)
}

fn set(host: &mut Host, topic: &str, name: &str, value: &str) {
    let done = alter(host, 1, (TOPIC, topic), &[(name, SET, Some(value))]);
    assert_eq!(done, ErrorCode::None);
}

/// Value and source of a topic's configuration.
fn described(host: &mut Host, version: i16, topic: &str, name: &str) -> (Option<String>, i8) {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.to_owned(),
            configuration_keys: Some(vec![name.to_owned()]),
            ..Default::default()
        }],
        include_synonyms: true,
        ..Default::default()
    };
    let answer: DescribeConfigsResponse = host.ask(version, request);
    let result = &answer.results[0];
    assert_eq!(code(result.error_code), ErrorCode::None, "{result:?}");
    let config = &result.configs[0];
    (config.value.clone(), config.config_source)
}

#[test]
fn configs_are_described_in_every_version() {
    let mut host = start(&[]);
    Topic::with(&mut host, "t", 1, &[("retention.ms", "1234")]);
    for version in 1..=4 {
        let (value, source) = described(&mut host, version, "t", "retention.ms");
        assert_eq!((value.as_deref(), source), (Some("1234"), 1));
        let (value, source) = described(&mut host, version, "t", "max.message.bytes");
        assert_eq!((value.as_deref(), source), (Some("1048588"), 5));
        let request = DescribeConfigsRequest {
            resources: [
                (TOPIC, "t"),
                (BROKER, "1"),
                (TOPIC, "no"),
                (TOPIC, "a b"),
                (99, "x"),
            ]
            .map(|(resource_type, name)| DescribeConfigsResource {
                resource_type,
                resource_name: name.to_owned(),
                configuration_keys: None,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
        let answer: DescribeConfigsResponse = host.ask(version, request);
        let counts: Vec<_> = answer.results.iter().map(|r| r.configs.len()).collect();
        assert!(counts[0] > 20 && counts[1] > 50, "{counts:?}");
        let errors: Vec<_> = answer.results.iter().map(|r| code(r.error_code)).collect();
        assert_eq!(
            errors[..3],
            [
                ErrorCode::None,
                ErrorCode::None,
                ErrorCode::UnknownTopicOrPartition,
            ]
        );
        assert_ne!(errors[3], ErrorCode::None);
        assert_ne!(errors[4], ErrorCode::None);
    }
}

#[test]
fn max_message_bytes_holds_from_the_next_append_on() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    for index in 0..2 {
        produced(&mut host, &topic, index, large_batch(2_000));
    }
    set(&mut host, "t", "max.message.bytes", "1000");
    for index in 0..2 {
        let large = produce(&mut host, &topic, index, large_batch(2_000));
        assert_eq!(code(large.error_code), ErrorCode::MessageTooLarge);
    }
    let undone = alter(
        &mut host,
        0,
        (TOPIC, "t"),
        &[("max.message.bytes", DELETE, None)],
    );
    assert_eq!(undone, ErrorCode::None);
    produced(&mut host, &topic, 0, large_batch(2_000));
    set(&mut host, "t", "max.message.bytes", "1000");
    let mut host = host.crash(4);
    let large = produce(&mut host, &topic, 1, large_batch(2_000));
    assert_eq!(
        code(large.error_code),
        ErrorCode::MessageTooLarge,
        "after a crash too"
    );
}

#[test]
fn retention_takes_effect_on_what_is_there() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &[("segment.bytes", "1048576")]);
    for _ in 0..5 {
        produced(&mut host, &topic, 0, large_batch(500_000));
    }
    host.pass_ms(3_600_000);
    assert_eq!(
        fetched(&mut host, &topic, 0, 0)[0].0,
        0,
        "seven days are not over"
    );
    set(&mut host, "t", "retention.ms", "60000");
    host.pass_ms(400_000);
    let answer: FetchResponse = host.ask(12, fetch_request(&topic, 12, &[(0, 0)]));
    let part = parts(&answer)[0];
    assert_eq!(code(part.error_code), ErrorCode::OffsetOutOfRange);
    assert_eq!(
        part.log_start_offset, 5,
        "the active segment was rolled and went too"
    );
    // The files outlive the deletion a little, for readers that are at it.
    let files = |host: &Host| oncelog_commitlog::Disk::list(&*host.disk, "t-0").unwrap();
    host.pass_ms(400_000);
    let left: Vec<_> = files(&host)
        .into_iter()
        .filter(|f| f.ends_with(".deleted"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(produced(&mut host, &topic, 0, batch(&["a"])), 5);
    let mut host = host.crash(8);
    assert_eq!(fetched(&mut host, &topic, 0, 5), [(5, "a".to_owned())]);
}

#[test]
fn retention_by_size() {
    let mut host = start(&[]);
    let configs = [("segment.bytes", "1048576"), ("retention.bytes", "1500000")];
    let topic = Topic::with(&mut host, "t", 1, &configs);
    for _ in 0..10 {
        produced(&mut host, &topic, 0, large_batch(500_000));
    }
    host.pass_ms(400_000);
    let (_, start, _) = crate::offsets::listed(&mut host, 1, "t", &[-2])[0];
    assert_eq!(start, 6);
}

#[test]
fn timestamp_type_changes_while_running() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let before = produce(&mut host, &topic, 0, batch(&["a"]));
    assert_eq!(before.log_append_time_ms, -1);
    set(&mut host, "t", "message.timestamp.type", "LogAppendTime");
    let now_ms = host.now.wall_ms;
    let after = produce(&mut host, &topic, 0, batch(&["a"]));
    assert_eq!(after.log_append_time_ms, now_ms);
}

#[test]
fn the_old_way_of_altering_replaces_everything() {
    let mut host = start(&[]);
    Topic::with(&mut host, "t", 1, &[("retention.ms", "1234")]);
    for version in 0..=2 {
        set(&mut host, "t", "retention.ms", "1234");
        let request = AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: "t".to_owned(),
                configs: vec![alter_configs_request::AlterableConfig {
                    name: "segment.bytes".to_owned(),
                    value: Some("1048576".to_owned()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: AlterConfigsResponse = host.ask(version, request);
        assert_eq!(code(answer.responses[0].error_code), ErrorCode::None);
        let (retention, _) = described(&mut host, 4, "t", "retention.ms");
        assert_eq!(retention.as_deref(), Some("604800000"));
        let (segment, _) = described(&mut host, 4, "t", "segment.bytes");
        assert_eq!(segment.as_deref(), Some("1048576"));
    }
}

#[test]
fn changes_that_are_refused_change_nothing() {
    let mut host = start(&[]);
    Topic::new(&mut host, "t", 1);
    for (what, resource, changes) in [
        (
            "a bad value",
            (TOPIC, "t"),
            [("retention.ms", SET, Some("x"))],
        ),
        ("a bad key", (TOPIC, "t"), [("no.such.key", SET, Some("1"))]),
        (
            "no topic",
            (TOPIC, "no"),
            [("retention.ms", SET, Some("1"))],
        ),
        (
            "no operation",
            (TOPIC, "t"),
            [("retention.ms", 9, Some("1"))],
        ),
        ("no value", (TOPIC, "t"), [("retention.ms", SET, None)]),
        (
            "no such kind",
            (77, "t"),
            [("retention.ms", SET, Some("1"))],
        ),
    ] {
        assert_ne!(
            alter(&mut host, 1, resource, &changes),
            ErrorCode::None,
            "{what}"
        );
    }
    let (retention, _) = described(&mut host, 4, "t", "retention.ms");
    assert_eq!(retention.as_deref(), Some("604800000"));
}

#[test]
fn resources_with_configurations_are_listed() {
    let mut host = start(&[]);
    Topic::new(&mut host, "t", 1);
    for version in 0..=1 {
        let listed: ListConfigResourcesResponse =
            host.ask(version, ListConfigResourcesRequest::default());
        assert_eq!(code(listed.error_code), ErrorCode::None);
        let names: Vec<_> = listed
            .config_resources
            .iter()
            .map(|r| r.resource_name.clone())
            .collect();
        // Version 0 listed client metrics only.
        assert_eq!(names.contains(&"t".to_owned()), version == 1);
    }
}
