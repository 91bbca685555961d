//! What lies in `__transaction_state`: Kafka's own keys and values, to and from bytes.
//!
//! A key is an i16 0, then the id; a value is an i16 version, then the value's fields. Written is
//! version 1, read are 0 and 1. Tag [`OWN_TAG`] holds what Kafka has no place for: an i8 version
//! of its own, the producer's epoch before its newest, and the [`History`]. Kafka's readers skip
//! a tag that they do not know, and a value without it (Kafka's) is read as well.
//!
//! Keys of another kind are skipped, as Kafka does (KIP-915); a malformed body is an error.

use super::history::History;
use super::partitions::Partitions;
use super::state::TransactionState;
use super::transaction::{Identity, Transaction};
use crate::Record;
use bytes::Bytes;
use oncelog_wire::messages::transaction_log_value::PartitionsSchema;
use oncelog_wire::messages::{TransactionLogKey, TransactionLogValue};
use oncelog_wire::{DecodeError, EncodeError, RawTaggedField, Reader, Writer};
use std::sync::Arc;

const KEY_VERSION: i16 = TransactionLogKey::API_KEY;
const VALUE_VERSION: i16 = TransactionLogValue::MAX_VERSION;
const OWN_TAG: u32 = 10_000;
const OWN_VERSION: i8 = 1;

/// Why a record cannot be replayed: the partition's bytes are not what Kafka would write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("record key: {0}")]
    Key(DecodeError),
    #[error("record value: {0}")]
    Value(DecodeError),
    #[error("{0} is no state that a transaction is ever stored in")]
    State(i8),
}

/// `None` for a kind of record that is not known here; no transaction is a tombstone.
pub(crate) fn decode(
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<Option<(String, Option<Transaction>)>, ReplayError> {
    // Copies: what is kept of a record must not keep its whole batch in memory.
    let mut key = Reader::new(Bytes::copy_from_slice(key));
    if key.i16().map_err(ReplayError::Key)? != KEY_VERSION {
        return Ok(None);
    }
    let key = TransactionLogKey::decode(&mut key, KEY_VERSION).map_err(ReplayError::Key)?;
    let transaction = value.map(decode_value).transpose()?;
    Ok(Some((key.transactional_id, transaction)))
}

fn decode_value(value: &[u8]) -> Result<Transaction, ReplayError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(value));
    let version = reader.i16().map_err(ReplayError::Value)?;
    let value = TransactionLogValue::decode(&mut reader, version).map_err(ReplayError::Value)?;
    let code = value.transaction_status;
    let state = TransactionState::from_code(code).ok_or(ReplayError::State(code))?;
    let mut partitions = Partitions::default();
    for topic in value.transaction_partitions.iter().flatten() {
        for partition in &topic.partition_ids {
            partitions.add(&topic.topic, *partition);
        }
    }
    let next = (value.next_producer_id >= 0).then(|| Identity {
        producer_id: value.next_producer_id,
        // Kafka leaves it out where it can only be 0.
        producer_epoch: value.next_producer_epoch.max(0),
    });
    let mut transaction = Transaction {
        producer_id: value.producer_id,
        producer_epoch: value.producer_epoch,
        previous_producer_id: value.previous_producer_id,
        next,
        last_producer_epoch: -1,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions,
        start_ms: value.transaction_start_timestamp_ms,
        update_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
        history: Arc::default(),
    };
    let own = value
        .unknown_tagged_fields
        .into_iter()
        .find(|field| field.tag == OWN_TAG);
    let understood = own.map(|field| decode_own(field.data, &mut transaction));
    if !understood
        .transpose()
        .map_err(ReplayError::Value)?
        .unwrap_or(false)
    {
        transaction.last_producer_epoch = last_epoch_of_kafka(&transaction);
    }
    Ok(transaction)
}

/// Whether it is in a version that is known here.
fn decode_own(data: Bytes, transaction: &mut Transaction) -> Result<bool, DecodeError> {
    let mut reader = Reader::new(data);
    if reader.i8()? != OWN_VERSION {
        return Ok(false);
    }
    transaction.last_producer_epoch = reader.i16()?;
    transaction.history = Arc::new(History::decode(&mut reader)?);
    Ok(true)
}

/// Kafka does not store it. After a transaction ended under version 2 it was one less, or the
/// last of the producer id before.
fn last_epoch_of_kafka(transaction: &Transaction) -> i16 {
    let has_ended = !matches!(
        transaction.state,
        TransactionState::Empty | TransactionState::Ongoing
    );
    match transaction.identity().producer_epoch {
        _ if transaction.client_version < 2 || !has_ended => -1,
        0 => i16::MAX - 1,
        epoch => epoch - 1,
    }
}

pub(crate) fn record(transactional_id: &str, transaction: &Transaction) -> Record {
    Record {
        key: key(transactional_id),
        value: Some(value(transaction)),
    }
}

pub(crate) fn tombstone(transactional_id: &str) -> Record {
    Record {
        key: key(transactional_id),
        value: None,
    }
}

fn key(transactional_id: &str) -> Bytes {
    let key = TransactionLogKey {
        transactional_id: transactional_id.to_owned(),
    };
    body(KEY_VERSION, |w| key.encode(w, KEY_VERSION))
}

