//! Transactions of librdkafka's producer, seen through the commands. Skipped on a cluster without
//! transactions.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::run::{Oncelog, unique};

const LIMIT: Duration = Duration::from_secs(30);

/// None, and a line on the terminal, if the cluster has no transactions.
fn cluster(test: &str) -> Option<Oncelog> {
    let oncelog = Oncelog::new(test)?;
    let listed = oncelog.run(&["txn", "list"]);
    if listed.err.contains("does not offer ListTransactions") {
        println!("SKIPPED {test}: the cluster has no transactions");
        return None;
    }
    assert_eq!(listed.code, 0, "{}", listed.err);
    Some(oncelog)
}

fn producer(oncelog: &Oncelog, transactional_id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", oncelog.bootstrap())
        .set("transactional.id", transactional_id)
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, values: &[&str]) {
    for value in values {
        let record = BaseRecord::<(), str>::to(topic).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

#[test]
fn committed_aborted_and_open_records_are_told_apart() {
    let Some(oncelog) = cluster("committed_aborted_and_open_records_are_told_apart") else {
        return;
    };
    let (topic, id) = (oncelog.topic(1), unique("txn"));
    let first = producer(&oncelog, &id);
    for (values, commit) in [(["a", "b"], true), (["c", "d"], false), (["e", "f"], true)] {
        first.begin_transaction().unwrap();
        send(&first, &topic, &values);
        match commit {
            true => first.commit_transaction(LIMIT).unwrap(),
            false => first.abort_transaction(LIMIT).unwrap(),
        }
    }
    let read = oncelog.run(&["consume", &topic, "-e"]);
    assert_eq!((read.code, read.out.as_str()), (0, "a\nb\ne\nf\n"));
    let hidden = "hidden: 2 records: 2 of aborted transactions";
    assert!(read.err.contains(hidden), "{}", read.err);

    first.begin_transaction().unwrap();
    send(&first, &topic, &["g"]);
    oncelog.produce(&[&topic], "h\n");
    let read = oncelog.run(&["consume", &topic, "-e"]);
    assert_eq!((read.code, read.out.as_str()), (0, "a\nb\ne\nf\n"));
    let hidden = "hidden: 4 records: 2 of aborted transactions, 1 of transactions still open";
    assert!(read.err.contains(hidden), "{}", read.err);
    assert!(
        read.err.contains("1 behind an open transaction"),
        "{}",
        read.err
    );
    let read = oncelog.run(&["consume", &topic, "-n", "3"]);
    assert_eq!(read.out, "a\nb\ne\n");
    assert!(read.err.contains("hidden: 2 records"), "{}", read.err);
    let read = oncelog.run(&["consume", &topic, "-n", "2"]);
    assert_eq!(read.err, "");
    let all = ["consume", &topic, "-e", "--isolation", "read_uncommitted"];
    let read = oncelog.run(&all);
    assert_eq!(read.out, "a\nb\nc\nd\ne\nf\ng\nh\n");
    assert_eq!(read.err, "");

    let shown = oncelog.ok(&["consume", &topic, "--show-transactions", "-f", "%X %v,"]);
    let expected =
        "committed a,committed b,aborted c,aborted d,committed e,committed f,open g,- h,";
    assert_eq!(shown, expected);
    let shown = [
        "consume",
        &topic,
        "--show-transactions",
        "-o",
        "4",
        "-n",
        "1",
    ];
    assert_eq!(oncelog.ok(&shown), "aborted\td\n");
    first.abort_transaction(LIMIT).unwrap();
    let shown = oncelog.ok(&["consume", &topic, "--show-transactions", "-o", "-2"]);
    assert_eq!(shown, "-\th\n");
}

#[test]
fn a_transaction_from_begin_to_end() {
    let Some(oncelog) = cluster("a_transaction_from_begin_to_end") else {
        return;
    };
    let (topic, id) = (oncelog.topic(1), unique("txn"));
    let first = producer(&oncelog, &id);
    first.begin_transaction().unwrap();
    send(&first, &topic, &["a"]);
    let described = oncelog.json(&["txn", "describe", &id]);
    assert_eq!(described[0]["state"], "Ongoing");
    assert_eq!(described[0]["partitions"][0]["topic"], topic.as_str());
    let listed = oncelog.json(&["txn", "list", "--state", "Ongoing"]);
    let listed = listed.as_array().unwrap();
    assert!(
        listed
            .iter()
            .any(|it| it["transactional_id"] == id.as_str())
    );
    let producers = oncelog.json(&["txn", "describe-producers", &topic]);
    assert_eq!(producers[0]["txn_start_offset"], 0);
    let hanging = oncelog.json(&["txn", "find-hanging", &topic, "--idle-for", "0s"]);
    assert_eq!(hanging.as_array().unwrap().len(), 0);
    let abort = ["txn", "abort", &topic, "0", "--start-offset", "0"];
    oncelog.fails(&abort, 1, "does not hang");
    oncelog.fails(
        &["txn", "abort", &topic, "0", "--start-offset", "5"],
        1,
        "no transaction is open",
    );
    // The producer knows nothing of it; its coordinator would still commit the rest.
    oncelog.ok(&[&abort[..], &["--force"]].concat());
    let producers = oncelog.json(&["txn", "describe-producers", &topic]);
    assert!(producers[0]["txn_start_offset"].is_null(), "{producers}");
    oncelog.fails(
        &["txn", "describe", "nobody"],
        1,
        "TRANSACTIONAL_ID_NOT_FOUND",
    );
    oncelog.fails(&["txn", "list", "--state", "Asleep"], 2, "Asleep");
}
