//! From a data directory to a running broker: recovery, in the order in which things depend on
//! each other.
//!
//! 1. `meta.properties`: whose directory this is (made if the directory is new).
//! 2. The clean-shutdown marker: noted and removed, before anything else is written.
//! 3. The metadata log: replayed into the cluster state.
//! 4. Every partition that the cluster state names; a directory that it does not name is set
//!    aside (`-stray`), never deleted, unless the metadata log says that its topic was deleted.
//! 5. The coordinators' shards: replayed from their partitions of `__consumer_offsets` and
//!    `__transaction_state`.
//!
//! Idempotent: a crash anywhere in here leaves a directory that opens the same way again.

use crate::broker::Broker;
use crate::groups::{GroupHost, OFFSETS_TOPIC};
use crate::housekeeping;
use crate::limits;
use crate::quorum::Quorum;
use crate::shutdown::CLEAN_SHUTDOWN_FILE;
use crate::topics::{PartitionKey, Topics};
use crate::transactions::{TRANSACTION_STATE_TOPIC, TransactionHost};
use oncelog_commitlog::{Disk, Log, LogConfig, read, recover};
use oncelog_coordinator::cluster::{BrokerConfig, Cluster, MetadataRecord};
use oncelog_coordinator::groups::GroupShard;
use oncelog_coordinator::seed::Seed;
use oncelog_coordinator::transactions::TransactionShard;
use oncelog_partition::{Identity, Partition};
use oncelog_wire::Uuid;
use oncelog_wire::clock::Now;
use oncelog_wire::records::{BatchError, BatchHeader, Batches, ControlRecord, EndTxn, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const METADATA_DIR: &str = "__cluster_metadata-0";
const META_PROPERTIES: &str = "meta.properties";

/// A broker that is ready for its first input, and what its recovery found.
pub struct Opened {
    pub broker: Broker,
    pub report: OpenReport,
}

#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    pub cluster_id: String,
    /// The last stop was a controlled shutdown.
    pub clean: bool,
    pub partitions: usize,
    /// Lines for the operator: what was truncated, rebuilt or set aside.
    pub notes: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory could not be read or written: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    MetadataLog(#[from] oncelog_commitlog::RecoveryError),
    #[error(transparent)]
    Partition(#[from] oncelog_partition::RecoveryError),
    #[error(
        "{META_PROPERTIES} says {found}, the configuration says {wanted}: this data directory \
         belongs to another broker; correct node.id or log.dirs"
    )]
    NotOurs { found: String, wanted: String },
    #[error(
        "{META_PROPERTIES} cannot be understood: {0}. Restore it from a copy, or write into it the \
         lines node.id= and cluster.id= with what this broker had"
    )]
    BadMeta(String),
    #[error(
        "{META_PROPERTIES} is missing, and {METADATA_DIR} is there: whose directory this is was lost \
         with it. Restore it from a copy, or write it anew with the lines node.id= and cluster.id= \
         with what this broker had"
    )]
    MetaLost,
    #[error(
        "{file} is damaged at offset {offset}, where synced records were: {why}. Restore it from a \
         copy"
    )]
    Damaged {
        file: String,
        offset: i64,
        why: String,
    },
    #[error(
        "{METADATA_DIR}/00000000000000000000.log is missing or empty, and {dir} holds a topic's \
         partition: which topics there are was lost with it. Restore it from a copy, or move the \
         partitions' directories away to begin with none"
    )]
    MetadataLost { dir: String },
    #[error("the metadata log holds a record that cannot be understood: {0}")]
    BadMetadata(String),
    #[error("{dir} holds a record that cannot be understood: {why}")]
    BadCoordinatorRecord { dir: String, why: String },
}

/// What [`Broker::assemble`] is made of.
pub(crate) struct Parts {
    pub config: BrokerConfig,
    pub now: Now,
    pub seed: Seed,
    pub topics: Topics,
    pub cluster: Cluster,
    pub quorum: Quorum,
    pub groups: GroupHost,
    pub transactions: TransactionHost,
}

