//! What a produced batch is refused for, and with which code.

use bytes::Bytes;

use crate::ErrorCode;
use crate::records::*;

fn batch(build: impl FnOnce(&mut BatchBuilder)) -> Bytes {
    let mut builder = BatchBuilder::new();
    build(&mut builder);
    builder.build()
}

fn good() -> Bytes {
    batch(|b| {
        b.append(10, Some(b"k"), Some(b"v"), &[(b"h", None)])
            .append(12, None, None, &[]);
    })
}

const VERSION: i16 = crate::messages::ProduceRequest::MAX_VERSION;

fn check(bytes: &Bytes) -> Result<ProducedBatch, (ErrorCode, String)> {
    check_produced(bytes, VERSION)
}

fn refused(bytes: &Bytes, code: ErrorCode, words: &str) {
    match check(bytes) {
        Ok(passed) => panic!("passed, expected {code} {words:?}: {passed:?}"),
        Err((found, text)) => {
            assert_eq!(found, code, "{text}");
            assert!(text.contains(words), "{text:?} does not say {words:?}");
        }
    }
}

/// Changes bytes of a good batch and gives it the CRC to match.
fn altered(bytes: &Bytes, at: usize, value: &[u8]) -> Bytes {
    let mut out = bytes.to_vec();
    out[at..at + value.len()].copy_from_slice(value);
    with_crc(out)
}

fn with_crc(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]) as u32;
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// A batch of one record whose body is `body`, with a header that fits it.
fn with_body(codec: Compression, count: i32, body: &[u8]) -> Bytes {
    let mut out = good()[..HEADER_LEN].to_vec();
    out.extend_from_slice(body);
    let length = (out.len() - LOG_OVERHEAD) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[22] = codec.id() as u8;
    out[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    out[57..61].copy_from_slice(&count.to_be_bytes());
    with_crc(out)
}

#[test]
fn a_good_batch_passes_as_it_is() {
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new().compression(codec).producer(1, 0, 0);
        for i in 0..100 {
            builder.append(500 + i % 7, Some(b"key"), Some(&[b'v'; 50]), &[]);
        }
        let bytes = builder.build();
        let passed = check(&bytes).unwrap();
        assert_eq!(passed.bytes, bytes);
        assert_eq!(passed.max_timestamp, 506);
        assert_eq!(passed.header.records_count, 100);
    }
}

#[test]
fn exactly_one_batch() {
    let one = good();
    let code = ErrorCode::InvalidRecord;
    refused(&Bytes::new(), code, "needs a record batch");
    refused(
        &[&one[..], &one[..]].concat().into(),
        code,
        "one record batch",
    );
    refused(&[&one[..], b"x"].concat().into(), code, "one record batch");
    refused(&altered(&one, 16, &[1]), code, "magic 1");
    let code = ErrorCode::CorruptMessage;
    refused(&one.slice(..one.len() - 1), code, "are there");
    refused(&one.slice(..30), code, "are there");
    refused(&altered(&one, 8, &[0, 0, 0, 1]), code, "length 1");
}

#[test]
fn crc() {
    let mut broken = good().to_vec();
    *broken.last_mut().unwrap() ^= 1;
    refused(&broken.into(), ErrorCode::CorruptMessage, "CRC");
}

#[test]
fn counts_offsets_and_flags() {
    let code = ErrorCode::InvalidRecord;
    let bytes = good();
    refused(
        &altered(&bytes, 0, &5i64.to_be_bytes()),
        code,
        "base offset",
    );
    refused(&altered(&bytes, 57, &0i32.to_be_bytes()), code, "0 records");
    refused(&altered(&bytes, 57, &3i32.to_be_bytes()), code, "3 records");
    refused(
        &altered(&bytes, 23, &4i32.to_be_bytes()),
        code,
        "offset delta 4",
    );
    refused(&altered(&bytes, 21, &[0, 0x20]), code, "control");
    refused(&altered(&bytes, 21, &[0, 0x10]), code, "transactional");
    refused(&altered(&bytes, 21, &[0, 0x40]), code, "delete horizon");
    refused(&altered(&bytes, 21, &[0, 0x05]), code, "no codec");
    refused(&altered(&bytes, 43, &9i64.to_be_bytes()), code, "sequence");
    refused(
        &altered(&bytes, 21, &[0, 8]),
        ErrorCode::InvalidTimestamp,
        "LogAppend",
    );
}

