//! The bytes of a producer snapshot: Kafka's file, with a tail of ours that Kafka does not see.
//!
//! `<offset, 20 digits>.snapshot` holds the producers as they stand before `offset`, big endian:
//!
//! ```text
//! i16 version = 1
//! u32 CRC-32C of everything after this field, our tail included
//! i32 number of producers, then for each, ascending by id:
//!     i64 producer id, i16 epoch, i32 last sequence, i64 last offset, i32 offset delta,
//!     i64 timestamp, i32 coordinator epoch, i64 first offset of the open transaction (-1: none)
//! -- Kafka's reader stops here (`ProducerSnapshot.json`); what follows is ours --
//! [u8; 4] "ONCE", i16 version = 2
//! for each producer, in the same order:
//!     i64 idle time in ms, i8 number n of batches (0..=5; -1: none, and any sequence may follow),
//!     then n times, oldest first:
//!         i32 last sequence, i64 last offset, i32 offset delta, i64 timestamp
//!     i64 offset of the last batch, with a sequence or without (-1: not known; not in version 1)
//! ```
//!
//! Kafka's own part has room for the last batch only, so a restart shrinks Kafka's window to one.
//! The tail keeps all five. Kafka's reader accepts it: it checks the CRC over the whole rest of
//! the file and then decodes only what its schema names (`ProducerStateManager.readSnapshot`, read
//! in 4.3.1; `tests/kafka_reads_snapshots.rs` runs Kafka's tool over such a file). A file without
//! the tail, as Kafka writes it, is read as a window of one and an idle time of 0.
//!
//! It deliberately does not touch files (see [`crate::snapshot_files`]) and does not expire
//! anybody on load.

use crate::producers::{BatchEntry, ProducerState, Producers, WINDOW, Window};
use bytes::{BufMut, Bytes, BytesMut};
use oncelog_wire::clock::Instant;
use thiserror::Error;

const VERSION: i16 = 1;
const CRC_END: usize = 2 + 4;
const PRODUCER_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

const TAIL_MAGIC: &[u8; 4] = b"ONCE";
const TAIL_VERSION: i16 = 2;
const SEQUENCE_UNKNOWN: i8 = -1;

/// Why a snapshot cannot be used. The caller deletes it and falls back to an older one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SnapshotError {
    #[error("unknown version {0}")]
    UnknownVersion(i16),
    #[error("the file ends in the middle")]
    Truncated,
    #[error("CRC does not match: stored {stored:#010x}, computed {computed:#010x}")]
    BadCrc { stored: u32, computed: u32 },
    #[error("{0}")]
    Nonsense(&'static str),
}

