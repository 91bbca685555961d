//! Record batches and their codecs, as clients send them and as files hold them.
//!
//! Asserted: nothing panics; a batch passes `check_produced` only if its CRC is right (computed
//! here anew) and its records are what a second, simple reader finds (`reference`); what was built
//! passes and is read again as it was; the facts about timestamps and keys are true; patching a
//! header keeps the CRC right; decompression gives no more than its limit, and memory is bounded by
//! the input, the limit and the codecs' own buffers. The time per input is libFuzzer's to watch.
//!
//! Not here: which batches a topic takes (`apis`), and what is on disk (`recovery`). Memory that
//! zstd takes in C is seen by libFuzzer's limit alone.

mod reference;

pub(crate) use reference::crc32c;

use crate::counting::peak_of;
use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use oncelog_wire::limits::KEYLESS_RUNS_MAX;
use oncelog_wire::records::{
    Batch, BatchBuilder, BatchHeader, Batches, Compression, ControlRecord, HEADER_LEN,
    LOG_OVERHEAD, NO_TIMESTAMP, ProducedBatch, Record, TimestampType, check_produced, crc_is_valid,
    patch,
};
use std::ops::Range;

/// The largest blocks of a codec (LZ4's of 4 MiB, in and out) and the fixed buffers.
const CODEC_BYTES_MAX: usize = 10 << 20;
/// A snappy block may make 22 times its size; the record reader holds nothing.
const MEMORY_PER_BYTE: usize = 64;
/// What is unpacked at most where it is held in memory.
const UNPACKED_MAX: usize = 64 << 10;

/// The first byte says what the others are, modulo their number; the second is the version of the
/// Produce request (lower half) and the codec (upper half).
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    /// Batches, one after the other.
    Raw,
    /// The same, and the first batch's length, magic and CRC are put right.
    Repaired,
    /// What follows a sound header, still compressed.
    Packed,
    /// Records, to be compressed and given a sound header.
    Unpacked,
    /// Instructions for a `BatchBuilder`.
    Built,
    /// A stream for a codec alone.
    Stream,
}

pub fn run(input: &[u8]) {
    let [kind, how, rest @ ..] = input else {
        return;
    };
    let version = i16::from(how & 0x0f);
    let codec = Compression::ALL[usize::from(how >> 4) % Compression::ALL.len()];
    match kind % 6 {
        0 => all(Bytes::copy_from_slice(rest), version),
        1 => all(repair(rest.to_vec()), version),
        2 => all(with_header(rest, codec, |body| body.to_vec()), version),
        3 => all(
            with_header(rest, codec, |body| codec.compress(body)),
            version,
        ),
        4 => built(rest, codec),
        _ => stream(codec, &Bytes::copy_from_slice(rest)),
    }
}

fn all(bytes: Bytes, version: i16) {
    batches(&bytes);
    produced(&bytes, version);
}

/// Walks a buffer as a consumer, a file scan or a compaction does.
fn batches(bytes: &Bytes) {
    let mut position = 0;
    for batch in Batches::new(bytes.clone()) {
        let Ok(batch) = batch else {
            break;
        };
        assert_eq!(batch.bytes, bytes[position..position + batch.bytes.len()]);
        position += batch.bytes.len();
        let sound = reference::crc_is_right(&batch.bytes);
        assert_eq!(batch.check_crc().is_ok(), sound);
        assert_eq!(crc_is_valid(&batch.bytes), sound);
        assert_eq!(batch.header.to_bytes(), batch.bytes[..HEADER_LEN]);
        records(&batch);
        if sound {
            patched(&batch);
        }
    }
    let whole = Batches::with_partial_end(bytes.clone()).filter(Result::is_ok);
    assert!(
        whole
            .map(|batch| batch.map_or(0, |batch| batch.bytes.len()))
            .sum::<usize>()
            >= position
    );
}

/// Reads a batch's records into memory, whatever they are.
fn records(batch: &Batch) {
    let (unpacked, peak) = peak_of(|| batch.records(UNPACKED_MAX));
    check_peak(batch.bytes.len(), UNPACKED_MAX, peak);
    let Ok(records) = unpacked else {
        return;
    };
    for record in records {
        let Ok(record) = record else {
            return;
        };
        let _ = ControlRecord::parse(&record);
    }
}

