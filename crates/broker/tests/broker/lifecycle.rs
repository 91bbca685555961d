//! Beginnings and ends: clean shutdowns, crashes, directories that are not ours, producer ids that
//! are never given out twice.

use crate::host::{Hold, Host, START_MS, start, start_on, try_start_on};
use crate::requests::*;
use oncelog_broker::{OpenError, OpenReport, open_reporting};
use oncelog_commitlog::Disk;
use oncelog_commitlog::testing::MemoryDisk;
use oncelog_coordinator::cluster::BrokerConfig;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::{
    CreateTopicsResponse, InitProducerIdRequest, InitProducerIdResponse, ProduceResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn now() -> Now {
    Now {
        instant: Instant(1),
        wall_ms: START_MS,
    }
}

// ---- InitProducerId ----

fn idempotent() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}

fn producer_id(host: &mut Host, version: i16) -> i64 {
    let ask = idempotent();
    let answer: InitProducerIdResponse = host.ask(version, ask);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    assert_eq!(answer.producer_epoch, 0);
    answer.producer_id
}

#[test]
fn producer_ids_are_unique_over_blocks_restarts_and_crashes() {
    let mut seen = BTreeSet::new();
    let mut host = start(&[]);
    for round in 0..4 {
        for version in (0..=5).cycle().take(700) {
            assert!(
                seen.insert(producer_id(&mut host, version)),
                "given out twice"
            );
        }
        host = match round {
            0 => host.crash(round),
            1 => {
                host.shut_down();
                host.reopen()
            }
            _ => host.reopen(),
        };
    }
}

#[test]
fn a_producer_id_is_not_given_out_again_when_the_metadata_log_has_lost_it() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &[]);
    let before = host.disk.content(METADATA_LOG).unwrap().len();
    let id = producer_id(&mut host, 4);
    produced(&mut host, &topic, 0, batch_from(id, 0, 0, &["a"]));
    let host = host.crash(1);
    let disk = host.disk.clone();
    drop(host);
    disk.truncate(METADATA_LOG, before as u64).unwrap();
    let mut host = start_on(disk, &[]);
    assert!(
        host.report
            .notes
            .iter()
            .any(|note| note.contains("new ones begin"))
    );
    let next = producer_id(&mut host, 4);
    assert!(next > id, "{next}");
    // It would be taken for the other one's, and acknowledged.
    produced(&mut host, &topic, 0, batch_from(next, 0, 0, &["b"]));
    assert_eq!(fetched(&mut host, &topic, 0, 1).len(), 1);
}

#[test]
fn many_ask_for_a_producer_id_while_a_block_is_on_its_way() {
    let mut host = start(&[]);
    let askers: Vec<_> = (0..50).map(|_| host.connect()).collect();
    host.hold(Hold::Everything);
    for asker in &askers {
        host.send(*asker, 4, idempotent());
    }
    assert_eq!(host.held(), 1);
    host.release();
    let ids: BTreeSet<i64> = askers
        .iter()
        .map(|asker| host.take::<InitProducerIdResponse>(*asker).producer_id)
        .collect();
    assert_eq!(ids.len(), 50);
}

#[test]
fn what_is_no_transactional_id_is_refused() {
    let ask = |id: &str| InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: 1_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let mut host = start(&[]);
    for (id, version, error) in [
        ("", 0, ErrorCode::InvalidRequest),
        ("", 5, ErrorCode::InvalidRequest),
        ("tx", 6, ErrorCode::UnsupportedVersion),
    ] {
        let answer: InitProducerIdResponse = host.ask(version, ask(id));
        assert_eq!(code(answer.error_code), error);
        assert_eq!((answer.producer_id, answer.producer_epoch), (-1, -1));
    }
    let mut host = start(&[("transaction.two.phase.commit.enable", "true")]);
    let answer: InitProducerIdResponse = host.ask(6, ask("tx"));
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

// ---- shutdown and recovery ----

/// A broker with something of everything in it.
fn lived_in() -> (Host, Topic) {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 2, &[("segment.bytes", "1048576")]);
    assert!(
        producer_id(&mut host, 4) < 7,
        "a block with 7 in it is reserved"
    );
    for sequence in 0..8 {
        produced(&mut host, &topic, 0, batch_from(7, 0, sequence, &["a"]));
        produced(&mut host, &topic, 1, large_batch(300_000));
    }
    crate::groups::commit(&mut host, "g", &topic, 0, 3);
    (host, topic)
}

