//! ApiVersions: the table as it is, in every version; and the answer to versions from the future.

use crate::host::start;
use crate::requests::code;
use oncelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use oncelog_wire::{ApiKey, ErrorCode, apis};

fn named(name: &str) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: name.to_owned(),
        client_software_version: "1.0".to_owned(),
        ..Default::default()
    }
}

#[test]
fn every_version_tells_the_whole_table() {
    let mut host = start(&[]);
    for version in 0..=4 {
        let ask = match version {
            0..=2 => ApiVersionsRequest::default(),
            _ => named("tester"),
        };
        let answer: ApiVersionsResponse = host.ask(version, ask);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let told: Vec<(i16, i16, i16)> = answer
            .api_keys
            .iter()
            .map(|row| (row.api_key, row.min_version, row.max_version))
            .collect();
        let served: Vec<(i16, i16, i16)> = apis::SERVED
            .iter()
            .map(|row| match row.key {
                ApiKey::InitProducerId => (row.key.code(), 0, 5), // two-phase commit is off
                _ => (row.key.code(), row.min_version, row.max_version),
            })
            .collect();
        assert_eq!(told, served);
        assert!(told.contains(&(0, 0, 13)), "Produce is told from 0 on");
    }
}

#[test]
fn a_version_from_the_future_is_answered_in_version_0() {
    let mut host = start(&[]);
    let connection = host.connect();
    // Key 18, version 99, correlation 5, and a header and body that nobody here can read.
    let mut frame = vec![0, 18, 0, 99, 0, 0, 0, 5];
    frame.extend([0xff; 20]);
    host.expect(connection, 5, ApiKey::ApiVersions, 99);
    host.send_frame(connection, frame.into());
    let answer: ApiVersionsResponse = host.take(connection);
    assert_eq!(code(answer.error_code), ErrorCode::UnsupportedVersion);
    let rows: Vec<_> = answer
        .api_keys
        .iter()
        .map(|row| (row.api_key, row.min_version, row.max_version))
        .collect();
    assert_eq!(rows, [(18, 0, 4)]);
    assert_eq!(host.closed(connection), None);
    let again: ApiVersionsResponse = host.ask_on(connection, 0, ApiVersionsRequest::default());
    assert_eq!(
        code(again.error_code),
        ErrorCode::None,
        "the connection lives"
    );
}

#[test]
fn names_that_kip_511_does_not_allow_are_refused() {
    let mut host = start(&[]);
    for name in ["", "-a", "a b"] {
        let answer: ApiVersionsResponse = host.ask(3, named(name));
        assert_eq!(
            code(answer.error_code),
            ErrorCode::InvalidRequest,
            "{name:?}"
        );
        assert_eq!(answer.api_keys, []);
    }
}

#[test]
fn anything_else_that_is_not_served_closes_the_connection() {
    let mut host = start(&[]);
    for (what, frame) in [
        (
            "an unknown key",
            vec![0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        ),
        ("EndTxn", vec![0, 26, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        ("Produce v2", vec![0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff]),
        ("Fetch v3", vec![0, 1, 0, 3, 0, 0, 0, 1, 0xff, 0xff]),
        ("Metadata v14", vec![0, 3, 0, 14, 0, 0, 0, 1, 0xff, 0xff, 0]),
        ("half a header", vec![0, 3, 0]),
        ("nothing", vec![]),
    ] {
        let connection = host.connect();
        host.send_frame(connection, frame.into());
        assert!(host.closed(connection).is_some(), "{what}");
    }
}
