//! Transactions through the front door: both protocols, what is read when, what a crash leaves, and
//! what is refused.

use crate::host::{Hold, Host, start};
use crate::requests::*;
use bytes::Bytes;
use oncelog_broker::ConnectionId;
use oncelog_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use oncelog_wire::messages::describe_producers_request::TopicRequest;
use oncelog_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use oncelog_wire::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use oncelog_wire::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use oncelog_wire::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeProducersRequest, DescribeProducersResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse,
    FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest,
    ListTransactionsResponse, OffsetFetchRequest, OffsetFetchResponse, ProduceRequest,
    ProduceResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use oncelog_wire::records::{BatchBuilder, Batches};
use oncelog_wire::{ErrorCode, RequestBody};

/// How a client speaks of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// Of kafkajs, librdkafka and Java before 4.
    V1,
    /// KIP-890.
    V2,
}

const BOTH: [Protocol; 2] = [Protocol::V1, Protocol::V2];

/// A transactional producer, as its client keeps it.
struct Producer {
    protocol: Protocol,
    connection: ConnectionId,
    id: String,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

impl Producer {
    fn init(host: &mut Host, protocol: Protocol, id: &str) -> Producer {
        let connection = host.connect();
        let ask = InitProducerIdRequest {
            transactional_id: Some(id.to_owned()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let answer: InitProducerIdResponse = host.ask_on(connection, 4, ask);
        assert_eq!(code(answer.error_code), ErrorCode::None, "{answer:?}");
        Producer {
            protocol,
            connection,
            id: id.to_owned(),
            producer_id: answer.producer_id,
            epoch: answer.producer_epoch,
            sequence: 0,
        }
    }

    fn batch(&self, values: &[&str]) -> Bytes {
        let builder = BatchBuilder::new()
            .producer(self.producer_id, self.epoch, self.sequence)
            .transactional(true);
        batch_of(builder, values)
    }

    fn request(&self, topic: &Topic, index: i32, batch: Bytes) -> (i16, ProduceRequest) {
        let version = match self.protocol {
            Protocol::V1 => 9,
            Protocol::V2 => 12,
        };
        let mut request = produce_request(topic, version, -1, &[(index, batch)]);
        request.transactional_id = Some(self.id.clone());
        (version, request)
    }

    fn add(&self, host: &mut Host, topic: &str, index: i32) -> ErrorCode {
        let ask = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.clone(),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: topic.to_owned(),
                partitions: vec![index],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: AddPartitionsToTxnResponse = host.ask_on(self.connection, 0, ask);
        let topic = &answer.results_by_topic_v3_and_below[0];
        code(topic.results_by_partition[0].partition_error_code)
    }

    /// To partition 0.
    fn produce(&mut self, host: &mut Host, topic: &Topic, values: &[&str]) -> ErrorCode {
        if self.protocol == Protocol::V1 {
            assert_eq!(self.add(host, &topic.name, 0), ErrorCode::None);
        }
        let (version, request) = self.request(topic, 0, self.batch(values));
        let answer: ProduceResponse = host.ask_on(self.connection, version, request);
        let (_, error, _) = outcome(&answer)[0];
        if error == ErrorCode::None {
            self.sequence += values.len() as i32;
        }
        error
    }

    fn end_request(&self, committed: bool) -> (i16, EndTxnRequest) {
        let request = EndTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed,
            ..Default::default()
        };
        match self.protocol {
            Protocol::V1 => (1, request),
            Protocol::V2 => (5, request),
        }
    }

    fn end(&mut self, host: &mut Host, committed: bool) -> ErrorCode {
        let (version, request) = self.end_request(committed);
        let answer: EndTxnResponse = host.ask_on(self.connection, version, request);
        self.ended(&answer);
        code(answer.error_code)
    }

    fn ended(&mut self, answer: &EndTxnResponse) {
        if self.protocol == Protocol::V2 && answer.error_code == 0 {
            (self.producer_id, self.epoch) = (answer.producer_id, answer.producer_epoch);
            self.sequence = 0;
        }
    }

    fn commit_offset(&self, host: &mut Host, group: &str, topic: &str, offset: i64) -> ErrorCode {
        if self.protocol == Protocol::V1 {
            let ask = AddOffsetsToTxnRequest {
                transactional_id: self.id.clone(),
                producer_id: self.producer_id,
                producer_epoch: self.epoch,
                group_id: group.to_owned(),
                ..Default::default()
            };
            let answer: AddOffsetsToTxnResponse = host.ask_on(self.connection, 3, ask);
            assert_eq!(code(answer.error_code), ErrorCode::None);
        }
        self.commit_offset_alone(host, group, topic, offset)
    }

    /// Without telling the coordinator of transactions.
    fn commit_offset_alone(
        &self,
        host: &mut Host,
        group: &str,
        topic: &str,
        offset: i64,
    ) -> ErrorCode {
        let ask = TxnOffsetCommitRequest {
            transactional_id: self.id.clone(),
            group_id: group.to_owned(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: topic.to_owned(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    committed_leader_epoch: -1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let version = match self.protocol {
            Protocol::V1 => 3,
            Protocol::V2 => 5,
        };
        let answer: TxnOffsetCommitResponse = host.ask_on(self.connection, version, ask);
        code(answer.topics[0].partitions[0].error_code)
    }
}

/// What a client shows its application: what of an answer is not aborted.
fn read_committed(host: &mut Host, topic: &Topic) -> Vec<String> {
    let mut request = fetch_request(topic, 12, &[(0, 0)]);
    request.isolation_level = 1;
    let answer: FetchResponse = host.ask(12, request);
    let part = parts(&answer)[0].clone();
    assert_eq!(code(part.error_code), ErrorCode::None);
    let mut aborted = part.aborted_transactions.clone().expect("a list");
    aborted.sort_by_key(|transaction| transaction.first_offset);
    let (mut shown, mut hidden) = (Vec::new(), Vec::new());
    for batch in Batches::new(record_bytes(&part)) {
        let batch = batch.expect("whole batches");
        let producer = batch.header.producer_id;
        aborted.retain(|transaction| {
            let begins = transaction.first_offset <= batch.header.last_offset();
            if begins {
                hidden.push(transaction.producer_id);
            }
            !begins
        });
        if batch.header.is_control() {
            hidden.retain(|hidden| *hidden != producer);
            continue;
        }
        if batch.header.is_transactional() && hidden.contains(&producer) {
            continue;
        }
        for record in batch.records(1 << 20).expect("a codec") {
            let value = record.expect("a record").value.unwrap_or_default();
            shown.push(String::from_utf8_lossy(&value).into_owned());
        }
    }
    shown
}

fn committed_offset(host: &mut Host, group: &str, topic: &str, stable: bool) -> (ErrorCode, i64) {
    let ask = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            member_epoch: -1,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.to_owned(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        require_stable: stable,
        ..Default::default()
    };
    let answer: OffsetFetchResponse = host.ask(8, ask);
    let part = &answer.groups[0].topics[0].partitions[0];
    (code(part.error_code), part.committed_offset)
}

#[test]
fn what_is_committed_is_read_and_what_is_aborted_is_not() {
    for protocol in BOTH {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let mut producer = Producer::init(&mut host, protocol, "id");
        for round in 0..6 {
            let values = [format!("{round}a"), format!("{round}b")];
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            assert_eq!(
                producer.produce(&mut host, &topic, &values),
                ErrorCode::None
            );
            let before = read_committed(&mut host, &topic).len();
            let committed = usize::div_ceil(round, 2) * 2;
            assert_eq!(before, committed, "nothing of what is open is read");
            assert_eq!(producer.end(&mut host, round % 2 == 0), ErrorCode::None);
        }
        let expected = ["0a", "0b", "2a", "2b", "4a", "4b"];
        assert_eq!(read_committed(&mut host, &topic), expected, "{protocol:?}");
        let everything = fetched(&mut host, &topic, 0, 0);
        assert_eq!(everything.len(), 12 + 6, "six markers among them");
        let mut host = host.crash(1);
        assert_eq!(read_committed(&mut host, &topic), expected, "{protocol:?}");
    }
}

#[test]
fn a_commit_is_answered_when_it_cannot_be_lost() {
    for protocol in BOTH {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let mut producer = Producer::init(&mut host, protocol, "id");
        assert_eq!(producer.produce(&mut host, &topic, &["a"]), ErrorCode::None);
        host.hold(Hold::Appends);
        let (version, request) = producer.end_request(true);
        host.send(producer.connection, version, request);
        assert_eq!(host.receive(producer.connection), None);
        assert_eq!(host.held(), 1, "the decision alone, and no marker yet");
        host.release_one(0);
        let answer: EndTxnResponse = host.take(producer.connection);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(host.held(), 1, "the marker");
        assert!(read_committed(&mut host, &topic).is_empty());
        host.release_one(0);
        assert_eq!(read_committed(&mut host, &topic), ["a"]);
        host.release();
        // The next transaction begins as soon as this one is complete.
        producer.ended(&answer);
        assert_eq!(producer.produce(&mut host, &topic, &["b"]), ErrorCode::None);
    }
}

#[test]
fn a_crash_after_the_decision_does_not_undo_it() {
    for protocol in BOTH {
        for committed in [true, false] {
            let mut host = start(&[]);
            let topic = Topic::new(&mut host, "t", 1);
            let mut producer = Producer::init(&mut host, protocol, "id");
            assert_eq!(producer.produce(&mut host, &topic, &["a"]), ErrorCode::None);
            host.hold(Hold::Appends);
            let (version, request) = producer.end_request(committed);
            host.send(producer.connection, version, request);
            host.release_one(0);
            assert!(host.receive(producer.connection).is_some());
            let mut host = host.crash(3);
            let expected: &[&str] = if committed { &["a"] } else { &[] };
            assert_eq!(read_committed(&mut host, &topic), expected, "{protocol:?}");
        }
    }
}

#[test]
fn a_transaction_that_is_never_ended_is_aborted_after_its_time() {
    for protocol in BOTH {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let mut producer = Producer::init(&mut host, protocol, "id");
        assert_eq!(
            producer.produce(&mut host, &topic, &["lost"]),
            ErrorCode::None
        );
        produced(&mut host, &topic, 0, batch(&["plain"]));
        assert!(read_committed(&mut host, &topic).is_empty());
        host.pass_ms(61_000);
        assert_eq!(read_committed(&mut host, &topic), ["plain"]);
        // The producer is fenced, and a new instance goes on.
        let error = match protocol {
            Protocol::V1 => producer.add(&mut host, "t", 0),
            Protocol::V2 => producer.produce(&mut host, &topic, &["late"]),
        };
        assert!(
            matches!(
                error,
                ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch
            ),
            "{error:?}"
        );
        let mut next = Producer::init(&mut host, protocol, "id");
        assert_eq!(next.produce(&mut host, &topic, &["next"]), ErrorCode::None);
        assert_eq!(next.end(&mut host, true), ErrorCode::None);
        assert_eq!(read_committed(&mut host, &topic), ["plain", "next"]);
    }
}

#[test]
fn a_new_instance_fences_the_old_one_and_aborts_what_it_had_open() {
    for protocol in BOTH {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let mut zombie = Producer::init(&mut host, protocol, "id");
        assert_eq!(zombie.produce(&mut host, &topic, &["a"]), ErrorCode::None);
        let mut next = Producer::init(&mut host, protocol, "id");
        assert_eq!(next.producer_id, zombie.producer_id);
        assert!(next.epoch > zombie.epoch);
        let (version, request) = zombie.request(&topic, 0, zombie.batch(&["zombie"]));
        let answer: ProduceResponse = host.ask_on(zombie.connection, version, request);
        assert_ne!(outcome(&answer)[0].1, ErrorCode::None);
        assert_ne!(zombie.end(&mut host, true), ErrorCode::None);
        assert_eq!(next.produce(&mut host, &topic, &["b"]), ErrorCode::None);
        assert_eq!(next.end(&mut host, true), ErrorCode::None);
        assert_eq!(read_committed(&mut host, &topic), ["b"]);
    }
}

#[test]
fn offsets_count_with_the_transaction_and_not_before() {
    for protocol in BOTH {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let mut producer = Producer::init(&mut host, protocol, "id");
        for (committed, offset, then) in [(true, 5, 5), (false, 9, 5), (true, 7, 7)] {
            let before = committed_offset(&mut host, "g", "t", false).1;
            assert_eq!(producer.produce(&mut host, &topic, &["x"]), ErrorCode::None);
            let error = producer.commit_offset(&mut host, "g", "t", offset);
            assert_eq!(error, ErrorCode::None, "{protocol:?}");
            let pending = committed_offset(&mut host, "g", "t", true);
            assert_eq!(pending.0, ErrorCode::UnstableOffsetCommit);
            let unstable = committed_offset(&mut host, "g", "t", false);
            assert_eq!(unstable, (ErrorCode::None, before));
            assert_eq!(producer.end(&mut host, committed), ErrorCode::None);
            let stable = committed_offset(&mut host, "g", "t", true);
            assert_eq!(stable, (ErrorCode::None, then), "{protocol:?}");
        }
        let mut host = host.crash(5);
        assert_eq!(committed_offset(&mut host, "g", "t", true).1, 7);
    }
}

#[test]
fn a_batch_outside_of_any_transaction_is_refused() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let producer = Producer::init(&mut host, Protocol::V1, "id");
    let refused = |host: &mut Host, version: i16, id: Option<&str>| {
        let mut request = produce_request(&topic, version, -1, &[(0, producer.batch(&["a"]))]);
        request.transactional_id = id.map(str::to_owned);
        let answer: ProduceResponse = host.ask_on(producer.connection, version, request);
        outcome(&answer)[0].1
    };
    assert_eq!(
        refused(&mut host, 9, Some("id")),
        ErrorCode::InvalidTxnState
    );
    assert_eq!(
        refused(&mut host, 11, Some("id")),
        ErrorCode::TransactionAbortable
    );
    assert_eq!(
        refused(&mut host, 9, None),
        ErrorCode::TransactionalIdAuthorizationFailed
    );
    assert_eq!(
        refused(&mut host, 9, Some("another")),
        ErrorCode::InvalidProducerIdMapping
    );
    assert!(fetched(&mut host, &topic, 0, 0).is_empty());
}

/// While the coordinator's record is on its way to the disk, the batch waits, and so does all that
/// comes after it on its connection.
#[test]
fn batches_wait_for_the_coordinator_in_their_order() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let mut producer = Producer::init(&mut host, Protocol::V2, "id");
    host.hold(Hold::Appends);
    for value in ["a", "b", "c"] {
        let (version, request) = producer.request(&topic, 0, producer.batch(&[value]));
        host.send(producer.connection, version, request);
        producer.sequence += 1;
    }
    assert_eq!(host.held(), 1, "the coordinator's record alone");
    host.release();
    for offset in 0..3 {
        let answer: ProduceResponse = host.take(producer.connection);
        assert_eq!(outcome(&answer), [(0, ErrorCode::None, offset)]);
    }
    host.hold(Hold::Nothing);
    assert_eq!(producer.end(&mut host, true), ErrorCode::None);
    assert_eq!(read_committed(&mut host, &topic), ["a", "b", "c"]);
}

/// Jepsen's finding of 2024: without the guard the late EndTxn ends the second transaction.
#[test]
fn an_end_that_was_held_up_on_an_old_connection_does_not_end_the_next_transaction() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let mut producer = Producer::init(&mut host, Protocol::V1, "id");
    assert_eq!(
        producer.produce(&mut host, &topic, &["first"]),
        ErrorCode::None
    );
    let late = producer.end_request(true);
    // The client gives up on the connection and tries again on a new one.
    let old = std::mem::replace(&mut producer.connection, host.connect());
    assert_eq!(producer.end(&mut host, true), ErrorCode::None);
    assert_eq!(
        producer.produce(&mut host, &topic, &["second"]),
        ErrorCode::None
    );
    // Only now does the first EndTxn arrive.
    let answer: EndTxnResponse = host.ask_on(old, late.0, late.1);
    assert_eq!(code(answer.error_code), ErrorCode::NotCoordinator);
    assert_eq!(read_committed(&mut host, &topic), ["first"]);
    let late = |line: &str| line.contains("EndTxn") && line.contains("it is late");
    assert!(
        host.logs.iter().any(|(_, line)| late(line)),
        "{:?}",
        host.logs
    );
    assert_eq!(producer.end(&mut host, false), ErrorCode::None);
    assert_eq!(read_committed(&mut host, &topic), ["first"]);
}

/// The late batch is refused, and leaves nothing behind that keeps the next transaction out.
#[test]
fn a_write_that_was_held_up_on_an_old_connection_is_refused_and_forgotten() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let mut producer = Producer::init(&mut host, Protocol::V1, "id");
    let old = producer.connection;
    let (version, late) = producer.request(&topic, 0, producer.batch(&["first"]));
    producer.connection = host.connect();
    for value in ["first", "second"] {
        let error = producer.produce(&mut host, &topic, &[value]);
        assert_eq!(error, ErrorCode::None);
        assert_eq!(producer.end(&mut host, true), ErrorCode::None);
    }
    let answer: ProduceResponse = host.ask_on(old, version, late);
    assert_eq!(outcome(&answer)[0].1, ErrorCode::NotLeaderOrFollower);
    let error = producer.produce(&mut host, &topic, &["third"]);
    assert_eq!(error, ErrorCode::None);
    assert_eq!(producer.end(&mut host, true), ErrorCode::None);
    assert_eq!(
        read_committed(&mut host, &topic),
        ["first", "second", "third"]
    );
}

/// Offsets of an aborted transaction must not be committed with the next one.
#[test]
fn offsets_that_were_held_up_on_an_old_connection_are_refused() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let mut producer = Producer::init(&mut host, Protocol::V1, "id");
    let old = std::mem::replace(&mut producer.connection, host.connect());
    for (committed, offset) in [(false, 9), (true, 5)] {
        let error = producer.produce(&mut host, &topic, &["x"]);
        assert_eq!(error, ErrorCode::None);
        let error = producer.commit_offset(&mut host, "g", "t", offset);
        assert_eq!(error, ErrorCode::None);
        if committed {
            // The first transaction's commit, sent before its retry, arrives only now.
            let current = std::mem::replace(&mut producer.connection, old);
            let error = producer.commit_offset_alone(&mut host, "g", "t", 9);
            assert_eq!(error, ErrorCode::NotCoordinator);
            producer.connection = current;
        }
        assert_eq!(producer.end(&mut host, committed), ErrorCode::None);
    }
    let stable = committed_offset(&mut host, "g", "t", true);
    assert_eq!(stable, (ErrorCode::None, 5));
}

