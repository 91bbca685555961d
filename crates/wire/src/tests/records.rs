//! Batches: built, read, patched; and what damage does to them.

use bytes::Bytes;

use crate::arbitrary::Gen;
use crate::records::*;

const LIMIT: usize = 16 << 20;

type Fields = (i64, Option<Bytes>, Option<Bytes>, Vec<Header>);

fn fields(g: &mut Gen) -> Fields {
    let header = |g: &mut Gen| Header {
        key: g.string().into(),
        value: g.nullable(Gen::bytes),
    };
    let timestamp = 1_700_000_000_000 + g.below(1_000_000) as i64;
    (
        timestamp,
        g.nullable(Gen::bytes),
        g.nullable(Gen::bytes),
        g.vec(header),
    )
}

fn append(batch: &mut BatchBuilder, (timestamp, key, value, headers): &Fields) {
    let headers: Vec<(&[u8], Option<&[u8]>)> = headers
        .iter()
        .map(|h| (&h.key[..], h.value.as_deref()))
        .collect();
    batch.append(*timestamp, key.as_deref(), value.as_deref(), &headers);
}

#[test]
fn what_is_built_is_read_again() {
    for seed in 0..200 {
        let g = &mut Gen::new(seed);
        let codec = Compression::ALL[g.below(5)];
        let mut builder = BatchBuilder::new()
            .base_offset(1000)
            .leader_epoch(4)
            .producer(17, 3, 9)
            .transactional(g.bool())
            .compression(codec);
        let expected: Vec<Fields> = (0..1 + g.below(30)).map(|_| fields(g)).collect();
        expected.iter().for_each(|f| append(&mut builder, f));
        assert_eq!(builder.len(), expected.len());
        let bytes = builder.build();

        let batch = Batch::parse(&bytes).unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.bytes, bytes);
        assert_eq!(batch.header.to_bytes(), bytes[..HEADER_LEN]);
        assert_eq!(batch.header.compression(), Ok(codec));
        assert_eq!(batch.header.records_count as usize, expected.len());
        assert_eq!(batch.header.last_offset(), 1000 + expected.len() as i64 - 1);
        assert_eq!(batch.header.last_sequence(), 9 + expected.len() as i32 - 1);
        assert_eq!(
            Some(batch.header.max_timestamp),
            expected.iter().map(|f| f.0).max()
        );
        let records: Vec<Record> = batch
            .records(LIMIT)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(records.len(), expected.len());
        for (i, (record, (timestamp, key, value, headers))) in
            records.iter().zip(&expected).enumerate()
        {
            assert_eq!(record.offset, 1000 + i as i64);
            assert_eq!(record.timestamp, *timestamp);
            assert_eq!((&record.key, &record.value), (key, value));
            assert_eq!(&record.headers, headers, "repeated keys and order are kept");
        }
    }
}

/// A batch that Kafka 4.3.1 wrote (`MemoryRecords.withRecords`, offset 5, epoch 2, producer 7/1/3).
#[test]
fn a_batch_that_kafka_wrote() {
    let bytes = unhex(KAFKA_BATCH);
    let batch = Batch::parse(&bytes).unwrap();
    batch.check_crc().unwrap();
    let records: Vec<Record> = batch.records(LIMIT).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[0].headers.len(), 2);
    assert_eq!(records[1].value, None);
    // And ours of the same records are the same bytes.
    let mut builder = BatchBuilder::new()
        .base_offset(5)
        .leader_epoch(2)
        .producer(7, 1, 3);
    builder.append(
        1000,
        Some(b"k"),
        Some(b"v"),
        &[(b"h", Some(b"x")), (b"h", None)],
    );
    builder.append(900, None, None, &[]);
    assert_eq!(hex(&builder.build()), KAFKA_BATCH);
}