fn check_lived_in(host: &mut Host, topic: &Topic) {
    assert_eq!(topic_id(host, "t"), Some(topic.id));
    assert_eq!(fetched(host, topic, 0, 0).len(), 8);
    for offset in 0..8 {
        assert_eq!(fetched(host, topic, 1, offset)[0].0, offset);
    }
    assert_eq!(crate::groups::committed(host, "g", topic, 0), 3);
    for sequence in 4..8 {
        let again = batch_from(7, 0, sequence, &["a"]);
        assert_eq!(
            produced(host, topic, 0, again),
            i64::from(sequence),
            "a duplicate"
        );
    }
    let next = produced(host, topic, 0, batch_from(7, 0, 8, &["a"]));
    assert_eq!(next, 8);
}

#[test]
fn everything_is_there_after_a_clean_shutdown() {
    let (mut host, topic) = lived_in();
    host.shut_down();
    let unsynced = host.disk.unsynced_bytes();
    let mut host = host.crash(3);
    assert_eq!(unsynced, 0, "a clean shutdown leaves nothing to lose");
    assert!(host.report.clean);
    assert_eq!(host.report.notes, Vec::<String>::new());
    check_lived_in(&mut host, &topic);
    // The marker vouches for one start only.
    let mut host = host.crash(4);
    assert!(!host.report.clean);
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 9);
}

#[test]
fn everything_acknowledged_is_there_after_a_crash() {
    for seed in 0..20 {
        let (host, topic) = lived_in();
        let mut host = host.crash(seed);
        assert!(!host.report.clean);
        check_lived_in(&mut host, &topic);
        let mut host = host.crash(seed + 100);
        assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 9);
    }
}

#[test]
fn a_shutdown_waits_for_what_is_in_flight() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let writer = host.connect();
    host.hold(Hold::Everything);
    host.send(
        writer,
        9,
        produce_request(&topic, 9, -1, &[(0, batch(&["a"]))]),
    );
    host.send(writer, 7, new_topic("u", 1, &[]));
    host.send(writer, 7, new_topic("v", 1, &[]));
    host.input(oncelog_broker::Input::ShutDown);
    assert!(!host.stopped);
    host.release();
    assert!(host.stopped);
    let answer: ProduceResponse = host.take(writer);
    assert_eq!(outcome(&answer), [(0, ErrorCode::None, 0)]);
    for _ in 0..2 {
        let made: CreateTopicsResponse = host.take(writer);
        assert_eq!(code(made.topics[0].error_code), ErrorCode::None);
    }
    let mut host = host.crash(1);
    assert!(host.report.clean);
    assert!(topic_id(&mut host, "u").is_some() && topic_id(&mut host, "v").is_some());
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 1);
}

#[test]
fn nothing_is_taken_in_once_a_shutdown_has_begun() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let (writer, late, reader) = (host.connect(), host.connect(), host.connect());
    let waiting = oncelog_wire::messages::FetchRequest {
        max_wait_ms: 60_000,
        ..fetch_request(&topic, 12, &[(0, 1)])
    };
    host.send(reader, 12, waiting);
    host.hold(Hold::Appends);
    host.send(
        writer,
        9,
        produce_request(&topic, 9, -1, &[(0, batch(&["a"]))]),
    );
    host.input(oncelog_broker::Input::ShutDown);
    host.send(
        late,
        9,
        produce_request(&topic, 9, -1, &[(0, batch(&["b"]))]),
    );
    host.send(
        late,
        9,
        produce_request(&topic, 9, 0, &[(0, batch(&["c"]))]),
    );
    host.pass_ms(3_600_000);
    assert!(!host.stopped, "the first append is still on its way");
    host.release();
    assert!(host.stopped);
    assert_eq!(outcome(&host.take(writer)), [(0, ErrorCode::None, 0)]);
    assert_eq!(host.receive(late), None);
    let mut host = host.crash(6);
    assert!(host.report.clean);
    assert_eq!(fetched(&mut host, &topic, 0, 0), [(0, "a".to_owned())]);
}

