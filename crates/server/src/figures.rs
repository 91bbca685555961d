//! What the console may know: the core's figures, in the console's words.

use crate::banner;
use crate::budget::Budget;
use crate::core::Core;
use crate::listener::Connections;
use crate::server;
use oncelog_broker::Figures as CoreFigures;
use oncelog_console::{
    CommittedOffset, Figures, GroupSnapshot, PartitionSnapshot, PipelineSnapshot, Readiness,
    Snapshot, TopicSnapshot, TransactionsSnapshot,
};
use oncelog_coordinator::cluster::BrokerConfig;
use oncelog_coordinator::transactions::TransactionFigures;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub struct ServerFigures {
    state: Mutex<State>,
}

struct State {
    /// `None`: ready.
    not_ready: Option<String>,
    source: Option<Source>,
    pipeline: Option<PipelineFigures>,
}

/// Asks the relays and sinks beside a broker for their figures.
pub type PipelineFigures = Arc<dyn Fn() -> PipelineSnapshot + Send + Sync>;

#[derive(Clone)]
struct Source {
    /// What does not change.
    fixed: Arc<Snapshot>,
    core: Arc<Core>,
    connections: Arc<Connections>,
    budget: Arc<Budget>,
}

impl Default for ServerFigures {
    fn default() -> ServerFigures {
        ServerFigures {
            state: Mutex::new(State {
                not_ready: Some("the broker is recovering its log".to_owned()),
                source: None,
                pipeline: None,
            }),
        }
    }
}

impl ServerFigures {
    pub fn running(
        &self,
        config: &BrokerConfig,
        data_directory: &Path,
        core: &Arc<Core>,
        connections: &Arc<Connections>,
        budget: &Arc<Budget>,
    ) {
        let fixed = Snapshot {
            node_id: config.node_id,
            bootstrap: server::bootstrap(config),
            data_directory: data_directory.display().to_string(),
            durability: banner::durability_in_words(config),
            ..Snapshot::default()
        };
        let mut state = self.lock();
        state.not_ready = None;
        state.source = Some(Source {
            fixed: Arc::new(fixed),
            core: core.clone(),
            connections: connections.clone(),
            budget: budget.clone(),
        });
    }

    pub fn beside(&self, pipeline: PipelineFigures) {
        self.lock().pipeline = Some(pipeline);
    }

    pub fn not_ready(&self, why: &str) {
        self.lock().not_ready = Some(why.to_owned());
    }

    /// Lets go of the core.
    pub fn stopped(&self) {
        self.not_ready("the broker has stopped");
        self.lock().source = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures for ServerFigures {
    fn readiness(&self) -> Readiness {
        let state = self.lock();
        if let Some(source) = &state.source
            && let Some(failure) = source.core.fatal.failure()
        {
            return Readiness::NotReady(failure.message.clone());
        }
        state
            .not_ready
            .clone()
            .map_or(Readiness::Ready, Readiness::NotReady)
    }

    fn pipeline(&self) -> PipelineSnapshot {
        let pipeline = self.lock().pipeline.clone();
        pipeline.map_or_else(PipelineSnapshot::default, |figures| figures())
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let source = self.lock().source.clone()?;
        let figures = source.core.figures()?;
        let traffic = source.connections.traffic();
        Some(Snapshot {
            connections: source.connections.count() as u64,
            bytes_out: traffic.record_bytes_out.load(Ordering::Relaxed),
            request_memory_bytes: source.budget.in_use() as u64,
            request_memory_limit_bytes: source.budget.limit() as u64,
            request_memory_waits: source.budget.waited_total(),
            ..of_core(figures, (*source.fixed).clone())
        })
    }
}

fn of_transactions(shards: &[TransactionFigures]) -> TransactionsSnapshot {
    let mut by_state = BTreeMap::new();
    let mut fenced = BTreeMap::new();
    for shard in shards {
        for (state, count) in &shard.states {
            *by_state.entry(state.name()).or_default() += *count as u64;
        }
        for (reason, count) in shard.fenced.by_reason() {
            *fenced.entry(reason).or_default() += count;
        }
    }
    let began = shards.iter().filter_map(|shard| shard.oldest_open_start_ms);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as i64);
    let age_ms = began.min().map_or(0, |began| (now_ms - began).max(0));
    TransactionsSnapshot {
        by_state: by_state.into_iter().collect(),
        oldest_open_seconds: age_ms as u64 / 1000,
        fenced: fenced.into_iter().collect(),
    }
}

fn of_core(figures: CoreFigures, fixed: Snapshot) -> Snapshot {
    let partition = |figures: oncelog_broker::PartitionFigures| PartitionSnapshot {
        start_offset: figures.start_offset,
        high_watermark: figures.end_offset,
        size_bytes: figures.size_bytes,
    };
    let topic = |topic: oncelog_broker::TopicFigures| TopicSnapshot {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    };
    let committed = |(topic, partition, offset)| CommittedOffset {
        topic,
        partition,
        offset,
    };
    let group = |group: oncelog_coordinator::groups::GroupFigures| GroupSnapshot {
        group: group.group_id,
        members: group.members as u64,
        offsets: group.offsets.into_iter().map(committed).collect(),
    };
    Snapshot {
        transactions: of_transactions(&figures.transactions),
        topics: figures.topics.into_iter().map(topic).collect(),
        groups: figures.groups.into_iter().map(group).collect(),
        messages_in: figures.counters.messages_in,
        bytes_in: figures.counters.bytes_in,
        duplicate_batches: figures.counters.duplicate_batches,
        ..fixed
    }
}