#[test]
fn zstd_needs_version_7() {
    let mut builder = BatchBuilder::new().compression(Compression::Zstd);
    builder.append(1, None, None, &[]);
    let bytes = builder.build();
    check_produced(&bytes, 7).unwrap();
    let (code, _) = check_produced(&bytes, 6).unwrap_err();
    assert_eq!(code, ErrorCode::UnsupportedCompressionType);
}

#[test]
fn facts_for_a_topics_own_checks() {
    let check = |records: &[(i64, Option<&[u8]>)], expected: (i64, i64, &[(i32, i32)])| {
        let bytes = batch(|b| {
            for (timestamp, key) in records {
                b.append(*timestamp, *key, None, &[]);
            }
        });
        let passed = check(&bytes).unwrap();
        let without_key: Vec<(i32, i32)> = passed
            .without_key
            .iter()
            .map(|run| (run.start, run.end))
            .collect();
        let found = (passed.min_timestamp, passed.max_timestamp, &without_key[..]);
        assert_eq!(found, expected);
    };
    check(
        &[(5, Some(b"")), (9, Some(b"k")), (7, Some(b"k"))],
        (5, 9, &[]),
    );
    check(&[(5, Some(b"")), (9, None), (3, None)], (3, 9, &[(1, 3)]));
    check(
        &[(5, None), (6, Some(b"k")), (7, None)],
        (5, 7, &[(0, 1), (2, 3)]),
    );
    check(&[(NO_TIMESTAMP, None), (8, None)], (8, 8, &[(0, 2)]));
    check(
        &[(NO_TIMESTAMP, None)],
        (NO_TIMESTAMP, NO_TIMESTAMP, &[(0, 1)]),
    );
    check(
        &[(-70, None), (NO_TIMESTAMP, None)],
        (-70, NO_TIMESTAMP, &[(0, 2)]),
    );
    // The header's own word about the maximum is not believed.
    let liar = altered(&good(), 35, &i64::MAX.to_be_bytes());
    assert_eq!(check_produced(&liar, VERSION).unwrap().max_timestamp, 12);
}

#[test]
fn the_records_are_what_the_header_says() {
    let body = good().slice(HEADER_LEN..);
    let code = ErrorCode::InvalidRecord;
    for codec in Compression::ALL {
        let pack = |plain: &[u8]| codec.compress(plain);
        check(&with_body(codec, 2, &pack(&body))).unwrap();
        refused(&with_body(codec, 1, &pack(&body)), code, "left after");
        refused(&with_body(codec, 3, &pack(&body)), code, "record 2");
        let first = usize::from(body[0] >> 1) + 1;
        let twice = [&body[..first], &body[..first]].concat();
        refused(
            &with_body(codec, 2, &pack(&twice)),
            code,
            "record 1 has the offset",
        );
        let longer = [&[body[0] + 2], &body[1..]].concat();
        refused(&with_body(codec, 2, &pack(&longer)), code, "record 0");
        refused(
            &with_body(codec, 2, &pack(&[0x01])),
            code,
            "negative record length",
        );
        refused(&with_body(codec, 2, &[]), code, "record 0");
    }
    for codec in &Compression::ALL[1..] {
        refused(&with_body(*codec, 2, &[0xee; 40]), code, "record 0");
    }
}

#[test]
fn a_bomb_is_refused_in_the_middle() {
    for codec in &Compression::ALL[1..] {
        let mut builder = BatchBuilder::new().compression(*codec);
        builder.append(1, None, Some(&vec![0; 2 << 20]), &[]);
        let bytes = builder.build();
        assert!(bytes.len() < 1 << 20);
        let (code, text) = check_produced_within(&bytes, VERSION, 1 << 20).unwrap_err();
        assert_eq!(code, ErrorCode::MessageTooLarge, "{text}");
        check(&bytes).unwrap();
    }
}
