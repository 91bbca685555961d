//! Making batches: for internal topics, compaction, clients in tests and the simulator.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{Attribute, crc_of};
use super::{
    BatchHeader, Compression, HEADER_LEN, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, Record, TimestampType,
};

/// Collects records and writes one batch. Offsets count up from the base offset.
///
/// Invariant: the header's count, last offset delta and maximum timestamp are those of the records
/// appended, unless [`BatchBuilder::like`] keeps the offsets of another batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    /// The base timestamp is the first record's, unless it was given.
    base_timestamp: Option<i64>,
    /// Keep the last offset delta, whatever is appended.
    keep_last_offset: bool,
    records: BytesMut,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// Base offset 0, no codec, no producer, CreateTime.
    pub fn new() -> BatchBuilder {
        BatchBuilder {
            header: BatchHeader {
                base_offset: 0,
                batch_length: 0,
                partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
                crc: 0,
                attributes: 0,
                last_offset_delta: -1,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                base_sequence: NO_SEQUENCE,
                records_count: 0,
            },
            compression: Compression::None,
            base_timestamp: None,
            keep_last_offset: false,
            records: BytesMut::new(),
        }
    }

    /// For compaction: same offsets (first and last), producer, epoch and attributes as `header`,
    /// and none of its records. Built without any, it keeps a producer's last sequence.
    pub fn like(header: &BatchHeader) -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        builder.compression = header.compression().unwrap_or_default();
        builder.base_timestamp = Some(header.base_timestamp);
        builder.keep_last_offset = true;
        builder.header = BatchHeader {
            records_count: 0,
            ..*header
        };
        if header.timestamp_type() == TimestampType::CreateTime {
            builder.header.max_timestamp = NO_TIMESTAMP;
        }
        builder
    }

    pub fn base_offset(mut self, offset: i64) -> Self {
        self.header.base_offset = offset;
        self
    }

    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    pub fn compression(mut self, codec: Compression) -> Self {
        self.compression = codec;
        self
    }

    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    pub fn transactional(mut self, on: bool) -> Self {
        self.header.set_attribute(Attribute::Transactional, on);
        self
    }

    pub fn control(mut self, on: bool) -> Self {
        self.header.set_attribute(Attribute::Control, on);
        self
    }

    /// All records have the broker's `timestamp`.
    pub fn log_append_time(mut self, timestamp: i64) -> Self {
        self.header.set_attribute(Attribute::LogAppendTime, true);
        self.header.max_timestamp = timestamp;
        self
    }

    /// When tombstones and markers may go, in milliseconds. Takes the place of the base
    /// timestamp, so it must come before the first record.
    pub fn delete_horizon_ms(mut self, horizon: i64) -> Self {
        assert!(
            self.is_empty(),
            "the horizon is the base of the records' timestamps"
        );
        self.header.set_attribute(Attribute::DeleteHorizon, true);
        self.base_timestamp = Some(horizon);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    pub fn len(&self) -> usize {
        self.header.records_count as usize
    }

    /// Bytes that the batch would have now without compression.
    pub fn size_in_bytes(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Appends at the next offset. A header is a key and a nullable value.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Self {
        assert!(
            !self.keep_last_offset,
            "use append_record for offsets of another batch"
        );
        self.header.last_offset_delta += 1;
        self.push(
            self.header.last_offset_delta,
            timestamp,
            key,
            value,
            headers,
        )
    }

    /// Appends a record of another batch at its own offset, which must lie within this one's.
    pub fn append_record(&mut self, record: &Record) -> &mut Self {
        let delta = record.offset - self.header.base_offset;
        let delta = i32::try_from(delta).expect("the record's offset lies within the batch");
        if self.keep_last_offset {
            assert!(
                delta <= self.header.last_offset_delta,
                "the record lies past the batch"
            );
        } else {
            assert!(delta > self.header.last_offset_delta, "offsets must rise");
            self.header.last_offset_delta = delta;
        }
        let headers: Vec<(&[u8], Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|h| (&h.key[..], h.value.as_deref()))
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        self.push(delta, record.timestamp, key, value, &headers)
    }

    /// The whole batch: header and, compressed if so asked, records.
    pub fn build(mut self) -> Bytes {
        assert!(
            self.header.last_offset_delta >= 0,
            "a batch has at least one offset"
        );
        let body = match self.compression {
            Compression::None => self.records.freeze(),
            codec => Bytes::from(codec.compress(&self.records)),
        };
        self.header.attributes = self.header.attributes & !0x07 | self.compression.id();
        self.header.base_timestamp = self.base_timestamp.unwrap_or(NO_TIMESTAMP);
        self.header.batch_length = i32::try_from(HEADER_LEN - LOG_OVERHEAD + body.len())
            .expect("a batch is smaller than 2 GiB");
        let mut out = BytesMut::with_capacity(HEADER_LEN + body.len());
        out.put_slice(&self.header.to_bytes());
        out.put_slice(&body);
        let crc = crc_of(&out[21..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    fn push(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Self {
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let mut record = BytesMut::new();
        record.put_i8(0); // attributes: unused
        varlong(&mut record, timestamp.wrapping_sub(base));
        varint(&mut record, offset_delta);
        nullable(&mut record, key);
        nullable(&mut record, value);
        varint(&mut record, length(headers.len()));
        for (key, value) in headers {
            nullable(&mut record, Some(key));
            nullable(&mut record, *value);
        }
        varint(&mut self.records, length(record.len()));
        self.records.put_slice(&record);
        self.header.records_count += 1;
        if self.header.timestamp_type() == TimestampType::CreateTime {
            self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        }
        self
    }
}

fn nullable(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            varint(out, length(value.len()));
            out.put_slice(value);
        }
        None => varint(out, -1),
    }
}

fn length(len: usize) -> i32 {
    i32::try_from(len).expect("a record is smaller than 2 GiB")
}

fn varint(out: &mut BytesMut, value: i32) {
    varlong(out, i64::from(value));
}

/// Zigzag: small negative numbers are short too. For an i32 the bytes are those of a varint.
fn varlong(out: &mut BytesMut, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.put_u8(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.put_u8(raw as u8);
}
