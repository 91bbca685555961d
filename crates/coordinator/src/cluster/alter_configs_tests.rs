use super::super::testing::{apply, cluster_with, config};
use super::*;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::alter_configs_request::AlterableConfig;

fn resource(kind: i8, name: &str, values: &[(&str, Option<&str>)]) -> AlterConfigsResource {
    let entry = |(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: name.to_string(),
        value: value.map(str::to_owned),
        ..Default::default()
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configs: values.iter().map(entry).collect(),
        ..Default::default()
    }
}

fn alter(cluster: &mut Cluster, resources: Vec<AlterConfigsResource>) -> Vec<ErrorCode> {
    let mut request = AlterConfigsRequest {
        resources,
        validate_only: true,
        ..Default::default()
    };
    let (records, validated) = cluster.alter_configs(&config(&[]), &request);
    assert_eq!(records, []);
    request.validate_only = false;
    let (records, response) = cluster.alter_configs(&config(&[]), &request);
    assert_eq!(validated, response);
    for version in AlterConfigsResponse::MIN_VERSION..=AlterConfigsResponse::MAX_VERSION {
        response
            .encode(&mut oncelog_wire::Writer::new(), version)
            .expect("fits the version");
    }
    apply(cluster, &records);
    response
        .responses
        .iter()
        .map(|r| ErrorCode::from_code(r.error_code))
        .collect()
}

#[test]
fn what_is_not_named_is_gone() {
    let mut cluster = cluster_with(&[("t", 1)]);
    for (values, expected) in [
        (
            &[("retention.ms", Some("5")), ("flush.ms", Some("9"))][..],
            "flush.ms=9 retention.ms=5",
        ),
        (&[("retention.ms", Some("6"))], "retention.ms=6"),
        (&[], ""),
    ] {
        assert_eq!(
            alter(&mut cluster, vec![resource(2, "t", values)]),
            [ErrorCode::None]
        );
        let set = cluster
            .configs
            .get(&ConfigResource::topic("t"))
            .into_iter()
            .flatten();
        let set: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(set.join(" "), expected);
    }
}

#[test]
fn mistakes() {
    use ErrorCode::*;
    let good = [("retention.ms", Some("5"))];
    for (kind, name, values, expected) in [
        (2, "t", &[("retention.ms", Some("x"))][..], InvalidConfig),
        (2, "t", &[("retention.ms", Option::None)], InvalidRequest),
        (2, "t", &[good[0], good[0]], InvalidRequest),
        (2, "x", &good, UnknownTopicOrPartition),
        (4, "1", &[("log.retention.ms", Some("5"))], None),
        (4, "1", &[("node.id", Some("5"))], InvalidRequest),
        (4, "9", &[("log.retention.ms", Some("5"))], InvalidRequest),
        (8, "1", &good, InvalidRequest),
        (99, "1", &good, InvalidRequest),
    ] {
        let mut cluster = cluster_with(&[("t", 1)]);
        let got = alter(&mut cluster, vec![resource(kind, name, values)]);
        assert_eq!(got, [expected], "{kind} {name} {values:?}");
    }
    let twice = vec![resource(2, "t", &good), resource(2, "t", &[])];
    assert_eq!(
        alter(&mut cluster_with(&[("t", 1)]), twice),
        [InvalidRequest, InvalidRequest]
    );
}
