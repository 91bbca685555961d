//! The `kafka-protocol` crate as an oracle: two codecs that nobody wrote together must agree.
//!
//! Ours -> theirs -> ours, for every API and version that both know. It is never fed anything but
//! what ours wrote: that crate allocates by counts from the wire.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message};

use crate::arbitrary::{Arbitrary, Gen};
use crate::messages as ours;
use crate::messages::every::for_every_api;
use crate::{ApiKey, Reader, Writer};

const SEEDS: u64 = 40;

/// Their bytes of our bytes, with what they made of them in between.
fn through<T: Encodable + Decodable + std::fmt::Debug>(
    bytes: &Bytes,
    version: i16,
) -> (Bytes, String) {
    let mut rest = bytes.clone();
    let value = T::decode(&mut rest, version)
        .unwrap_or_else(|error| panic!("they cannot read v{version}: {error}\n{bytes:?}"));
    assert!(
        rest.is_empty(),
        "they left {} bytes of v{version}: {value:?}",
        rest.len()
    );
    let mut out = BytesMut::new();
    value
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("{error}: {value:?}"));
    (out.freeze(), format!("{value:?}"))
}

macro_rules! compare {
    ($message:ident) => {{
        let (min, max) = shared(stringify!($message), theirs::$message::VERSIONS);
        for version in min..=max {
            for seed in 0..SEEDS {
                let mut g = Gen::new(seed ^ (version as u64) << 32);
                let value = ours::$message::arbitrary(&mut g, version);
                let mut w = Writer::new();
                value.encode(&mut w, version).unwrap();
                let bytes = w.into_bytes().unwrap();
                let (back, their_value) = through::<theirs::$message>(&bytes, version);
                let again = ours::$message::decode(&mut Reader::new(back.clone()), version)
                    .unwrap_or_else(|e| panic!("v{version} {value:?}\n{their_value}: {e}"));
                assert_eq!(again, value, "v{version} {their_value}");
                assert_eq!(back, bytes, "v{version} {value:?}");
            }
        }
        usize::from(min <= max) * (max - min + 1) as usize
    }};
}

/// The versions that both have; a difference is named in `KNOWN`, so that a new one is seen.
fn shared(name: &str, range: kafka_protocol::protocol::VersionRange) -> (i16, i16) {
    let key = ApiKey::ALL.iter().find(|key| {
        name.strip_suffix("Request")
            .or(name.strip_suffix("Response"))
            == Some(key.name())
    });
    let (min, max) = key.expect("named after its API").schema_versions();
    let known = KNOWN.iter().find(|(known, ..)| *known == name);
    let expected = known.map_or((min, max), |(_, range, _)| *range);
    assert_eq!((range.min, range.max), expected, "{name} in the oracle");
    (min.max(range.min), max.min(range.max))
}

/// Where the oracle's versions are not Kafka 4.3's: name, its range, why.
const KNOWN: &[(&str, (i16, i16), &str)] = &[
    ("ListOffsetsRequest", (1, 10), "11 is newer"),
    ("ListOffsetsResponse", (1, 10), "11 is newer"),
    ("OffsetCommitRequest", (2, 9), "10 is newer"),
    ("OffsetFetchRequest", (1, 9), "10 is newer"),
    ("InitProducerIdRequest", (0, 5), "6 is unstable"),
    ("WriteTxnMarkersRequest", (1, 1), "2 is newer"),
    ("WriteTxnMarkersResponse", (1, 1), "2 is newer"),
    ("DescribeLogDirsRequest", (1, 4), "5 is newer"),
    ("DescribeLogDirsResponse", (1, 4), "5 is newer"),
];

macro_rules! compare_all {
    ($($name:ident $request:ident $response:ident;)*) => {
        #[test]
        fn the_oracle_agrees_on_every_api_and_version() {
            let mut versions = 0;
            $(versions += compare!($request) + compare!($response);)*
            assert!(versions > 500, "only {versions} versions compared");
        }
    };
}

for_every_api!(compare_all);

#[test]
fn the_oracle_agrees_on_header_versions() {
    use kafka_protocol::messages::ApiKey as TheirKey;
    for key in ApiKey::ALL {
        let their_key = TheirKey::try_from(key.code()).expect("they know the key");
        let (min, max) = key.schema_versions();
        for version in min..=max {
            assert_eq!(
                (
                    key.request_header_version(version),
                    key.response_header_version(version)
                ),
                (
                    their_key.request_header_version(version),
                    their_key.response_header_version(version)
                ),
                "{} v{version}",
                key.name()
            );
        }
    }
}

#[test]
fn the_oracle_agrees_on_headers() {
    for seed in 0..SEEDS {
        for version in 1..=2 {
            let mut g = Gen::new(seed);
            let value = ours::RequestHeader::arbitrary(&mut g, version);
            let mut w = Writer::new();
            value.encode(&mut w, version).unwrap();
            let bytes = w.into_bytes().unwrap();
            let (back, _) = through::<theirs::RequestHeader>(&bytes, version);
            assert_eq!(back, bytes);
        }
        for version in 0..=1 {
            let value = ours::ResponseHeader::arbitrary(&mut Gen::new(seed), version);
            let mut w = Writer::new();
            value.encode(&mut w, version).unwrap();
            let bytes = w.into_bytes().unwrap();
            let (back, _) = through::<theirs::ResponseHeader>(&bytes, version);
            assert_eq!(back, bytes);
        }
    }
}
