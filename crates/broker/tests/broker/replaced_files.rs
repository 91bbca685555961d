//! Fetch answers that wait while the files they are about are replaced: by a compaction, or by a
//! new topic of the same name. What is sent is what was written at the offset asked for, or
//! nothing; never other bytes.

use crate::host::{Hold, Host, START_MS, start};
use crate::requests::*;
use bytes::Bytes;
use oncelog_broker::{Chunk, PinnedFile};
use oncelog_wire::messages::{FetchRequest, FetchResponse};
use oncelog_wire::records::BatchBuilder;
use std::cell::RefCell;

const RECORDS: i64 = 40;

/// Each value says its offset; the sizes differ, so that no two batches begin at the same place
/// before and after a compaction by accident.
fn value(offset: i64) -> String {
    let filler = "x".repeat(60_000 + 977 * (offset as usize % 7));
    format!("{offset}:{filler}")
}

fn keyed(offset: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    // Every third record stays for ever, so that each segment is rewritten and none goes.
    let key = match offset % 3 {
        2 => format!("only {offset}"),
        other => format!("again {other}"),
    };
    let value = value(offset);
    builder.append(START_MS, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    builder.build()
}

const COMPACTED: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("min.cleanable.dirty.ratio", "0.01"),
];

/// Checks every record of an answer, and returns how many there were.
fn checked(answer: &FetchResponse) -> usize {
    let mut count = 0;
    for part in parts(answer) {
        for (offset, found) in records_of(part) {
            assert_eq!(found, value(offset), "the record of offset {offset}");
            count += 1;
        }
    }
    count
}

/// A fetch for each offset and several limits, none of which is encoded.
fn ask_everything(host: &mut Host, topic: &Topic) -> Vec<oncelog_broker::ConnectionId> {
    host.hold_answers();
    let mut askers = Vec::new();
    for offset in 0..RECORDS {
        for limit in [1, 200_000, 1 << 20] {
            let asker = host.connect();
            let mut request = fetch_request(topic, 12, &[(0, offset)]);
            request.topics[0].partitions[0].partition_max_bytes = limit;
            host.send(asker, 12, request);
            askers.push(asker);
        }
    }
    askers
}

fn is_compacted(host: &mut Host, topic: &Topic) {
    let first = fetched(host, topic, 0, 0);
    assert!(
        first[0].0 > 0,
        "the first record was superseded and is gone"
    );
}

#[test]
fn answers_that_wait_while_their_segments_are_compacted() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &COMPACTED);
    // Some are asked for while their segment is the active one: their places are known exactly.
    let mut askers = Vec::new();
    host.hold_answers();
    for offset in 0..RECORDS {
        let writer = host.connect();
        let request = produce_request(&topic, 9, -1, &[(0, keyed(offset))]);
        host.send(writer, 9, request);
        let asker = host.connect();
        host.send(
            asker,
            12,
            fetch_request(&topic, 12, &[(0, (offset - 3).max(0))]),
        );
        askers.push(asker);
    }
    askers.extend(ask_everything(&mut host, &topic));
    host.pass_ms(600_000);
    host.send_answers();
    let told: usize = askers
        .iter()
        .map(|asker| checked(&host.take::<FetchResponse>(*asker)))
        .sum();
    assert!(told > 0, "what lies in the active segment is sent");
    is_compacted(&mut host, &topic);
    // Whoever was told nothing asks again and is told.
    for offset in 0..RECORDS {
        let found = fetched(&mut host, &topic, 0, offset);
        assert!(found[0].0 >= offset);
        assert_eq!(found[0].1, value(found[0].0));
    }
}

/// When disk work is done: around the opening of a file.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Before,
    After,
}

/// A file that was opened: its bytes stay what they were.
#[derive(Clone)]
struct Open(Vec<u8>);

impl PinnedFile for Open {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.0.get(position as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

fn assembled(chunks: &[Chunk<Open>]) -> Bytes {
    let mut frame = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) => frame.extend_from_slice(bytes),
            Chunk::File {
                file,
                position,
                len,
            } => {
                let from = *position as usize;
                frame.extend_from_slice(&file.0[from..from + *len as usize]);
            }
        }
    }
    frame.into()
}

#[test]
fn a_compaction_between_every_two_steps_of_an_answer() {
    for at_open in [Step::Before, Step::After] {
        compact_while_encoding(at_open);
    }
}

/// A compaction is decided, and carried out one piece after the other, while answers are encoded.
fn compact_while_encoding(at_open: Step) {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &COMPACTED);
    for offset in 0..RECORDS {
        produced(&mut host, &topic, 0, keyed(offset));
    }
    let askers = ask_everything(&mut host, &topic);
    hold_compaction(&mut host);
    let mut host = encode_all(host, askers.len(), at_open, 1);
    host.send_answers();
    host.release();
    host.pass_ms(600_000);
    is_compacted(&mut host, &topic);
}

