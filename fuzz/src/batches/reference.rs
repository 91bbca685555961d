//! A second reader of record batches, as simple as can be, to hold the first one against.
//!
//! It takes what the format allows and nothing else; it is slow, and holds everything in memory.

use bytes::Bytes;
use oncelog_wire::records::{BatchHeader, Header, Record};

/// Castagnoli's polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What eight steps make of each byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut step = 0;
        while step < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            step += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ TABLE[(crc as u8 ^ byte) as usize];
    !bytes.iter().fold(!0, step)
}

/// Of a whole batch: the field at 17 covers what follows it.
pub fn crc_is_right(batch: &[u8]) -> bool {
    batch[17..21] == crc32c(&batch[21..]).to_be_bytes()
}

/// The records in a decompressed body; `None` if it is not exactly those that the header counts.
pub fn records(header: &BatchHeader, body: &Bytes) -> Option<Vec<Record>> {
    let mut rest = body.clone();
    let mut records = Vec::new();
    for _ in 0..header.records_count {
        let len = usize::try_from(varint(&mut rest)?).ok()?;
        let mut one = take(&mut rest, len)?;
        records.push(record(header, &mut one)?);
        if !one.is_empty() {
            return None;
        }
    }
    rest.is_empty().then_some(records)
}

fn record(header: &BatchHeader, rest: &mut Bytes) -> Option<Record> {
    let _attributes = take(rest, 1)?;
    let timestamp = header.base_timestamp.wrapping_add(varint(rest)?);
    let offset = header.base_offset + varint(rest)?;
    let key = nullable(rest)?;
    let value = nullable(rest)?;
    let mut headers = Vec::new();
    for _ in 0..varint(rest)? {
        headers.push(Header {
            key: nullable(rest)??,
            value: nullable(rest)?,
        });
    }
    Some(Record {
        offset,
        timestamp,
        key,
        value,
        headers,
    })
}

fn nullable(rest: &mut Bytes) -> Option<Option<Bytes>> {
    match varint(rest)? {
        -1 => Some(None),
        len => take(rest, usize::try_from(len).ok()?).map(Some),
    }
}

fn take(rest: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= rest.len()).then(|| rest.split_to(len))
}

/// Seven bits a byte, the lowest first, and the sign in the lowest bit of all.
fn varint(rest: &mut Bytes) -> Option<i64> {
    let mut raw = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}
