//! What a seed draws before its world begins. Every seed has its own mix, so that rare
//! combinations (tiny segments and a crash during recovery) come up by themselves.

use crate::database::Kind;
use oncelog_commitlog::testing::Random;
use oncelog_relay::relay::Delivery;
use oncelog_sink::config::Delivery as SinkDelivery;
use std::collections::BTreeMap;

/// `message.max.bytes` in every world; producers overstep it now and then.
pub const MESSAGE_BYTES_MAX: u64 = 4_000;

#[derive(Clone, Debug)]
pub struct Plan {
    /// Broker properties, as in a configuration file.
    pub properties: BTreeMap<String, String>,
    /// Far below what `segment.bytes` may be, so that segments roll all the time.
    pub segment_bytes: u64,
    pub partitions: i32,
    pub idempotent_producers: u32,
    pub plain_producers: u32,
    pub consumers: u32,
    /// Records that each producer sends.
    pub records: u32,
    /// Power cuts and kills, in virtual milliseconds from the start.
    pub crashes: Vec<Crash>,
    /// A connection breaks, on average, once in this many deliveries; 0 for never.
    pub break_one_in: u64,
    pub disk_delay_us_max: u64,
    pub net_delay_us_max: u64,
    /// A sync fails (EIO) after about this many syncs; 0 for never.
    pub failing_sync_after: u64,
    /// Consumers freeze now and then for longer than their session.
    pub zombies: bool,
    /// Topics are created and deleted all the time.
    pub churn: bool,
    pub transactions: Option<TransactionPlan>,
    pub pipeline: Option<PipelinePlan>,
}

#[derive(Clone, Debug)]
pub struct TransactionPlan {
    /// Applications that write in transactions, and how many transactions each.
    pub writers: u32,
    pub transactions: u32,
    /// Members of the group that makes an output of each input.
    pub transformers: u32,
    /// Producers without transactions to the same partitions.
    pub bystanders: u32,
    /// Of each of the topics.
    pub partitions: i32,
    /// Of a transaction: then the coordinator aborts it.
    pub timeout_ms: i32,
    /// How many in 10 instances speak the new protocol (KIP-890).
    pub new_protocol_in_10: u64,
    /// The coordinator has a connection of its own, as with librdkafka.
    pub split_connections: bool,
    /// After this time a client gives a connection up and tries again on another.
    pub request_timeout_ms: u64,
    /// A request is held up on its way, on average, once in so many; 0 for never.
    pub stall_one_in: u64,
    /// An instance in a transaction crashes, freezes or is replaced once in so many events.
    pub crash_one_in: u64,
    /// The power goes while a transaction is being ended, once in so many ends; 0 for never.
    pub strike_one_in: u64,
}

/// A relay and sinks, between two databases.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    /// How the relay reads the outbox.
    pub source: Kind,
    pub delivery: Delivery,
    pub sink_delivery: SinkDelivery,
    /// The sink remembers event ids.
    pub inbox: bool,
    /// Of the topic of events.
    pub partitions: i32,
    /// Transactions of the service, how many at once, and the most events of one.
    pub transactions: u32,
    pub writers: u32,
    pub rows_max: u64,
    pub aggregates: u64,
    /// The service pauses for about so long between two steps.
    pub think_ms: u64,
    /// An event has nothing to route it by, once in so many; 0 for never.
    pub unroutable_one_in: u64,
    /// The most rows of a batch.
    pub relay_rows: usize,
    pub sink_rows: usize,
    /// Members of the sink's group.
    pub sinks: u32,
    /// Of the relay's transactions.
    pub timeout_ms: i32,
    pub new_protocol: bool,
    pub split_connections: bool,
    /// How long a client waits for one answer, and how long the relay for an operation.
    pub request_timeout_ms: u64,
    pub answer_ms: u64,
    /// A request is held up on its way, once in so many; 0 for never.
    pub stall_one_in: u64,
    /// A relay or a sink crashes, freezes or is replaced once in so many events.
    pub crash_one_in: u64,
    /// A connection to a database breaks, once in so many questions; 0 for never.
    pub break_one_in: u64,
    /// When the databases crash.
    pub crashes_ms: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub at_ms: u64,
    /// Unsynced writes are lost (a power cut) or kept (a killed process).
    pub power_cut: bool,
    pub down_ms: u64,
    /// The recovery that follows is cut off after so many changes of the disk; 0 for not.
    pub during_recovery: u64,
    /// The next start follows a controlled shutdown instead of a crash.
    pub controlled: bool,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        let mut properties = BTreeMap::new();
        let mut set = |key: &str, value: u64| properties.insert(key.to_owned(), value.to_string());
        set("log.index.interval.bytes", *pick(random, &[64, 256, 4_096]));
        set("offsets.topic.num.partitions", 1 + random.below(3));
        set("log.segment.delete.delay.ms", *pick(random, &[100, 60_000]));
        set("log.flush.interval.messages", 1);
        set("message.max.bytes", MESSAGE_BYTES_MAX);
        set("transaction.state.log.num.partitions", 1 + random.below(3));
        let crashes = (0..random.below(5)).map(|_| Crash::draw(random)).collect();
        Plan {
            properties,
            segment_bytes: *pick(random, &[4_096, 6_000, 16_384, 1 << 20]),
            partitions: 1 + random.below(3) as i32,
            idempotent_producers: 1 + random.below(3) as u32,
            plain_producers: random.below(3) as u32,
            consumers: random.below(4) as u32,
            records: 20 + random.below(200) as u32,
            crashes,
            break_one_in: *pick(random, &[0, 20, 100, 500]),
            disk_delay_us_max: *pick(random, &[50, 1_000, 20_000, 200_000]),
            net_delay_us_max: *pick(random, &[50, 1_000, 30_000]),
            failing_sync_after: *pick(random, &[0, 0, 0, 40, 200]),
            zombies: random.one_in(2),
            churn: random.one_in(3),
            transactions: random.one_in(2).then(|| TransactionPlan::draw(random)),
            pipeline: None,
        }
    }
}