/// The marker of a commit, as Kafka 4.3.1's `MemoryRecords.withEndTransactionMarker` writes it.
#[test]
fn a_marker_that_kafka_wrote() {
    let bytes = BatchBuilder::end_txn_marker(1000, 7, 1, EndTxn::Commit, 9);
    assert_eq!(hex(&bytes), KAFKA_MARKER);
    let batch = Batch::parse(&bytes).unwrap();
    assert!(batch.header.is_control() && batch.header.is_transactional());
    assert_eq!(batch.header.last_sequence(), NO_SEQUENCE);
    let record = batch.records(LIMIT).unwrap().next().unwrap().unwrap();
    let expected = ControlRecord::EndTxn {
        result: EndTxn::Commit,
        coordinator_epoch: 9,
    };
    assert_eq!(ControlRecord::parse(&record), Some(expected));
}

#[test]
fn offset_and_epoch_lie_outside_the_crc() {
    let bytes = two_records();
    let mut header: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
    patch::offset_and_epoch(&mut header, 123_456_789_012, 77);
    let patched = Bytes::from([&header[..], &bytes[HEADER_LEN..]].concat());
    assert!(crc_is_valid(&patched));
    let header = BatchHeader::parse(&patched).unwrap();
    assert_eq!(
        (header.base_offset, header.partition_leader_epoch),
        (123_456_789_012, 77)
    );
    assert_eq!(header.next_offset(), 123_456_789_014);
}

#[test]
fn a_timestamp_is_patched_without_reading_the_body() {
    for codec in Compression::ALL {
        for len in [0, 1, 7, 100, 5000] {
            let mut builder = BatchBuilder::new().compression(codec);
            builder.append(5, None, Some(&vec![b'x'; len]), &[]);
            let bytes = builder.build();
            let mut header: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
            patch::max_timestamp(&mut header, TimestampType::LogAppendTime, 99);
            let patched = Bytes::from([&header[..], &bytes[HEADER_LEN..]].concat());
            let batch = Batch::parse(&patched).unwrap();
            batch.check_crc().unwrap();
            assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
            let record = batch.records(LIMIT).unwrap().next().unwrap().unwrap();
            assert_eq!(record.timestamp, 99);
            // And back: the very bytes that were sent.
            patch::max_timestamp(&mut header, TimestampType::CreateTime, 5);
            assert_eq!(header, bytes[..HEADER_LEN]);
        }
    }
}

#[test]
fn sequences_wrap_to_0() {
    let mut builder = BatchBuilder::new().producer(1, 0, i32::MAX - 1);
    for i in 0..4 {
        builder.append(i, None, None, &[]);
    }
    let header = BatchHeader::parse(&builder.build()).unwrap();
    assert_eq!(header.last_sequence(), 1);
}

#[test]
fn compaction_keeps_offsets_and_the_producer() {
    let source = Batch::parse(&{
        let mut builder = BatchBuilder::new().base_offset(50).producer(7, 1, 3);
        for i in 0..5 {
            builder.append(100 + i, Some(b"k"), Some(b"v"), &[]);
        }
        builder.build()
    })
    .unwrap();
    let records: Vec<Record> = source.records(LIMIT).unwrap().map(Result::unwrap).collect();

    let mut some = BatchBuilder::like(&source.header);
    some.append_record(&records[1]).append_record(&records[3]);
    let some = Batch::parse(&some.build()).unwrap();
    some.check_crc().unwrap();
    assert_eq!(
        (some.header.base_offset, some.header.last_offset()),
        (50, 54)
    );
    assert_eq!(
        (some.header.producer_id, some.header.last_sequence()),
        (7, 7)
    );
    assert_eq!(
        (some.header.records_count, some.header.max_timestamp),
        (2, 103)
    );
    let kept: Vec<Record> = some.records(LIMIT).unwrap().map(Result::unwrap).collect();
    assert_eq!(kept, [records[1].clone(), records[3].clone()]);

    let none = Batch::parse(&BatchBuilder::like(&source.header).build()).unwrap();
    none.check_crc().unwrap();
    assert_eq!(
        (none.header.last_offset(), none.header.last_sequence()),
        (54, 7)
    );
    assert_eq!(none.header.records_count, 0);
    assert_eq!(none.records(LIMIT).unwrap().count(), 0);

    let mut horizon = BatchBuilder::like(&source.header).delete_horizon_ms(9_999);
    horizon.append_record(&records[0]);
    let horizon = Batch::parse(&horizon.build()).unwrap();
    assert_eq!(horizon.header.delete_horizon_ms(), Some(9_999));
    let record = horizon.records(LIMIT).unwrap().next().unwrap().unwrap();
    assert_eq!(record, records[0], "timestamps are what they were");
}