#[test]
fn an_operator_sees_a_transaction_and_can_end_it_in_a_partition() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let mut producer = Producer::init(&mut host, Protocol::V2, "id");
    assert_eq!(producer.produce(&mut host, &topic, &["a"]), ErrorCode::None);
    let listed: ListTransactionsResponse = host.ask(
        0,
        ListTransactionsRequest {
            state_filters: vec!["Ongoing".to_owned()],
            ..Default::default()
        },
    );
    assert_eq!(listed.transaction_states[0].transactional_id, "id");
    let described: DescribeTransactionsResponse = host.ask(
        0,
        DescribeTransactionsRequest {
            transactional_ids: vec!["id".to_owned(), "nobody".to_owned()],
            ..Default::default()
        },
    );
    let states = &described.transaction_states;
    assert_eq!(states[0].transaction_state, "Ongoing");
    assert_eq!(states[0].topics[0].topic, "t");
    assert_eq!(
        code(states[1].error_code),
        ErrorCode::TransactionalIdNotFound
    );
    let ask = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: "t".to_owned(),
            partition_indexes: vec![0, 1],
            ..Default::default()
        }],
        ..Default::default()
    };
    let producers: DescribeProducersResponse = host.ask(0, ask);
    let open = &producers.topics[0].partitions[0].active_producers[0];
    assert_eq!(open.current_txn_start_offset, 0);
    assert_eq!(
        code(producers.topics[0].partitions[1].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let ask = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: open.producer_id,
            producer_epoch: open.producer_epoch as i16,
            coordinator_epoch: open.coordinator_epoch,
            topics: vec![WritableTxnMarkerTopic {
                name: "t".to_owned(),
                partition_indexes: vec![0],
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let written: WriteTxnMarkersResponse = host.ask(1, ask);
    assert_eq!(written.markers[0].topics[0].partitions[0].error_code, 0);
    produced(&mut host, &topic, 0, batch(&["plain"]));
    assert_eq!(read_committed(&mut host, &topic), ["plain"]);
}

#[test]
fn deleting_a_topic_does_not_keep_a_transaction_from_ending() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let gone = Topic::new(&mut host, "gone", 1);
    let mut producer = Producer::init(&mut host, Protocol::V1, "id");
    assert_eq!(producer.produce(&mut host, &topic, &["a"]), ErrorCode::None);
    producer.sequence = 0;
    assert_eq!(producer.produce(&mut host, &gone, &["a"]), ErrorCode::None);
    delete_topic(&mut host, "gone");
    assert_eq!(producer.end(&mut host, true), ErrorCode::None);
    assert_eq!(read_committed(&mut host, &topic), ["a"]);
    producer.sequence = 1;
    assert_eq!(producer.produce(&mut host, &topic, &["b"]), ErrorCode::None);
    assert_eq!(producer.end(&mut host, true), ErrorCode::None);
    assert_eq!(read_committed(&mut host, &topic), ["a", "b"]);
}

/// One sensible request of every API, with something in every list.
pub fn corpus(topic: &str) -> Vec<RequestBody> {
    let (id, name) = ("tx".to_owned(), topic.to_owned());
    let add = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: id.clone(),
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: name.clone(),
            partitions: vec![0, 1],
            ..Default::default()
        }],
        ..Default::default()
    };
    let add_offsets = AddOffsetsToTxnRequest {
        transactional_id: id.clone(),
        group_id: "g".to_owned(),
        ..Default::default()
    };
    let end = |committed| EndTxnRequest {
        transactional_id: id.clone(),
        committed,
        ..Default::default()
    };
    let offsets = TxnOffsetCommitRequest {
        transactional_id: id.clone(),
        group_id: "g".to_owned(),
        generation_id: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: name.clone(),
            partitions: vec![TxnOffsetCommitRequestPartition::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let markers = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            topics: vec![WritableTxnMarkerTopic {
                name: name.clone(),
                partition_indexes: vec![0, 7],
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let producers = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name,
            partition_indexes: vec![0, 7],
            ..Default::default()
        }],
        ..Default::default()
    };
    let list = ListTransactionsRequest {
        state_filters: vec!["Ongoing".to_owned()],
        producer_id_filters: vec![0],
        ..Default::default()
    };
    let describe = DescribeTransactionsRequest {
        transactional_ids: vec![id.clone()],
        ..Default::default()
    };
    vec![
        add.into(),
        add_offsets.into(),
        offsets.into(),
        end(true).into(),
        end(false).into(),
        markers.into(),
        producers.into(),
        list.into(),
        describe.into(),
    ]
}