fn value(transaction: &Transaction) -> Bytes {
    let topic = |(topic, partitions): (&str, &std::collections::BTreeSet<i32>)| PartitionsSchema {
        topic: topic.to_owned(),
        partition_ids: partitions.iter().copied().collect(),
        ..Default::default()
    };
    let partitions = transaction.partitions.topics().map(topic).collect();
    let next = transaction.next;
    let value = TransactionLogValue {
        producer_id: transaction.producer_id,
        previous_producer_id: transaction.previous_producer_id,
        next_producer_id: next.map_or(-1, |next| next.producer_id),
        producer_epoch: transaction.producer_epoch,
        next_producer_epoch: match next {
            Some(next) if next.producer_epoch > 0 => next.producer_epoch,
            _ => -1,
        },
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state as i8,
        transaction_partitions: match transaction.state {
            TransactionState::Empty => None,
            _ => Some(partitions),
        },
        transaction_last_update_timestamp_ms: transaction.update_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        client_transaction_version: transaction.client_version,
        unknown_tagged_fields: vec![own(transaction)],
    };
    body(VALUE_VERSION, |w| value.encode(w, VALUE_VERSION))
}

fn own(transaction: &Transaction) -> RawTaggedField {
    let mut writer = Writer::new();
    writer.i8(OWN_VERSION);
    writer.i16(transaction.last_producer_epoch);
    transaction
        .history
        .encode(&mut writer)
        .expect("names in a history are short");
    RawTaggedField {
        tag: OWN_TAG,
        data: writer.into_bytes().expect("nothing external in a history"),
    }
}

fn body(version: i16, encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(version);
    // Every string in here came through the reader, so it fits.
    encode(&mut writer).expect("a transaction fits Kafka's schema");
    writer
        .into_bytes()
        .expect("no external bytes in a transaction's record")
}

#[cfg(test)]
mod tests {
    use super::super::history::{Event, Why};
    use super::*;

    fn some_transaction(state: TransactionState) -> Transaction {
        let mut partitions = Partitions::default();
        if state != TransactionState::Empty {
            partitions.add("t", 0);
            partitions.add("t", 2);
            partitions.add("u", 1);
        }
        let identity = Identity {
            producer_id: 4_000,
            producer_epoch: 5,
        };
        let mut history = History::default();
        history.add(Event {
            why: Why::Recovered,
            wall_ms: 1_000,
            identity,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
        });
        Transaction {
            producer_id: 4_000,
            producer_epoch: 5,
            previous_producer_id: 3_000,
            next: None,
            last_producer_epoch: 4,
            timeout_ms: 60_000,
            state,
            partitions,
            start_ms: 900,
            update_ms: 1_000,
            client_version: 2,
            history: Arc::new(history),
        }
    }

    #[test]
    fn every_state_round_trips() {
        for state in TransactionState::ALL {
            for next in [None, Some((4_000, 9)), Some((5_000, 0))] {
                let mut transaction = some_transaction(state);
                transaction.next = next.map(|(producer_id, producer_epoch)| Identity {
                    producer_id,
                    producer_epoch,
                });
                let record = record("id", &transaction);
                assert_eq!(&record.key[..], &[0, 0, 0, 2, b'i', b'd']);
                let decoded = decode(&record.key, record.value.as_deref());
                assert_eq!(decoded, Ok(Some(("id".into(), Some(transaction)))));
            }
        }
        let gone = tombstone("id");
        assert_eq!(decode(&gone.key, None), Ok(Some(("id".into(), None))));
    }

    #[test]
    fn values_of_kafka_are_read() {
        // Version 0, CompleteCommit, no partitions.
        let mut value = vec![0, 0];
        value.extend(9i64.to_be_bytes());
        value.extend(3i16.to_be_bytes());
        value.extend(60_000i32.to_be_bytes());
        value.push(4);
        value.extend(0i32.to_be_bytes());
        value.extend(20i64.to_be_bytes());
        value.extend(10i64.to_be_bytes());
        let Ok(Some((id, Some(read)))) = decode(&tombstone("x").key, Some(&value)) else {
            panic!("a transaction");
        };
        assert_eq!(id, "x");
        assert_eq!((read.producer_id, read.producer_epoch), (9, 3));
        assert_eq!(read.state, TransactionState::CompleteCommit);
        assert_eq!(read.last_identity(), None);

        // Version 1 without our field: the epoch before is known after a transaction of version 2.
        let kafkas = |state, epoch, next_producer_id| {
            let value = TransactionLogValue {
                producer_id: 9,
                producer_epoch: epoch,
                next_producer_id,
                transaction_status: state as i8,
                client_transaction_version: 2,
                ..Default::default()
            };
            let value = body(1, |w| value.encode(w, 1));
            let decoded = decode(&tombstone("x").key, Some(&value)).unwrap().unwrap();
            decoded.1.unwrap().last_identity()
        };
        let last = |producer_id, producer_epoch| {
            Some(Identity {
                producer_id,
                producer_epoch,
            })
        };
        assert_eq!(kafkas(TransactionState::CompleteAbort, 3, -1), last(9, 2));
        assert_eq!(
            kafkas(TransactionState::PrepareCommit, i16::MAX, 10),
            last(9, i16::MAX - 1)
        );
        assert_eq!(kafkas(TransactionState::Empty, 3, -1), None);
    }

    #[test]
    fn unknown_kinds_are_skipped_and_malformed_records_refused() {
        assert_eq!(decode(&[0, 9, 1], None), Ok(None));
        assert!(matches!(decode(&[0], None), Err(ReplayError::Key(_))));
        let key = tombstone("x").key;
        for value in [&[0u8, 7][..], &[0], &[0, 1, 4]] {
            let refused = decode(&key, Some(value));
            assert!(matches!(refused, Err(ReplayError::Value(_))), "{refused:?}");
        }
        for state in [-1, 6, 7] {
            let value = TransactionLogValue {
                transaction_status: state,
                ..Default::default()
            };
            let value = body(0, |w| value.encode(w, 0));
            assert_eq!(decode(&key, Some(&value)), Err(ReplayError::State(state)));
        }
    }
}
