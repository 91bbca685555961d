//! Consumer groups under both protocols: rebalance, commit, resume, static members.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::checks::{Checks, equal, wait_for};
use crate::cluster::{Cluster, TIMEOUT, one, options, refused};
use crate::records::send_numbers;

const CLASSIC: &[(&str, &str)] = &[
    ("group.protocol", "classic"),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "500"),
];
const CONSUMER: &[(&str, &str)] = &[("group.protocol", "consumer")];

pub fn run(checks: &mut Checks, cluster: &Cluster) {
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        let mut settings = CLASSIC.to_vec();
        settings.push(("partition.assignment.strategy", strategy));
        let name = format!("group-classic-{strategy}");
        checks.run(&name, || rebalance(cluster, &name, &settings));
    }
    checks.run("group-consumer", || {
        rebalance(cluster, "group-consumer", CONSUMER)
    });
    for (name, settings) in [("static-classic", CLASSIC), ("static-consumer", CONSUMER)] {
        checks.run(&format!("group-{name}"), || {
            static_members(cluster, name, settings)
        });
    }
    checks.run("group-commit", || commit(cluster));
    checks.run("group-delete", || delete(cluster));
}

#[derive(Default)]
struct Seen {
    assigned: BTreeSet<i32>,
    read: Vec<i32>,
}

/// A group member on its own thread: what it was assigned and what it read.
struct Member {
    seen: Arc<Mutex<Seen>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Member {
    fn start(
        cluster: &Cluster,
        group: &str,
        topic: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut config = cluster.client(settings);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[topic])?;
        let (seen, stopping) = <(Arc<Mutex<Seen>>, Arc<AtomicBool>)>::default();
        let thread = std::thread::spawn({
            let (seen, stopping) = (seen.clone(), stopping.clone());
            move || work(&consumer, &seen, &stopping)
        });
        Ok(Self {
            seen,
            stopping,
            thread: Some(thread),
        })
    }

    fn assigned(&self) -> BTreeSet<i32> {
        self.seen.lock().unwrap().assigned.clone()
    }

    fn read(&self) -> Vec<i32> {
        self.seen.lock().unwrap().read.clone()
    }

    fn stop(mut self) -> Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("stopped once")?;
        thread.join().map_err(|_| anyhow!("the member panicked"))?
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
}

fn work(consumer: &BaseConsumer, seen: &Mutex<Seen>, stopping: &AtomicBool) -> Result<()> {
    while !stopping.load(Ordering::SeqCst) {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message?;
            let text = std::str::from_utf8(message.payload().context("a value")?)?;
            seen.lock().unwrap().read.push(text.parse()?);
            match consumer.commit_message(&message, CommitMode::Sync) {
                // A rebalance came first; what was read is read again.
                Err(KafkaError::ConsumerCommit(
                    RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::StaleMemberEpoch,
                )) => {}
                committed => committed?,
            }
        }
        let assigned = consumer.assignment()?;
        seen.lock().unwrap().assigned = assigned.elements().iter().map(|e| e.partition()).collect();
    }
    Ok(())
}

fn distinct(members: &[&Member]) -> usize {
    members
        .iter()
        .flat_map(|member| member.read())
        .collect::<BTreeSet<_>>()
        .len()
}

fn shared(a: &Member, b: &Member) -> bool {
    let (a, b) = (a.assigned(), b.assigned());
    a.len() == 2 && b.len() == 2 && a.is_disjoint(&b)
}

fn committed(cluster: &Cluster, group: &str, topic: &str) -> Result<Vec<Offset>> {
    let consumer: BaseConsumer = cluster.client(&[("group.id", group)]).create()?;
    let mut asked = TopicPartitionList::new();
    for partition in 0..4 {
        asked.add_partition(topic, partition);
    }
    let found = consumer.committed_offsets(asked, TIMEOUT)?;
    Ok(found.elements().iter().map(|e| e.offset()).collect())
}

fn delete_group(cluster: &Cluster, group: &str) -> Result<()> {
    one(cluster.wait(cluster.admin.delete_groups(&[group], &options())))?;
    Ok(())
}