#[test]
fn power_is_cut_at_every_step_of_a_short_life() {
    // Whatever was answered is there afterwards, wherever the power was cut.
    let mut cuts = 0;
    loop {
        let disk = Arc::new(MemoryDisk::new());
        let mut host = start_on(disk.clone(), &[]);
        let before = disk.changes();
        let life = |host: &mut Host| {
            let topic = Topic::new(host, "t", 1);
            produced(host, &topic, 0, batch(&["a"]));
            crate::groups::commit(host, "g", &topic, 0, 1);
            delete_topic(host, "t");
            let topic = Topic::new(host, "t", 1);
            produced(host, &topic, 0, batch(&["b"]));
            host.shut_down();
        };
        life(&mut host);
        let total = disk.changes() - before;
        if cuts >= total {
            break;
        }
        let disk = Arc::new(MemoryDisk::new());
        let mut host = start_on(disk.clone(), &[]);
        disk.cut_power_after(cuts);
        let answered = Arc::new(std::sync::Mutex::new(Answered::default()));
        let seen = answered.clone();
        let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let note = |step: &str| seen.lock().unwrap().steps.push(step.to_owned());
            let first = Topic::new(&mut host, "t", 1);
            seen.lock().unwrap().first = Some(first.clone());
            produced(&mut host, &first, 0, batch(&["a"]));
            note("a");
            crate::groups::commit(&mut host, "g", &first, 0, 1);
            delete_topic(&mut host, "t");
            note("deleted");
            let second = Topic::new(&mut host, "t", 1);
            seen.lock().unwrap().second = Some(second.clone());
            produced(&mut host, &second, 0, batch(&["b"]));
            note("b");
            host.shut_down();
        }));
        assert!(cut.is_err(), "the power was cut at change {cuts}");
        drop(host);
        disk.crash(cuts);
        let mut host = start_on(disk, &[]);
        let answered = answered.lock().unwrap();
        let did = |step: &str| answered.steps.iter().any(|s| s == step);
        let id = topic_id(&mut host, "t");
        if let (true, Some(second)) = (did("b"), &answered.second) {
            assert_eq!(
                fetched(&mut host, second, 0, 0),
                [(0, "b".to_owned())],
                "cut {cuts}"
            );
        } else if did("deleted") {
            assert_ne!(id, answered.first.as_ref().map(|t| t.id), "cut {cuts}");
        } else if let (true, Some(first)) = (did("a"), &answered.first)
            && id == Some(first.id)
        {
            assert_eq!(
                fetched(&mut host, first, 0, 0),
                [(0, "a".to_owned())],
                "cut {cuts}"
            );
        }
        // And whatever came of it, the broker works.
        if id.is_none() {
            Topic::new(&mut host, "t", 1);
        }
        let id = topic_id(&mut host, "t").expect("made");
        let topic = Topic {
            name: "t".to_owned(),
            id,
        };
        produced(&mut host, &topic, 0, batch(&["c"]));
        cuts += 1;
    }
    assert!(cuts > 20);
}

#[derive(Default)]
struct Answered {
    steps: Vec<String>,
    first: Option<Topic>,
    second: Option<Topic>,
}

// ---- whose directory it is ----

#[test]
fn a_directory_of_another_node_is_refused() {
    let host = start(&[("node.id", "1")]);
    let disk = host.disk.clone();
    drop(host);
    let opened = try_start_on(disk.clone(), &[("node.id", "2")], now());
    assert!(matches!(opened.err(), Some(OpenError::NotOurs { .. })));
    start_on(disk, &[("node.id", "1")]);
}