/// Recovers everything below `disk` and returns a broker that is ready to serve.
///
/// `seed` feeds every random choice (topic ids, member ids, session ids); a host takes it from the
/// operating system, a simulation from its own seed.
pub fn open(
    config: BrokerConfig,
    disk: &dyn Disk,
    now: Now,
    seed: u64,
) -> Result<Opened, OpenError> {
    let mut report = OpenReport::default();
    let broker = open_reporting(config, disk, now, seed, &mut report)?;
    Ok(Opened { broker, report })
}

/// As [`open`]; what was found is in `report` even if the start is then refused, because some of it
/// (a tail that was cut) will not be found again at the next.
pub fn open_reporting(
    config: BrokerConfig,
    disk: &dyn Disk,
    now: Now,
    seed: u64,
    report: &mut OpenReport,
) -> Result<Broker, OpenError> {
    let mut seed = Seed::new(seed);
    report.cluster_id = claim_directory(&config, disk, &mut seed)?;
    report.clean = take_clean_marker(disk)?;
    let mut cluster = Cluster::new(&config, report.cluster_id.clone());
    let (quorum, removed) = open_metadata(disk, &mut cluster, report, now)?;
    let topics = open_partitions(&config, disk, &cluster, report, now)?;
    set_strays_aside(disk, &topics, &removed, report)?;
    let groups = load_groups(&config, disk, &topics, &mut seed, now)?;
    let transactions = load_transactions(&config, disk, &topics, now)?;
    skip_producer_ids(&mut cluster, &topics, &transactions, report);
    report.partitions = topics.keys().len();
    let mut broker = Broker::assemble(Parts {
        config,
        now,
        seed,
        topics,
        cluster,
        quorum,
        groups,
        transactions,
    });
    crate::groups::settle_loaded(&mut broker);
    crate::transactions::settle_loaded(&mut broker);
    housekeeping::begin(&mut broker);
    Ok(broker)
}

/// Those that logs hold, which the metadata log should know of.
fn skip_producer_ids(
    cluster: &mut Cluster,
    topics: &Topics,
    transactions: &TransactionHost,
    report: &mut OpenReport,
) {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let written = partitions.flat_map(|hosted| hosted.partition.producers().iter());
    let transactional = transactions
        .shards()
        .flat_map(TransactionShard::producer_ids);
    if cluster.skip_producer_ids(written.map(|(id, _)| id).chain(transactional)) {
        report.notes.push(format!(
            "{METADATA_DIR}: producer ids are in use that it does not know of; new ones begin at {}",
            cluster.next_producer_id()
        ));
    }
}

/// Checks or writes `meta.properties`; returns the cluster id.
fn claim_directory(
    config: &BrokerConfig,
    disk: &dyn Disk,
    seed: &mut Seed,
) -> Result<String, OpenError> {
    if let Some(text) = read_text(disk, META_PROPERTIES)? {
        let fields: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let cluster_id = fields.get("cluster.id").filter(|id| !id.is_empty());
        let (Some(cluster_id), Some(node_id)) = (cluster_id, fields.get("node.id")) else {
            return Err(OpenError::BadMeta(
                "cluster.id or node.id is missing".to_owned(),
            ));
        };
        if *node_id != config.node_id.to_string() {
            return Err(OpenError::NotOurs {
                found: format!("node.id={node_id}"),
                wanted: format!("node.id={}", config.node_id),
            });
        }
        return Ok((*cluster_id).to_owned());
    }
    // It is durable before anything else is written: a new id would be another cluster to clients.
    if !disk.list(METADATA_DIR)?.is_empty() {
        return Err(OpenError::MetaLost);
    }
    let cluster_id = seed.uuid().to_string();
    let directory_id = seed.uuid();
    let text = format!(
        "version=1\ncluster.id={cluster_id}\nnode.id={}\ndirectory.id={directory_id}\n",
        config.node_id
    );
    let temporary = format!("{META_PROPERTIES}.tmp");
    disk.remove(&temporary)?;
    disk.write_at(&temporary, 0, &[text.as_bytes()])?;
    disk.sync(&temporary)?;
    disk.rename(&temporary, META_PROPERTIES)?;
    disk.sync_dir("")?;
    Ok(cluster_id)
}