fn rebalance(cluster: &Cluster, name: &str, settings: &[(&str, &str)]) -> Result<()> {
    let topic = cluster.topic(name, 4, &[])?;
    let group = cluster.name(name);
    send_numbers(cluster, &topic, 0..100)?;
    let a = Member::start(cluster, &group, &topic, settings)?;
    wait_for("the first member has every partition", || {
        Ok(a.assigned().len() == 4)
    })?;
    wait_for("the first member reads everything", || {
        Ok(distinct(&[&a]) == 100)
    })?;
    let b = Member::start(cluster, &group, &topic, settings)?;
    wait_for("two partitions for each of two members", || {
        Ok(shared(&a, &b))
    })?;
    wait_for("the group is described as stable", || {
        let groups = cluster
            .admin
            .inner()
            .fetch_group_list(Some(&group), TIMEOUT)?;
        let found = groups.groups();
        // librdkafka lists by the classic API, which knows groups of the new protocol as Dead.
        let classic = settings[0].1 == "classic";
        Ok(!classic
            || found
                .iter()
                .any(|g| g.state() == "Stable" && g.members().len() == 2))
    })?;
    send_numbers(cluster, &topic, 100..200)?;
    wait_for("the second hundred is read", || {
        Ok(distinct(&[&a, &b]) == 200)
    })?;
    refused(
        delete_group(cluster, &group),
        RDKafkaErrorCode::NonEmptyGroup,
        "delete while in use",
    )?;
    b.stop()?;
    wait_for("the leaver's partitions come back", || {
        Ok(a.assigned().len() == 4)
    })?;
    a.stop()?;
    let fifty = Offset::Offset(50);
    equal(
        committed(cluster, &group, &topic)?,
        vec![fifty; 4],
        "committed offsets",
    )?;
    send_numbers(cluster, &topic, 200..220)?;
    let again = Member::start(cluster, &group, &topic, settings)?;
    wait_for("the restarted member reads on", || {
        Ok(again.read().len() >= 20)
    })?;
    std::thread::sleep(Duration::from_millis(300));
    let mut read = again.read();
    read.sort_unstable();
    equal(
        read,
        (200..220).collect(),
        "only what came after the commit",
    )?;
    again.stop()?;
    delete_group(cluster, &group)
}

fn static_members(cluster: &Cluster, name: &str, settings: &[(&str, &str)]) -> Result<()> {
    let topic = cluster.topic(name, 4, &[])?;
    let group = cluster.name(name);
    let instance = |id| {
        let mut settings = settings.to_vec();
        settings.push(("group.instance.id", id));
        Member::start(cluster, &group, &topic, &settings)
    };
    let (a, b) = (instance("one")?, instance("two")?);
    wait_for("two static members share the partitions", || {
        Ok(shared(&a, &b))
    })?;
    let (a_before, b_before) = (a.assigned(), b.assigned());
    a.stop()?;
    let back = instance("one")?;
    wait_for("the instance gets its partitions back", || {
        Ok(back.assigned() == a_before)
    })?;
    equal(b.assigned(), b_before, "the other member keeps its own")?;
    back.stop()?;
    b.stop()
}

fn commit(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("commit", 4, &[])?;
    let group = cluster.name("commit");
    equal(
        committed(cluster, &group, &topic)?,
        vec![Offset::Invalid; 4],
        "before any commit",
    )?;
    let consumer: BaseConsumer = cluster.client(&[("group.id", &group)]).create()?;
    let mut at = TopicPartitionList::new();
    let mut element = at.add_partition(&topic, 1);
    element.set_offset(Offset::Offset(7))?;
    element.set_metadata("where I was");
    consumer.commit(&at, CommitMode::Sync)?;
    let found = consumer.committed_offsets(at, TIMEOUT)?;
    equal(
        found.elements()[0].offset(),
        Offset::Offset(7),
        "committed offset",
    )?;
    equal(
        found.elements()[0].metadata(),
        "where I was",
        "commit metadata",
    )?;
    delete_group(cluster, &group)
}

fn delete(cluster: &Cluster) -> Result<()> {
    refused(
        delete_group(cluster, &cluster.name("no-such-group")),
        RDKafkaErrorCode::GroupIdNotFound,
        "deleting a group that does not exist",
    )
}