/// What a log does to a header in front of a body that it does not read.
fn patched(batch: &Batch) {
    let mut header: [u8; HEADER_LEN] = batch.bytes[..HEADER_LEN].try_into().expect("a header");
    patch::offset_and_epoch(&mut header, 1 << 40, 7);
    patch::max_timestamp(&mut header, TimestampType::LogAppendTime, 1234);
    let bytes = [&header[..], &batch.bytes[HEADER_LEN..]].concat();
    assert!(reference::crc_is_right(&bytes), "the CRC after patching");
    let parsed = BatchHeader::parse(&bytes).expect("it was a batch before");
    assert_eq!((parsed.base_offset, parsed.max_timestamp), (1 << 40, 1234));
    assert_eq!(parsed.records_count, batch.header.records_count);
}

/// As the broker checks what a client sends to a partition.
fn produced(bytes: &Bytes, version: i16) -> Option<ProducedBatch> {
    let (checked, peak) = peak_of(|| check_produced(bytes, version));
    check_peak(bytes.len(), 0, peak);
    let batch = checked.ok()?;
    assert_eq!(batch.bytes, bytes, "stored as it was sent");
    assert!(reference::crc_is_right(bytes), "a bad CRC was let in");
    let header = &batch.header;
    assert_eq!(header.base_offset, 0);
    assert_eq!(header.last_offset_delta, header.records_count - 1);
    assert!(!header.is_control() && header.records_count > 0);
    let parsed = Batch::parse(bytes).expect("it was let in");
    // A bomb within its limit is let in; there is no need to hold it here.
    let Ok(records) = parsed.records(UNPACKED_MAX) else {
        return Some(batch);
    };
    let records: Vec<Record> = records
        .map(|record| record.expect("it was let in"))
        .collect();
    assert_eq!(records.len(), batch.record_count() as usize);
    let body = batch.compression.decompress(&parsed.body(), UNPACKED_MAX);
    let expected = reference::records(header, &body.expect("it was decompressed before"));
    assert_eq!(Some(&records), expected.as_ref(), "the second reader");
    for (offset, record) in records.iter().enumerate() {
        assert_eq!(record.offset, offset as i64);
    }
    let timestamps = || records.iter().map(|record| record.timestamp);
    let given = || timestamps().filter(|timestamp| *timestamp != NO_TIMESTAMP);
    let highest = timestamps().max().map(|highest| highest.max(NO_TIMESTAMP));
    assert_eq!(Some(batch.max_timestamp), highest);
    assert_eq!(batch.min_timestamp, given().min().unwrap_or(NO_TIMESTAMP));
    assert_eq!(batch.without_key, keyless_runs(&records));
    Some(batch)
}

fn keyless_runs(records: &[Record]) -> Vec<Range<i32>> {
    let mut runs: Vec<Range<i32>> = Vec::new();
    for (index, _) in (0..).zip(records).filter(|(_, r)| r.key.is_none()) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs.truncate(KEYLESS_RUNS_MAX);
    runs
}

/// Makes a batch of whatever this is: as long as it says, of the right format, with a right CRC.
pub(crate) fn repair(mut batch: Vec<u8>) -> Bytes {
    if batch.len() >= HEADER_LEN {
        let length = (batch.len() - LOG_OVERHEAD) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        let crc = reference::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch.into()
}

/// The first byte counts the records, the rest goes behind a sound header as `pack` makes it.
fn with_header(rest: &[u8], codec: Compression, pack: impl FnOnce(&[u8]) -> Vec<u8>) -> Bytes {
    let (count, body) = rest.split_first().unwrap_or((&1, &[]));
    let count = i32::from(*count % 8);
    let header = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: codec.id(),
        last_offset_delta: (count - 1).max(0),
        base_timestamp: 1000,
        max_timestamp: 1000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: count,
    };
    repair([&header.to_bytes()[..], &pack(body)].concat())
}

#[derive(Arbitrary, Debug)]
struct Instructions {
    producer: Option<(u32, u8, u32)>,
    base_timestamp: u32,
    records: Vec<ToAppend>,
}

type Part = Option<Vec<u8>>;

#[derive(Arbitrary, Debug)]
struct ToAppend {
    later_ms: i32,
    key: Part,
    value: Part,
    headers: Vec<(Vec<u8>, Part)>,
}

