//! The primitives: golden bytes, and every bound of the reader.

use bytes::Bytes;

use crate::messages::*;
use crate::{Chunk, DecodeErrorKind, EncodeError, RawTaggedField, Reader, Records, Writer, limits};

fn reader(bytes: &[u8]) -> Reader {
    Reader::new(Bytes::copy_from_slice(bytes))
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.into_bytes().unwrap().to_vec()
}

#[test]
fn unsigned_varints() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (1, &[0x01]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (300, &[0xac, 0x02]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 0x01]),
        (i32::MAX as u32, &[0xff, 0xff, 0xff, 0xff, 0x07]),
        (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        assert_eq!(written(|w| w.unsigned_varint(value)), bytes);
        let mut r = reader(bytes);
        assert_eq!(r.unsigned_varint(), Ok(value));
        assert_eq!(r.remaining(), 0);
    }
    for bytes in [
        &[0xff, 0xff, 0xff, 0xff, 0x10][..],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
    ] {
        let error = reader(bytes).unsigned_varint().unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::VarintTooLong);
    }
    let error = reader(&[0x80]).unsigned_varint().unwrap_err();
    assert_eq!(
        (error.kind, error.offset),
        (DecodeErrorKind::UnexpectedEnd { missing: 1 }, 1)
    );
}

#[test]
fn strings_and_bytes() {
    for (text, flex, bytes) in [
        (Some("hi"), false, &[0, 2, b'h', b'i'][..]),
        (Some("hi"), true, &[3, b'h', b'i']),
        (Some(""), false, &[0, 0]),
        (Some(""), true, &[1]),
        (None, false, &[0xff, 0xff]),
        (None, true, &[0]),
    ] {
        assert_eq!(written(|w| w.nullable_string(text, flex).unwrap()), bytes);
        assert_eq!(
            reader(bytes).nullable_string(flex),
            Ok(text.map(String::from))
        );
        let error = reader(bytes).string(flex).err().map(|error| error.kind);
        assert_eq!(
            error,
            text.is_none().then_some(DecodeErrorKind::NullNotAllowed)
        );
    }
    let kind = |bytes: &[u8]| reader(bytes).nullable_string(false).unwrap_err().kind;
    assert_eq!(kind(&[0xff, 0xfe]), DecodeErrorKind::InvalidLength(-2));
    assert_eq!(kind(&[0, 1, 0xff]), DecodeErrorKind::InvalidUtf8);
    assert_eq!(
        kind(&[0, 3, b'a']),
        DecodeErrorKind::UnexpectedEnd { missing: 2 }
    );

    let long = "x".repeat(limits::STRING_BYTES_MAX + 1);
    let error = Writer::new().string(&long, true).unwrap_err();
    assert_eq!(error, EncodeError::TooLong(long.len()));
    let mut w = Writer::new();
    w.bytes(&Bytes::from(long), true).unwrap();
    let error = reader(&w.into_bytes().unwrap()).string(true).unwrap_err();
    assert_eq!(
        error.kind,
        DecodeErrorKind::InvalidLength(limits::STRING_BYTES_MAX as i64 + 1)
    );
}

#[test]
fn bytes_are_slices_of_the_frame() {
    let frame = Bytes::from_static(&[0, 0, 0, 3, 1, 2, 3, 9]);
    let mut r = Reader::new(frame.clone());
    let bytes = r.bytes(false).unwrap();
    assert_eq!(bytes.as_ptr(), frame[4..].as_ptr());
    assert_eq!(r.rest().as_ptr(), frame[7..].as_ptr());
}

/// A count from the wire allocates nothing by itself.
#[test]
fn counts_are_bounded_by_what_remains() {
    // Metadata v1: an array of topics, 2 bytes each at least. i32::MAX in 4 bytes.
    let error = MetadataRequest::decode(&mut reader(&[0x7f, 0xff, 0xff, 0xff]), 1).unwrap_err();
    let kind = DecodeErrorKind::CountTooLarge {
        count: i32::MAX as usize,
        remaining: 0,
    };
    assert_eq!(error.kind, kind);
    // Four elements of at least 2 bytes do not fit into 6 bytes.
    let error = MetadataRequest::decode(&mut reader(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0]), 1);
    let kind = DecodeErrorKind::CountTooLarge {
        count: 4,
        remaining: 6,
    };
    assert_eq!(error.unwrap_err().kind, kind);
    // Tagged fields: at least 2 bytes each.
    let error = ApiVersionsRequest::decode(&mut reader(&[1, 1, 3, 0, 0]), 3).unwrap_err();
    assert_eq!(
        error.kind,
        DecodeErrorKind::CountTooLarge {
            count: 3,
            remaining: 2
        }
    );
}