fn take_clean_marker(disk: &dyn Disk) -> Result<bool, OpenError> {
    let clean = disk.len(CLEAN_SHUTDOWN_FILE)?.is_some();
    if clean {
        disk.remove(CLEAN_SHUTDOWN_FILE)?;
        disk.sync_dir("")?;
    }
    Ok(clean)
}

/// Replays the metadata log; also returns the topics that it says were deleted.
fn open_metadata(
    disk: &dyn Disk,
    cluster: &mut Cluster,
    report: &mut OpenReport,
    now: Now,
) -> Result<(Quorum, BTreeSet<Uuid>), OpenError> {
    let config = LogConfig {
        cleanup_delete: false,
        cleanup_compact: false,
        flush_messages: 1,
        one_append_in_flight: true,
        ..Default::default()
    };
    let log = match disk.list(METADATA_DIR)?.is_empty() {
        true => Log::create(METADATA_DIR, metadata_topic_id(), config, now).0,
        false => {
            let recovered = recover(disk, METADATA_DIR, config, report.clean, now)?;
            report.notes.extend(recovered.report.notes(METADATA_DIR));
            recovered.log
        }
    };
    if log.end_offset() == 0
        && let Some(dir) = partition_directories(disk)?.into_iter().next()
    {
        // A topic is in the metadata log before its directories are made.
        return Err(OpenError::MetadataLost { dir });
    }
    let mut removed = BTreeSet::new();
    each_record(disk, &log, |record| {
        let bad = |why: String| OpenError::BadMetadata(why);
        let value = record.value();
        let value = value.ok_or_else(|| bad("a record without a value".to_owned()))?;
        let record = MetadataRecord::decode(value).map_err(|error| bad(error.to_string()))?;
        if let MetadataRecord::RemoveTopic(topic) = &record {
            removed.insert(topic.topic_id);
        }
        cluster
            .replay(&record)
            .map_err(|error| bad(error.to_string()))
    })?;
    Ok((Quorum::new(log), removed))
}

/// The directories that are some topic's, but not those that were set aside or are being deleted.
fn partition_directories(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in disk.list("")? {
        let out_of_use = name.ends_with("-delete") || name.ends_with("-stray");
        if name == METADATA_DIR || out_of_use {
            continue;
        }
        if disk.len(&format!("{name}/partition.metadata"))?.is_some() {
            found.push(name);
        }
    }
    Ok(found)
}

/// Kafka's well-known id of `__cluster_metadata`.
fn metadata_topic_id() -> Uuid {
    let mut bytes = [0; 16];
    bytes[15] = 1;
    Uuid(bytes)
}

fn open_partitions(
    config: &BrokerConfig,
    disk: &dyn Disk,
    cluster: &Cluster,
    report: &mut OpenReport,
    now: Now,
) -> Result<Topics, OpenError> {
    let mut topics = Topics::default();
    for topic in cluster.topics() {
        topics.add_topic(&topic.name, topic.id);
        let partition_config = crate::config::of_topic(cluster, config, &topic.name);
        for (index, state) in topic.partitions.iter().enumerate() {
            let identity = Identity {
                topic: topic.name.as_str().into(),
                index: index as i32,
                topic_id: topic.id,
                leader_epoch: state.leader_epoch,
            };
            let opened =
                Partition::open(disk, identity, partition_config.clone(), report.clean, now)?;
            report.notes.extend(opened.notes);
            topics.add_partition(topic.id, opened.partition);
        }
    }
    Ok(topics)
}