#[test]
fn the_cluster_keeps_its_id() {
    let host = start(&[]);
    let id = host.report.cluster_id.clone();
    assert_eq!(id.len(), 22, "a UUID as Kafka writes it");
    let host = host.crash(1);
    assert_eq!(host.report.cluster_id, id);
}

#[test]
fn meta_properties_that_nobody_can_read() {
    for text in ["", "version=1\n", "cluster.id=\nnode.id=1\n", "node.id=1\n"] {
        let disk = Arc::new(MemoryDisk::new());
        disk.write_at("meta.properties", 0, &[text.as_bytes()])
            .unwrap();
        let opened = try_start_on(disk, &[], now());
        assert!(
            matches!(opened.err(), Some(OpenError::BadMeta(_))),
            "{text:?}"
        );
    }
    let disk = Arc::new(MemoryDisk::new());
    disk.write_at("meta.properties", 0, &[&[0xff, 0xfe]])
        .unwrap();
    assert!(try_start_on(disk, &[], now()).is_err());
}

// ---- damage ----

/// The message of a refused start, which names `file`; the same bytes restored, all is there again.
fn is_refused_until_restored(host: Host, topic: &Topic, file: &str, harm: impl Fn(&MemoryDisk)) {
    let disk = host.disk.clone();
    let whole = disk.content(file).expect("it is there");
    harm(&disk);
    let refused = host.try_reopen().err().expect("the start is refused");
    let words = refused.to_string();
    for word in [file, "Restore it from a copy"] {
        assert!(words.contains(word), "no {word:?} in {words}");
    }
    disk.remove(file).unwrap();
    disk.write_at(file, 0, &[&whole]).unwrap();
    disk.sync_everything();
    let mut host = start_on(disk, &[]);
    check_lived_in(&mut host, topic);
}

const METADATA_LOG: &str = "__cluster_metadata-0/00000000000000000000.log";

/// After a clean stop recovery reads only headers, so every bit here is below what it checks.
#[test]
fn a_bit_that_flipped_in_metadata_or_offsets_is_never_replayed() {
    let (mut host, topic) = lived_in();
    let group_log = host
        .disk
        .list("")
        .unwrap()
        .into_iter()
        .map(|dir| format!("{dir}/00000000000000000000.log"))
        .find(|file| {
            let written = host.disk.content(file).unwrap_or_default();
            file.starts_with("__consumer_offsets") && !written.is_empty()
        });
    let group_log = group_log.expect("the group has committed");
    host.shut_down();
    for (file, at) in [(METADATA_LOG, 75), (&group_log[..], 75), (METADATA_LOG, 3)] {
        let disk = Arc::new(host.disk.fork());
        let copy = start_on_stopped(disk);
        is_refused_until_restored(copy, &topic, file, |disk| disk.flip_bit(file, at, 4));
    }
}

#[test]
fn a_lost_meta_properties_makes_no_other_cluster() {
    let (host, topic) = lived_in();
    is_refused_until_restored(host, &topic, "meta.properties", |disk| {
        disk.remove("meta.properties").unwrap();
    });
}

/// A host on a directory that was shut down, shut down again.
fn start_on_stopped(disk: Arc<MemoryDisk>) -> Host {
    let mut host = start_on(disk, &[]);
    host.shut_down();
    host
}

/// Only the last batch of the metadata log can be torn by a crash.
#[test]
fn a_flaw_in_the_metadata_log_with_a_batch_behind_it_is_no_torn_tail() {
    let (host, topic) = lived_in();
    let host = host.crash(3);
    is_refused_until_restored(host.crash(4), &topic, METADATA_LOG, |disk| {
        disk.flip_bit(METADATA_LOG, 75, 4);
    });
}