/// 1 byte on the wire, 24 in memory: the budget ends what the count allows.
#[test]
fn small_elements_do_not_multiply_memory() {
    let mut frame = vec![0; 40 << 20];
    let count = (frame.len() - 5) as i32;
    frame[..4].copy_from_slice(&(count / 2).to_be_bytes());
    // DescribeGroups v0: an array of strings of 2 bytes, 24 in memory.
    let error = DescribeGroupsRequest::decode(&mut Reader::new(frame.into()), 0).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::BudgetExceeded);
    assert_eq!(error.offset, 4, "before anything was allocated");
}

#[test]
fn unknown_tags_are_kept_and_known_ones_must_fit() {
    // ApiVersions v3: two empty strings, then a tag section with the unknown tag 5.
    let bytes = [1, 1, 1, 5, 2, 0xaa, 0xbb];
    let request = ApiVersionsRequest::decode(&mut reader(&bytes), 3).unwrap();
    let data = Bytes::from_static(&[0xaa, 0xbb]);
    assert_eq!(
        request.unknown_tagged_fields,
        [RawTaggedField { tag: 5, data }]
    );
    assert_eq!(written(|w| request.encode(w, 3).unwrap()), bytes);

    // Fetch v12, known tag 0 (cluster id): its size must be that of its value.
    let mut w = Writer::new();
    FetchRequest {
        cluster_id: Some("abc".into()),
        ..Default::default()
    }
    .encode(&mut w, 12)
    .unwrap();
    let good = w.into_bytes().unwrap();
    assert_eq!(good[good.len() - 7..], [1, 0, 4, 4, b'a', b'b', b'c']);
    for (at, value, kind) in [
        (5, 5, DecodeErrorKind::UnexpectedEnd { missing: 1 }),
        (5, 3, DecodeErrorKind::UnexpectedEnd { missing: 1 }),
        (4, 3, DecodeErrorKind::TaggedFieldSize),
    ] {
        let mut bad = good.to_vec();
        let len = bad.len();
        bad[len - at] = value;
        let error = FetchRequest::decode(&mut reader(&bad), 12).unwrap_err();
        assert_eq!(error.kind, kind, "byte {at} from the end set to {value}");
    }
}

#[test]
fn tags_are_written_in_order_and_once() {
    let tag = |tag| RawTaggedField {
        tag,
        data: Bytes::new(),
    };
    let mut request = FetchRequest {
        cluster_id: Some("".into()),
        ..Default::default()
    };
    request.unknown_tagged_fields = vec![tag(9), tag(7)];
    let bytes = written(|w| request.encode(w, 12).unwrap());
    assert_eq!(bytes[bytes.len() - 8..], [3, 0, 1, 1, 7, 0, 9, 0]);
    request.unknown_tagged_fields = vec![tag(0)];
    let error = request.encode(&mut Writer::new(), 12);
    assert_eq!(error, Err(EncodeError::DuplicateTag(0)));
}

#[test]
fn records_are_spliced_and_counted() {
    let large = Bytes::from(vec![7; limits::SPLICE_BYTES_MIN]);
    let mut w = Writer::frame();
    w.records(&Records::External { token: 42, len: 5 }, false)
        .unwrap();
    w.records(&Records::Bytes(large.clone()), true).unwrap();
    w.records(&Records::Bytes(Bytes::from_static(b"small")), false)
        .unwrap();
    w.nullable_records(None, false).unwrap();
    w.records(&Records::External { token: 43, len: 0 }, false)
        .unwrap();
    let encoded = w.finish_frame().unwrap();
    let total = 4 + 4 + 5 + 2 + large.len() + 4 + 5 + 4 + 4;
    assert_eq!(encoded.total_len, total);
    let prefix = (total as u32 - 4).to_be_bytes();
    assert_eq!(
        encoded.chunks,
        [
            Chunk::Bytes([&prefix[..], &[0, 0, 0, 5]].concat().into()),
            Chunk::External { token: 42, len: 5 },
            Chunk::Bytes(Bytes::from_static(&[0x81, 0x08])),
            Chunk::Bytes(large.clone()),
            Chunk::Bytes(Bytes::from_static(
                b"\0\0\0\x05small\xff\xff\xff\xff\0\0\0\0"
            )),
        ]
    );
    let Chunk::Bytes(same) = &encoded.chunks[3] else {
        unreachable!()
    };
    assert_eq!(same.as_ptr(), large.as_ptr(), "record bytes are not copied");
    assert_eq!(encoded.to_bytes(), None);
}