#[test]
fn batches_follow_each_other_and_the_last_may_be_cut_off() {
    let one = two_records();
    let all = Bytes::from([&one[..], &one[..], &one[..]].concat());
    let mut batches = Batches::new(all.clone());
    assert_eq!(batches.by_ref().map(Result::unwrap).count(), 3);
    assert_eq!(batches.position(), all.len());
    for cut in 0..all.len() {
        let whole = cut / one.len();
        let cut_off = cut % one.len() != 0;
        let mut lenient = Batches::with_partial_end(all.slice(..cut));
        assert_eq!(
            lenient.by_ref().map(Result::unwrap).count(),
            whole,
            "cut to {cut}"
        );
        assert_eq!(lenient.position(), whole * one.len());
        let strict: Vec<_> = Batches::new(all.slice(..cut)).collect();
        assert_eq!(strict.len(), whole + usize::from(cut_off));
        assert_eq!(strict.iter().any(Result::is_err), cut_off);
    }
}

#[test]
fn impossible_headers_are_refused() {
    let change = |at: usize, value: &[u8]| {
        let mut bytes = two_records().to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        Batch::parse(&bytes.into()).unwrap_err()
    };
    assert_eq!(change(16, &[1]), BatchError::UnsupportedMagic(1));
    assert_eq!(
        change(8, &48i32.to_be_bytes()),
        BatchError::InvalidLength(48)
    );
    assert_eq!(
        change(8, &(-1i32).to_be_bytes()),
        BatchError::InvalidLength(-1)
    );
    assert!(matches!(
        change(8, &i32::MAX.to_be_bytes()),
        BatchError::Truncated { .. }
    ));
    assert!(matches!(
        change(57, &(-1i32).to_be_bytes()),
        BatchError::InvalidRecord { .. }
    ));
    assert!(matches!(
        change(23, &(-1i32).to_be_bytes()),
        BatchError::InvalidRecord { .. }
    ));
}

/// Any one flipped bit behind the first 17 bytes is seen by the CRC.
#[test]
fn the_crc_sees_every_bit() {
    let bytes = two_records();
    for at in 17..bytes.len() {
        for bit in 0..8 {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1 << bit;
            assert!(!crc_is_valid(&broken), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn damaged_bodies_are_errors_never_panics() {
    let mut g = Gen::new(1);
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new().compression(codec);
        (0..5).for_each(|_| append(&mut builder, &fields(&mut g)));
        let bytes = builder.build();
        for _ in 0..2000 {
            let mut broken = bytes.to_vec();
            for _ in 0..1 + g.below(3) {
                let at = HEADER_LEN + g.below(broken.len() - HEADER_LEN);
                broken[at] = g.next() as u8;
            }
            let batch = Batch::parse(&broken.into()).unwrap();
            if let Ok(records) = batch.records(LIMIT) {
                assert!(records.count() <= 5);
            }
        }
    }
}

fn two_records() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder
        .append(1, Some(b"a"), Some(b"1"), &[])
        .append(2, None, None, &[(b"h", None)]);
    builder.build()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

const KAFKA_BATCH: &str = "000000000000000500000049000000020279941bef00000000000100000000000003e800000000000003e80000000000000007000100000003000000021e000000026b027604026802780268010e00c70102010100";
const KAFKA_MARKER: &str = "000000000000000000000042ffffffff025ce84ffe00300000000000000000000003e800000000000003e800000000000000070001ffffffff000000012000000008000000010c00000000000900";