/// What a builder makes passes, and says what was put in.
fn built(instructions: &[u8], codec: Compression) {
    let Ok(made) = Instructions::arbitrary_take_rest(Unstructured::new(instructions)) else {
        return;
    };
    if made.records.is_empty() {
        return;
    }
    let mut builder = BatchBuilder::new().compression(codec);
    if let Some((id, epoch, sequence)) = made.producer {
        let sequence = (sequence & i32::MAX as u32) as i32;
        builder = builder.producer(i64::from(id), i16::from(epoch), sequence);
    }
    for record in &made.records {
        let headers: Vec<(&[u8], Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let timestamp = i64::from(made.base_timestamp) + i64::from(record.later_ms);
        builder.append(timestamp, key, value, &headers);
    }
    let bytes = builder.build();
    batches(&bytes);
    let Some(_) = produced(&bytes, 9) else {
        let why = check_produced(&bytes, 9);
        panic!("a sound batch was refused: {why:?}\n{made:?}");
    };
    let batch = Batch::parse(&bytes).expect("it was built");
    let read = batch.records(1 << 30).expect("it was built");
    let mut expected = made.records.iter();
    for record in read {
        let (record, expected) = (record.expect("it was built"), expected.next());
        let expected = expected.expect("no more than were put in");
        assert_eq!(record.key.as_deref(), expected.key.as_deref());
        assert_eq!(record.value.as_deref(), expected.value.as_deref());
        let headers = record
            .headers
            .iter()
            .map(|h| (&h.key[..], h.value.as_deref()));
        let put_in = expected.headers.iter().map(|(k, v)| (&k[..], v.as_deref()));
        assert!(headers.eq(put_in), "{:?}", record.headers);
    }
    assert!(expected.next().is_none(), "as many as were put in");
}

/// A codec alone: bounded on any input, and the way back from its own output.
fn stream(codec: Compression, bytes: &Bytes) {
    let (unpacked, peak) = peak_of(|| codec.decompress(bytes, UNPACKED_MAX));
    check_peak(bytes.len(), UNPACKED_MAX, peak);
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.len() <= UNPACKED_MAX);
    }
    let packed = Bytes::from(codec.compress(bytes));
    let back = codec.decompress(&packed, bytes.len());
    assert_eq!(back.as_ref(), Ok(bytes), "{} there and back", codec.name());
}

/// `held`: what the caller lets be held; growing by doubling holds it three times.
fn check_peak(len: usize, held: usize, peak: usize) {
    let max = CODEC_BYTES_MAX + MEMORY_PER_BYTE * len + 3 * held;
    assert!(
        peak <= max,
        "{peak} bytes for a batch of {len}, allowed are {max}"
    );
}

pub fn seeds() -> Vec<Vec<u8>> {
    const VERSION: u8 = 9;
    let mut seeds = Vec::new();
    for codec in Compression::ALL {
        let how = (codec.id() as u8) << 4 | VERSION;
        let mut builder = BatchBuilder::new().compression(codec).producer(7, 1, 3);
        builder.append(
            1000,
            Some(b"key"),
            Some(b"value"),
            &[(b"h", None), (b"h", Some(b"x"))],
        );
        builder.append(900, None, None, &[]);
        let batch = builder.build();
        let body = Batch::parse(&batch).map_or(Bytes::new(), |batch| batch.body());
        let plain = codec.decompress(&body, UNPACKED_MAX).unwrap_or_default();
        let seed = |kind: Kind, rest: &[&[u8]]| [&[kind as u8, how], &rest.concat()[..]].concat();
        seeds.push(seed(Kind::Raw, &[&batch]));
        seeds.push(seed(Kind::Raw, &[&batch, &batch[..40]]));
        seeds.push(seed(Kind::Repaired, &[&batch]));
        seeds.push(seed(Kind::Packed, &[&[2], &body]));
        seeds.push(seed(Kind::Unpacked, &[&[2], &plain]));
        seeds.push(seed(Kind::Built, &[&[1; 200]]));
        seeds.push(seed(Kind::Stream, &[&body]));
        // A bomb: a record of a million zeros, and a stream of them.
        let bomb = codec.compress(&vec![0; 1 << 20]);
        if bomb.len() < 64 << 10 {
            seeds.push(seed(Kind::Packed, &[&[1], &bomb]));
            seeds.push(seed(Kind::Stream, &[&bomb]));
        }
    }
    let marker = BatchBuilder::end_txn_marker(1000, 7, 1, oncelog_wire::records::EndTxn::Commit, 9);
    seeds.push([&[Kind::Raw as u8, VERSION], &marker[..]].concat());
    seeds
}