/// Partition directories that no topic claims: removed if their topic was deleted, else renamed.
fn set_strays_aside(
    disk: &dyn Disk,
    topics: &Topics,
    removed: &BTreeSet<Uuid>,
    report: &mut OpenReport,
) -> Result<(), OpenError> {
    let claimed: BTreeSet<String> = topics
        .iter()
        .flat_map(|topic| (0..topic.partitions.len()).map(move |i| format!("{}-{i}", topic.name)))
        .collect();
    let mut changed = false;
    for name in disk.list("")? {
        if name.ends_with("-delete") {
            disk.remove_dir(&name)?;
            changed = true;
        }
    }
    for name in partition_directories(disk)? {
        if claimed.contains(&name) {
            continue;
        }
        let text = match read_text(disk, &format!("{name}/partition.metadata")) {
            Err(OpenError::BadMeta(_)) => String::new(), // whatever it is, it names no topic
            text => text?.unwrap_or_default(),
        };
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("topic_id: "));
        let id: Option<Uuid> = id.and_then(|id| id.trim().parse().ok());
        if id.is_some_and(|id| removed.contains(&id)) {
            disk.remove_dir(&name)?;
            report
                .notes
                .push(format!("{name}: its topic was deleted; removed"));
        } else {
            let aside = stray_name(disk, &name)?;
            disk.rename(&name, &aside)?;
            report
                .notes
                .push(format!("{name}: no topic claims it; renamed to {aside}"));
        }
        changed = true;
    }
    if changed {
        disk.sync_dir("")?;
    }
    Ok(())
}

/// A name that is free and that a file system takes, ending as Kafka's strays do.
fn stray_name(disk: &dyn Disk, name: &str) -> io::Result<String> {
    let taken = disk.list("")?;
    let mut number = 1;
    loop {
        let suffix = match number {
            1 => "-stray".to_owned(),
            number => format!(".{number}-stray"),
        };
        let mut kept = name.len().min(limits::FILE_NAME_BYTES_MAX - suffix.len());
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        let aside = format!("{}{suffix}", &name[..kept]);
        if !taken.contains(&aside) {
            return Ok(aside);
        }
        number += 1;
    }
}

fn load_groups(
    config: &BrokerConfig,
    disk: &dyn Disk,
    topics: &Topics,
    seed: &mut Seed,
    now: Now,
) -> Result<GroupHost, OpenError> {
    let Some(topic_id) = topics.id_of(OFFSETS_TOPIC) else {
        return Ok(GroupHost::default());
    };
    let topic = topics.topic(topic_id).expect("just found");
    let mut shards = Vec::new();
    for index in 0..topic.partitions.len() as i32 {
        let key = PartitionKey { topic_id, index };
        let log = topics.get(key).expect("in range").partition.log();
        let mut shard = GroupShard::new(config.group_config(), seed.fork());
        each_record(disk, log, |record| {
            let result = match record.transaction {
                Some(Part::Marker {
                    producer_id,
                    commit,
                }) => {
                    shard.replay_marker(producer_id, commit, now);
                    Ok(())
                }
                Some(Part::Of { producer_id }) => shard.replay_transactional(
                    producer_id,
                    record.key(),
                    record.value(),
                    record.record.offset,
                    now,
                ),
                None => shard.replay(record.key(), record.value(), record.record.offset, now),
            };
            result.map_err(|why| bad_record(log, &why))
        })?;
        shards.push(shard);
    }
    Ok(GroupHost::loaded(topic_id, shards))
}

fn load_transactions(
    config: &BrokerConfig,
    disk: &dyn Disk,
    topics: &Topics,
    now: Now,
) -> Result<TransactionHost, OpenError> {
    let Some(topic_id) = topics.id_of(TRANSACTION_STATE_TOPIC) else {
        return Ok(TransactionHost::default());
    };
    let topic = topics.topic(topic_id).expect("just found");
    let mut shards = Vec::new();
    for index in 0..topic.partitions.len() as i32 {
        let key = PartitionKey { topic_id, index };
        let partition = &topics.get(key).expect("in range").partition;
        let log = partition.log();
        let config = crate::config::of_transactions(config);
        let mut shard = TransactionShard::new(config, partition.leader_epoch());
        each_record(disk, log, |record| {
            let result = shard.replay(record.key(), record.value(), now);
            result.map_err(|why| bad_record(log, &why))
        })?;
        shards.push(shard);
    }
    Ok(TransactionHost::loaded(topic_id, shards))
}