/// The file's content for `producers` as they are at `now`.
pub fn encode(producers: &Producers, now: Instant) -> Bytes {
    let per_producer = PRODUCER_BYTES + 8 + 1 + WINDOW * (4 + 8 + 4 + 8) + 8;
    let mut out = BytesMut::with_capacity(CRC_END + 4 + 6 + producers.len() * per_producer);
    out.put_i16(VERSION);
    out.put_u32(0);
    out.put_i32(i32::try_from(producers.len()).expect("fewer than 2^31 producers"));
    for (producer_id, state) in producers.iter() {
        // Kafka's values for a producer whose window a marker emptied.
        let last = state.window.last().copied().unwrap_or(BatchEntry {
            last_sequence: -1,
            last_offset: -1,
            offset_delta: 0,
            timestamp: -1,
        });
        out.put_i64(producer_id);
        out.put_i16(state.epoch);
        out.put_i32(last.last_sequence);
        out.put_i64(last.last_offset);
        out.put_i32(last.offset_delta);
        out.put_i64(state.last_timestamp);
        out.put_i32(state.coordinator_epoch);
        out.put_i64(state.current_txn_first_offset.unwrap_or(-1));
    }
    encode_tail(producers, now, &mut out);
    let crc = crc_fast::crc32_iscsi(&out[CRC_END..]);
    out[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

fn encode_tail(producers: &Producers, now: Instant, out: &mut BytesMut) {
    out.put_slice(TAIL_MAGIC);
    out.put_i16(TAIL_VERSION);
    for (_, state) in producers.iter() {
        out.put_i64(state.idle_ms(now));
        let entries = state.window.entries();
        out.put_i8(match state.sequence_unknown {
            true => SEQUENCE_UNKNOWN,
            false => entries.len() as i8,
        });
        for entry in entries {
            out.put_i32(entry.last_sequence);
            out.put_i64(entry.last_offset);
            out.put_i32(entry.offset_delta);
            out.put_i64(entry.timestamp);
        }
        out.put_i64(state.last_offset);
    }
}

/// Reads a snapshot that was taken before `offset`; idle times count on from `now`.
///
/// Never allocates more than a small multiple of `content`'s length.
pub fn decode(content: &[u8], offset: i64, now: Instant) -> Result<Producers, SnapshotError> {
    let mut input = Input(content);
    let version = i16::from_be_bytes(input.take()?);
    if version != VERSION {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let stored = u32::from_be_bytes(input.take()?);
    let computed = crc_fast::crc32_iscsi(input.0);
    if stored != computed {
        return Err(SnapshotError::BadCrc { stored, computed });
    }
    let count = i32::from_be_bytes(input.take()?);
    let mut producers = Producers::default();
    // Kafka writes its producers in the order of a hash map: the tail follows the file's order.
    let mut ids = Vec::new();
    for _ in 0..count {
        let (producer_id, state) = decode_producer(&mut input, offset, now)?;
        if producers.get(producer_id).is_some() {
            return Err(SnapshotError::Nonsense("a producer id appears twice"));
        }
        if !producers.restore(producer_id, state) {
            let what = "two transactions begin at the same offset";
            return Err(SnapshotError::Nonsense(what));
        }
        ids.push(producer_id);
    }
    if !input.0.is_empty() {
        decode_tail(&mut input, offset, &ids, &mut producers)?;
    }
    Ok(producers)
}

fn decode_producer(
    input: &mut Input<'_>,
    offset: i64,
    now: Instant,
) -> Result<(i64, ProducerState), SnapshotError> {
    let producer_id = i64::from_be_bytes(input.take()?);
    let epoch = i16::from_be_bytes(input.take()?);
    let last = BatchEntry {
        last_sequence: i32::from_be_bytes(input.take()?),
        last_offset: i64::from_be_bytes(input.take()?),
        offset_delta: i32::from_be_bytes(input.take()?),
        timestamp: i64::from_be_bytes(input.take()?),
    };
    let coordinator_epoch = i32::from_be_bytes(input.take()?);
    let txn = i64::from_be_bytes(input.take()?);
    if producer_id < 0 || epoch < 0 {
        return Err(SnapshotError::Nonsense("negative producer id or epoch"));
    }
    if txn >= offset {
        let what = "a transaction beyond the snapshot's offset";
        return Err(SnapshotError::Nonsense(what));
    }
    let mut window = Window::default();
    if last.last_offset >= 0 {
        check_entry(&last)?;
        if last.last_offset >= offset {
            return Err(SnapshotError::Nonsense(
                "a batch beyond the snapshot's offset",
            ));
        }
        window.push(last);
    }
    let state = ProducerState {
        epoch,
        coordinator_epoch,
        last_timestamp: last.timestamp,
        last_offset: window.last().map_or(-1, |last| last.last_offset),
        current_txn_first_offset: (txn >= 0).then_some(txn),
        window,
        sequence_unknown: false,
        last_active: now,
        idle_before_ms: 0,
    };
    Ok((producer_id, state))
}

/// Replaces each window of one by the full one, and sets what Kafka's part does not have.
fn decode_tail(
    input: &mut Input<'_>,
    offset: i64,
    ids: &[i64],
    producers: &mut Producers,
) -> Result<(), SnapshotError> {
    let is_ours = input.take::<4>()? == *TAIL_MAGIC;
    let version = i16::from_be_bytes(input.take()?);
    if !is_ours || !(1..=TAIL_VERSION).contains(&version) {
        return Err(SnapshotError::Nonsense("an unknown tail"));
    }
    for id in ids {
        let idle_ms = i64::from_be_bytes(input.take()?);
        let window = decode_window(input)?;
        let sequence_unknown = window.is_none();
        let window = window.unwrap_or_default();
        let last_offset = match version {
            1 => window.last().map_or(-1, |last| last.last_offset),
            _ => i64::from_be_bytes(input.take()?),
        };
        let state = producers.get_mut(*id).expect("restored just before");
        if idle_ms < 0 || window.last().map(place) != state.window.last().map(place) {
            return Err(SnapshotError::Nonsense("the tail contradicts the entry"));
        }
        if last_offset >= offset {
            return Err(SnapshotError::Nonsense(
                "a batch beyond the snapshot's offset",
            ));
        }
        state.window = window;
        state.sequence_unknown = sequence_unknown;
        state.last_offset = last_offset;
        state.idle_before_ms = idle_ms;
    }
    if input.0.is_empty() {
        Ok(())
    } else {
        Err(SnapshotError::Nonsense("bytes after the tail"))
    }
}

/// `None` if the sequences are not known.
fn decode_window(input: &mut Input<'_>) -> Result<Option<Window>, SnapshotError> {
    let len = i8::from_be_bytes(input.take()?);
    if len == SEQUENCE_UNKNOWN {
        return Ok(None);
    }
    if !(0..=WINDOW as i8).contains(&len) {
        return Err(SnapshotError::Nonsense("a window of more than five"));
    }
    let mut window = Window::default();
    for _ in 0..len {
        let entry = BatchEntry {
            last_sequence: i32::from_be_bytes(input.take()?),
            last_offset: i64::from_be_bytes(input.take()?),
            offset_delta: i32::from_be_bytes(input.take()?),
            timestamp: i64::from_be_bytes(input.take()?),
        };
        check_entry(&entry)?;
        let before = window.last();
        if before.is_some_and(|before| before.last_offset >= entry.base_offset()) {
            return Err(SnapshotError::Nonsense("a window out of order"));
        }
        window.push(entry);
    }
    Ok(Some(window))
}

/// What an entry of Kafka's part and the last one of our tail must agree on. Not the timestamp:
/// after a marker Kafka's is the marker's.
fn place(entry: &BatchEntry) -> (i32, i64, i32) {
    (entry.last_sequence, entry.last_offset, entry.offset_delta)
}

fn check_entry(entry: &BatchEntry) -> Result<(), SnapshotError> {
    let delta_fits = entry.offset_delta >= 0 && i64::from(entry.offset_delta) <= entry.last_offset;
    if entry.last_sequence < 0 || !delta_fits {
        return Err(SnapshotError::Nonsense("an impossible batch"));
    }
    Ok(())
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(SnapshotError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant(5_000_000_000);

    fn state(epoch: i16, entries: &[(i32, i64, i32, i64)]) -> ProducerState {
        let mut window = Window::default();
        for &(last_sequence, last_offset, offset_delta, timestamp) in entries {
            window.push(BatchEntry {
                last_sequence,
                last_offset,
                offset_delta,
                timestamp,
            });
        }
        ProducerState {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: entries.last().map_or(-1, |e| e.3),
            last_offset: entries.last().map_or(-1, |e| e.1),
            current_txn_first_offset: None,
            window,
            sequence_unknown: false,
            last_active: NOW,
            idle_before_ms: 0,
        }
    }

    fn producers(states: Vec<(i64, ProducerState)>) -> Producers {
        let mut producers = Producers::default();
        for (id, state) in states {
            assert!(producers.restore(id, state));
        }
        producers
    }

    fn reseal(mut content: Vec<u8>) -> Vec<u8> {
        let crc = crc_fast::crc32_iscsi(&content[CRC_END..]);
        content[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
        content
    }

    fn two_producers() -> Producers {
        producers(vec![
            (7, state(0, &[(4, 104, 4, 11), (5, 105, 0, 12)])),
            (9, state(3, &[(2, 120, 5, -1)])),
        ])
    }

    #[test]
    fn kafkas_part_is_laid_out_as_kafka_does() {
        let content = encode(&producers(vec![(7, state(2, &[(4, 104, 1, 11)]))]), NOW);
        let expected: Vec<u8> = [
            &1i16.to_be_bytes()[..],
            &content[2..6],
            &1i32.to_be_bytes(),
            &7i64.to_be_bytes(),
            &2i16.to_be_bytes(),
            &4i32.to_be_bytes(),
            &104i64.to_be_bytes(),
            &1i32.to_be_bytes(),
            &11i64.to_be_bytes(),
            &(-1i32).to_be_bytes(),
            &(-1i64).to_be_bytes(),
            b"ONCE",
        ]
        .concat();
        assert_eq!(&content[..expected.len()], &expected[..]);
    }

    #[test]
    fn a_file_of_kafkas_is_a_window_of_one() {
        let content = encode(&two_producers(), NOW);
        let kafka = reseal(content[..CRC_END + 4 + 2 * PRODUCER_BYTES].to_vec());
        let read = decode(&kafka, 200, NOW).unwrap();
        assert_eq!(read.get(7), Some(&state(0, &[(5, 105, 0, 12)])));
        assert_eq!(read.get(9), two_producers().get(9));
    }

    #[test]
    fn transactions_and_unknown_sequences_are_carried_over() {
        let mut open = state(3, &[]);
        open.current_txn_first_offset = Some(40);
        open.sequence_unknown = true;
        open.last_offset = 70;
        let expected = producers(vec![(7, open), (9, state(0, &[(0, 41, 0, 5)]))]);
        let content = encode(&expected, NOW);
        assert_eq!(decode(&content, 71, NOW), Ok(expected.clone()));
        let first_offset = &content[CRC_END + 4 + PRODUCER_BYTES - 8..][..8];
        assert_eq!(first_offset, 40i64.to_be_bytes());
        for offset in [40, 70] {
            assert!(decode(&content, offset, NOW).is_err(), "before {offset}");
        }
        let mut twice = expected;
        let mut other = state(1, &[]);
        other.current_txn_first_offset = Some(40);
        assert!(!twice.restore(8, other), "two cannot begin at one offset");
    }

    #[test]
    fn a_tail_of_version_1_is_read() {
        let expected = producers(vec![(7, state(0, &[(4, 104, 4, 11), (5, 105, 0, 12)]))]);
        let mut content = encode(&expected, NOW).to_vec();
        content.truncate(content.len() - 8);
        let version = CRC_END + 4 + PRODUCER_BYTES + TAIL_MAGIC.len();
        content[version..version + 2].copy_from_slice(&1i16.to_be_bytes());
        assert_eq!(decode(&reseal(content), 200, NOW), Ok(expected));
    }

    #[test]
    fn idle_time_is_carried_over() {
        let later = NOW.plus_ms(1_500);
        let content = encode(&two_producers(), later);
        let restarted = Instant(77);
        let read = decode(&content, 200, restarted).unwrap();
        assert_eq!(read.get(7).unwrap().idle_ms(restarted.plus_ms(1)), 1_501);
    }

    #[test]
    fn damage_is_an_error() {
        let good = encode(&two_producers(), NOW).to_vec();
        for length in 0..good.len() {
            assert!(
                decode(&good[..length], 200, NOW).is_err(),
                "cut at {length}"
            );
        }
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x10;
            assert!(decode(&bad, 200, NOW).is_err(), "bit flipped at {position}");
        }
    }

    #[test]
    fn nonsense_under_a_good_crc_is_an_error() {
        let check = |edit: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut content = encode(&two_producers(), NOW).to_vec();
            edit(&mut content);
            let error = decode(&reseal(content), 200, NOW).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let second = CRC_END + 4 + PRODUCER_BYTES;
        let tail = second + PRODUCER_BYTES;
        let one_too_many = |c: &mut Vec<u8>| {
            c.truncate(tail);
            c[9] = 3;
        };
        check(&one_too_many, "the file ends in the middle");
        check(&|c| c[second + 7] = 7, "a producer id appears twice");
        check(&|c| c[second] = 0xff, "negative producer id or epoch");
        check(&|c| c[second + 10] = 0x80, "an impossible batch");
        check(&|c| c[tail] = b'X', "an unknown tail");
        check(&|c| c[tail + 6] = 0xff, "the tail contradicts the entry");
        check(&|c| c[tail + 14] = 6, "a window of more than five");
        check(&|c| c[tail + 14] = 1, "the tail contradicts the entry");
        check(&|c| c.push(0), "bytes after the tail");
        let error = decode(&encode(&two_producers(), NOW), 110, NOW).unwrap_err();
        assert_eq!(error.to_string(), "a batch beyond the snapshot's offset");
    }

    proptest! {
        #[test]
        fn round_trip(
            sizes in prop::collection::btree_map(
                0..i64::MAX,
                (0..i16::MAX, prop::collection::vec((1..50i32, any::<i64>()), 0..8), any::<i32>()),
                0..6,
            ),
        ) {
            let mut expected = Producers::default();
            for (id, (epoch, batches, start)) in sizes {
                let mut entries = Vec::new();
                let (mut offset, mut sequence) = (1_000, i64::from(start & i32::MAX));
                for (size, timestamp) in batches {
                    offset += i64::from(size);
                    sequence = (sequence + i64::from(size)) & i64::from(i32::MAX);
                    entries.push((sequence as i32, offset - 1, size - 1, timestamp));
                }
                assert!(expected.restore(id, state(epoch, &entries)));
            }
            let read = decode(&encode(&expected, NOW), 1_000_000, NOW);
            prop_assert_eq!(read, Ok(expected));
        }

        #[test]
        fn arbitrary_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&content, 100, NOW);
            let mut sealed = content;
            if sealed.len() > CRC_END {
                sealed[0] = 0;
                sealed[1] = 1;
                let _ = decode(&reseal(sealed), 100, NOW);
            }
        }
    }
}