/// The first start cuts a torn tail and is refused for something else; the second finds no tail.
#[test]
fn what_a_refused_start_has_cut_is_in_its_report() {
    let (host, _) = lived_in();
    let disk = host.crash(5).disk.clone();
    let end = disk.content(METADATA_LOG).unwrap().len();
    disk.write_at(METADATA_LOG, end as u64, &[b"torn"]).unwrap();
    let other = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n";
    disk.write_at("t-0/partition.metadata", 0, &[other.as_bytes()])
        .unwrap();
    let config = BrokerConfig::from_properties(&BTreeMap::new()).unwrap();
    let mut report = OpenReport::default();
    let refused = open_reporting(config, &*disk, now(), 1, &mut report).err();
    let words = refused.expect("t-0 is another topic's").to_string();
    assert!(words.contains("t-0/partition.metadata"), "{words}");
    let cut = "__cluster_metadata-0: cut 4 bytes";
    assert!(
        report.notes.iter().any(|note| note.contains(cut)),
        "{report:?}"
    );
}

#[test]
fn partitions_without_a_metadata_log_are_no_new_broker() {
    for empty in [true, false] {
        let (mut host, topic) = lived_in();
        host.shut_down();
        is_refused_until_restored(host, &topic, METADATA_LOG, |disk| match empty {
            true => disk.truncate(METADATA_LOG, 0).unwrap(),
            false => disk.remove(METADATA_LOG).unwrap(),
        });
    }
}

#[test]
fn directories_that_no_topic_claims_are_set_aside() {
    let (mut host, topic) = lived_in();
    host.shut_down();
    let disk = host.disk.clone();
    let metadata = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n";
    disk.write_at("orphan-0/partition.metadata", 0, &[metadata.as_bytes()])
        .unwrap();
    disk.write_at("orphan-0/00000000000000000000.log", 0, &[b"records"])
        .unwrap();
    disk.write_at("notes/readme.txt", 0, &[b"not a partition"])
        .unwrap();
    disk.write_at("t-0.0123456789abcdef-delete/x", 0, &[b"x"])
        .unwrap();
    let mut host = host.reopen();
    let names = disk.list("").unwrap();
    assert!(names.contains(&"orphan-0-stray".to_owned()), "{names:?}");
    assert!(!names.contains(&"orphan-0".to_owned()));
    assert!(
        names.contains(&"notes".to_owned()),
        "what is no partition stays"
    );
    assert!(!names.iter().any(|name| name.ends_with("-delete")));
    assert!(
        host.report
            .notes
            .iter()
            .any(|note| note.contains("orphan-0"))
    );
    check_lived_in(&mut host, &topic);
    // A second stray of the same name does not end the start.
    host.shut_down();
    disk.write_at("orphan-0/partition.metadata", 0, &[metadata.as_bytes()])
        .unwrap();
    let host = host.reopen();
    let names = disk.list("").unwrap();
    for name in ["orphan-0-stray", "orphan-0.2-stray"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    drop(host);
}

#[test]
fn the_files_of_a_deleted_topic_go_after_a_while() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    delete_topic(&mut host, "t");
    let dirs = |host: &Host| {
        let names = host.disk.list("").unwrap();
        names
            .into_iter()
            .filter(|name| name.starts_with("t-0"))
            .collect::<Vec<_>>()
    };
    assert_eq!(dirs(&host).len(), 1);
    assert!(dirs(&host)[0].ends_with("-delete"));
    host.pass_ms(59_000);
    assert_eq!(dirs(&host).len(), 1);
    host.pass_ms(2_000);
    assert_eq!(dirs(&host), Vec::<String>::new());
}

// ---- determinism ----

#[test]
fn the_same_inputs_give_the_same_bytes_on_disk() {
    let life = || {
        let (mut host, _) = lived_in();
        producer_id(&mut host, 4);
        host.pass_ms(1_000_000);
        host.shut_down();
        let disk = host.disk.clone();
        let mut all = Vec::new();
        for dir in disk.list("").unwrap() {
            for file in disk.list(&dir).unwrap_or_default() {
                let path = format!("{dir}/{file}");
                all.push((disk.content(&path), path));
            }
        }
        all
    };
    assert!(life() == life());
}