impl TransactionPlan {
    fn draw(random: &mut Random) -> TransactionPlan {
        TransactionPlan {
            writers: 1 + random.below(3) as u32,
            transactions: 4 + random.below(20) as u32,
            transformers: random.below(4) as u32,
            bystanders: random.below(2) as u32,
            partitions: 1 + random.below(3) as i32,
            timeout_ms: 4_000 + random.below(6_000) as i32,
            new_protocol_in_10: *pick(random, &[0, 5, 10]),
            split_connections: random.one_in(2),
            request_timeout_ms: *pick(random, &[1_200, 3_000]),
            stall_one_in: *pick(random, &[0, 10, 40]),
            crash_one_in: *pick(random, &[0, 30, 100]),
            strike_one_in: *pick(random, &[0, 0, 20]),
        }
    }
}

impl PipelinePlan {
    /// In some worlds. From a source of randomness of its own, so that the others stay as they are.
    pub fn draw(random: &mut Random) -> Option<PipelinePlan> {
        if !random.one_in(3) {
            return None;
        }
        let sink_delivery = match random.below(6) {
            0 => SinkDelivery::AtMostOnce,
            1 => SinkDelivery::AtLeastOnce,
            _ => SinkDelivery::ExactlyOnce,
        };
        let delivery = match random.below(6) {
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce,
            _ => Delivery::ExactlyOnce,
        };
        let source = *pick(random, &[Kind::Log, Kind::Log, Kind::Claims, Kind::Cursor]);
        Some(PipelinePlan {
            source,
            delivery,
            sink_delivery,
            inbox: sink_delivery == SinkDelivery::ExactlyOnce && random.one_in(3),
            partitions: 1 + random.below(3) as i32,
            transactions: 5 + random.below(40) as u32,
            writers: 1 + random.below(4) as u32,
            rows_max: 1 + random.below(6),
            aggregates: 1 + random.below(6),
            think_ms: *pick(random, &[5, 50, 200]),
            unroutable_one_in: *pick(random, &[0, 0, 10]),
            relay_rows: 1 + random.below(6) as usize,
            sink_rows: 1 + random.below(6) as usize,
            sinks: 1 + random.below(3) as u32,
            timeout_ms: 3_000 + random.below(4_000) as i32,
            new_protocol: random.one_in(2),
            split_connections: random.one_in(2),
            request_timeout_ms: *pick(random, &[800, 2_000]),
            answer_ms: 1_500 + random.below(4_000),
            stall_one_in: *pick(random, &[0, 15, 40]),
            crash_one_in: *pick(random, &[0, 20, 60]),
            break_one_in: *pick(random, &[0, 10, 40]),
            crashes_ms: (0..random.below(3)).map(|_| random.below(15_000)).collect(),
        })
    }
}

impl Crash {
    fn draw(random: &mut Random) -> Crash {
        Crash {
            at_ms: random.below(20_000),
            power_cut: !random.one_in(3),
            down_ms: 1 + random.below(2_000),
            during_recovery: if random.one_in(3) {
                1 + random.below(12)
            } else {
                0
            },
            controlled: random.one_in(4),
        }
    }
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}