fn bad_record(log: &Log, why: &dyn std::fmt::Display) -> OpenError {
    OpenError::BadCoordinatorRecord {
        dir: log.dir().to_owned(),
        why: why.to_string(),
    }
}

/// A record that is read back.
struct Replayed {
    record: Record,
    transaction: Option<Part>,
}

/// Its part in a transaction.
#[derive(Clone, Copy)]
enum Part {
    Of { producer_id: i64 },
    Marker { producer_id: i64, commit: bool },
}

impl Replayed {
    /// Empty if there is none.
    fn key(&self) -> &[u8] {
        self.record.key.as_deref().unwrap_or_default()
    }

    fn value(&self) -> Option<&[u8]> {
        self.record.value.as_deref()
    }

    fn of(header: &BatchHeader, record: Record) -> Option<Replayed> {
        let producer_id = header.producer_id;
        let transaction = if header.is_control() {
            // Another kind of control record (of a quorum, say) is nothing to a coordinator.
            let ControlRecord::EndTxn { result, .. } = ControlRecord::parse(&record)? else {
                return None;
            };
            let commit = result == EndTxn::Commit;
            Some(Part::Marker {
                producer_id,
                commit,
            })
        } else {
            header
                .is_transactional()
                .then_some(Part::Of { producer_id })
        };
        Some(Replayed {
            record,
            transaction,
        })
    }
}

/// Every record of a log, in order, markers of transactions among them.
///
/// Recovery has checked what lies past the recovery point; what lies below it is checked here, since
/// a state that comes of flipped bits would be served as if it had been committed.
fn each_record(
    disk: &dyn Disk,
    log: &Log,
    mut visit: impl FnMut(&Replayed) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let mut offset = log.start_offset();
    while offset < log.end_offset() {
        let slice = log.slice(offset, log.end_offset(), limits::LOAD_CHUNK_BYTES, true);
        let Ok(Some(slice)) = slice else { break };
        let damaged = |offset: i64, why: String| OpenError::Damaged {
            file: slice.file().to_string(),
            offset,
            why,
        };
        let bytes = read(disk, &slice).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                damaged(offset, error.to_string())
            }
            _ => OpenError::Io(error),
        })?;
        let before = offset;
        for batch in Batches::new(bytes) {
            let at = offset;
            let bad = |error: BatchError| damaged(at, error.to_string());
            let batch = batch.map_err(bad)?;
            batch.check_crc().map_err(bad)?;
            // The CRC does not cover the offset.
            let last = batch.header.last_offset();
            if last < at || last >= log.end_offset() {
                let why = format!("a batch that ends at offset {last} is out of place");
                return Err(damaged(at, why));
            }
            offset = last + 1;
            let records = batch.records(limits::INTERNAL_BATCH_BYTES_MAX);
            for record in records.map_err(bad)? {
                if let Some(replayed) = Replayed::of(&batch.header, record.map_err(bad)?) {
                    visit(&replayed)?;
                }
            }
        }
        if offset == before {
            return Err(damaged(offset, "no batch is there".to_owned()));
        }
    }
    Ok(())
}

fn read_text(disk: &dyn Disk, file: &str) -> Result<Option<String>, OpenError> {
    let Some(length) = disk.len(file)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; length.min(64 << 10) as usize];
    let read = disk.read_at(file, 0, &mut bytes)?;
    bytes.truncate(read);
    let text =
        String::from_utf8(bytes).map_err(|_| OpenError::BadMeta(format!("{file} is not text")))?;
    Ok(Some(text))
}