fn hold_compaction(host: &mut Host) {
    host.hold(Hold::Everything);
    host.pass_ms(600_000);
    let kinds = host.held_kinds();
    assert!(kinds.contains(&"compact"), "{kinds:?}");
}

/// Encodes that many answers, with so many pieces of held disk work each time a file is opened, and
/// checks what they hold.
fn encode_all(host: Host, count: usize, at_open: Step, pieces: usize) -> Host {
    let disk = host.disk.clone();
    let host = RefCell::new(host);
    let work = |now: Step| {
        let mut host = host.borrow_mut();
        for _ in 0..pieces {
            if at_open == now && host.held() > 0 {
                host.release_one(0);
            } else {
                break;
            }
        }
    };
    for _ in 0..count {
        let answer = host.borrow_mut().take_answer();
        let asker = answer.connection;
        let pin = |file: &oncelog_commitlog::FileName| {
            work(Step::Before);
            let content = disk.content(file).ok_or(std::io::ErrorKind::NotFound)?;
            work(Step::After);
            Ok(Open(content))
        };
        let chunks = answer.encode_pinned(&*disk, pin).expect("it is encoded");
        let frame = assembled(&chunks);
        let mut host = host.borrow_mut();
        host.deliver(asker, frame);
        checked(&host.take::<FetchResponse>(asker));
    }
    host.into_inner()
}

#[test]
fn an_answer_that_is_asked_for_while_a_swap_is_under_way() {
    // The log knows the new segment, and its name still leads to the old file.
    for at_open in [Step::Before, Step::After] {
        for offset in 0..RECORDS / 2 {
            let mut host = start(&[]);
            let topic = Topic::with(&mut host, "t", 1, &COMPACTED);
            for offset in 0..RECORDS {
                produced(&mut host, &topic, 0, keyed(offset));
            }
            hold_compaction(&mut host);
            while host.held_kinds().contains(&"compact") {
                host.release_one(0);
            }
            assert!(host.held_kinds().contains(&"steps"), "the swap");
            host.hold_answers();
            let asker = host.connect();
            let mut request = fetch_request(&topic, 12, &[(0, offset)]);
            request.topics[0].partitions[0].partition_max_bytes = 200_000;
            host.send(asker, 12, request);
            let mut host = encode_all(host, 1, at_open, usize::MAX);
            host.send_answers();
            host.release();
            host.pass_ms(600_000);
            is_compacted(&mut host, &topic);
        }
    }
}

#[test]
fn an_answer_about_a_topic_that_was_made_anew() {
    let mut host = start(&[]);
    let old = Topic::new(&mut host, "t", 1);
    for _ in 0..5 {
        produced(&mut host, &old, 0, batch(&["old"]));
    }
    let (slow, parked) = (host.connect(), host.connect());
    host.hold_answers();
    host.send(slow, 13, fetch_request(&old, 13, &[(0, 0)]));
    host.send(slow, 12, fetch_request(&old, 12, &[(0, 3)]));
    let waiting = FetchRequest {
        max_wait_ms: 1_000,
        ..fetch_request(&old, 13, &[(0, 5)])
    };
    host.send(parked, 13, waiting);
    host.send(parked, 5, delete_request("t"));
    host.send(parked, 7, new_topic("t", 1, &[]));
    let id = {
        // The new topic's id, by a question whose answer is not held back.
        host.send_answers_but(slow);
        topic_id(&mut host, "t").expect("made anew")
    };
    let new = Topic {
        name: "t".to_owned(),
        id,
    };
    for _ in 0..5 {
        produced(&mut host, &new, 0, batch(&["new"]));
    }
    host.send_answers();
    for _ in 0..2 {
        let answer: FetchResponse = host.take(slow);
        assert_eq!(records_of(parts(&answer)[0]), []);
    }
    assert_eq!(fetched(&mut host, &new, 0, 0).len(), 5);
}

#[test]
fn an_answer_about_a_segment_that_retention_took() {
    let mut host = start(&[]);
    let configs = [("segment.bytes", "1048576"), ("retention.ms", "60000")];
    let topic = Topic::with(&mut host, "t", 1, &configs);
    for offset in 0..RECORDS {
        produced(&mut host, &topic, 0, keyed(offset));
    }
    let askers = ask_everything(&mut host, &topic);
    host.pass_ms(1_200_000);
    host.send_answers();
    for asker in askers {
        checked(&host.take::<FetchResponse>(asker));
    }
    let answer: FetchResponse = host.ask(12, fetch_request(&topic, 12, &[(0, 0)]));
    assert_eq!(parts(&answer)[0].log_start_offset, RECORDS);
}
