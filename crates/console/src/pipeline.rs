//! The figures of relays and sinks, under names that say `oncelog_`, with their own names as labels.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::snapshot::{PipelineSnapshot, RelaySnapshot, SinkSnapshot};

pub(crate) fn register(registry: &mut Registry, pipeline: &PipelineSnapshot) {
    registry.register_collector(Box::new(Figures(pipeline.clone())));
}

#[derive(Debug)]
struct Figures(PipelineSnapshot);

type OfRelay = (&'static str, &'static str, fn(&RelaySnapshot) -> u64);
type OfSink = (&'static str, &'static str, fn(&SinkSnapshot) -> u64);

const RELAY_COUNTERS: [OfRelay; 4] = [
    (
        "oncelog_relay_published",
        "Events that a relay has published",
        |relay| relay.published,
    ),
    (
        "oncelog_relay_transactions",
        "Kafka transactions that a relay has committed",
        |relay| relay.transactions,
    ),
    (
        "oncelog_relay_quarantined",
        "Rows that went to the dead-letter topic",
        |relay| relay.quarantined,
    ),
    (
        "oncelog_relay_restarts",
        "Times that a relay began anew after a failure",
        |relay| relay.restarts,
    ),
];

const SINK_COUNTERS: [OfSink; 6] = [
    (
        "oncelog_sink_applied",
        "Records that a sink has applied",
        |sink| sink.applied,
    ),
    (
        "oncelog_sink_transactions",
        "Database transactions that a sink has committed",
        |sink| sink.transactions,
    ),
    (
        "oncelog_sink_duplicates_skipped",
        "Records whose event id had been seen",
        |sink| sink.duplicates_skipped,
    ),
    (
        "oncelog_sink_dead_letters",
        "Records that went to the dead-letter table",
        |sink| sink.dead_letters,
    ),
    (
        "oncelog_sink_fenced",
        "Partitions that another instance had taken over",
        |sink| sink.fenced,
    ),
    (
        "oncelog_sink_restarts",
        "Times that a sink began anew after a failure",
        |sink| sink.restarts,
    ),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let PipelineSnapshot { relays, sinks } = &self.0;
        if !relays.is_empty() {
            for (name, help, value) in RELAY_COUNTERS {
                let mut family =
                    encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                for relay in relays {
                    of(
                        &mut family,
                        "relay",
                        &relay.name,
                        &ConstCounter::new(value(relay)),
                    )?;
                }
            }
            of_relays(&mut encoder, relays)?;
        }
        if !sinks.is_empty() {
            for (name, help, value) in SINK_COUNTERS {
                let mut family =
                    encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                for sink in sinks {
                    of(
                        &mut family,
                        "sink",
                        &sink.name,
                        &ConstCounter::new(value(sink)),
                    )?;
                }
            }
            of_sinks(&mut encoder, sinks)?;
        }
        Ok(())
    }
}

fn of_relays(
    encoder: &mut DescriptorEncoder<'_>,
    relays: &[RelaySnapshot],
) -> Result<(), std::fmt::Error> {
    let mut gauges = |name: &str, help: &str, value: fn(&RelaySnapshot) -> Option<f64>| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for relay in relays {
            if let Some(value) = value(relay) {
                of(&mut family, "relay", &relay.name, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    };
    gauges(
        "oncelog_relay_running",
        "1 where nothing has failed since the last success",
        |relay| Some(f64::from(u8::from(relay.running))),
    )?;
    gauges(
        "oncelog_outbox_pending_rows",
        "Committed rows that are not published",
        |relay| relay.pending_rows.map(|rows| rows as f64),
    )?;
    gauges(
        "oncelog_outbox_oldest_row_age_seconds",
        "How long the oldest of them has waited",
        |relay| relay.oldest_row_age_seconds,
    )?;
    gauges(
        "oncelog_slot_retained_wal_bytes",
        "Log that the replication slot keeps on the server's disk",
        |relay| relay.retained_wal_bytes.map(|bytes| bytes as f64),
    )
}

fn of_sinks(
    encoder: &mut DescriptorEncoder<'_>,
    sinks: &[SinkSnapshot],
) -> Result<(), std::fmt::Error> {
    let help = "Partitions that this instance has now";
    let name = "oncelog_sink_partitions";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for sink in sinks {
        of(
            &mut family,
            "sink",
            &sink.name,
            &ConstGauge::new(sink.partitions as i64),
        )?;
    }
    let help = "From a record's time to the commit of its row";
    let name = "oncelog_e2e_latency_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for sink in sinks {
        let counted = sink.latency_buckets.iter().map(|(_, count)| *count).sum();
        let labels = [("sink", sink.name.as_str())];
        let mut encoder = family.encode_family(&labels)?;
        encoder.encode_histogram::<NoLabelSet>(
            sink.latency_sum_seconds,
            counted,
            &sink.latency_buckets,
            None,
        )?;
    }
    Ok(())
}

fn of(
    family: &mut MetricEncoder<'_>,
    label: &str,
    name: &str,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    let labels = [(label, name)];
    metric.encode(family.encode_family(&labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_and_sinks_are_told_apart_by_their_names() {
        let pipeline = PipelineSnapshot {
            relays: vec![
                RelaySnapshot {
                    name: "orders".to_owned(),
                    running: true,
                    published: 7,
                    pending_rows: Some(3),
                    ..RelaySnapshot::default()
                },
                RelaySnapshot {
                    name: "bills".to_owned(),
                    ..RelaySnapshot::default()
                },
            ],
            sinks: vec![SinkSnapshot {
                name: "warehouse".to_owned(),
                duplicates_skipped: 2,
                latency_buckets: vec![(0.001, 4), (f64::INFINITY, 1)],
                latency_sum_seconds: 0.5,
                ..SinkSnapshot::default()
            }],
        };
        let text = crate::metrics::render(None, &pipeline).unwrap();
        for line in [
            "oncelog_relay_published_total{relay=\"orders\"} 7",
            "oncelog_relay_published_total{relay=\"bills\"} 0",
            "oncelog_relay_running{relay=\"orders\"} 1.0",
            "oncelog_outbox_pending_rows{relay=\"orders\"} 3.0",
            "oncelog_sink_duplicates_skipped_total{sink=\"warehouse\"} 2",
            "oncelog_e2e_latency_seconds_count{sink=\"warehouse\"} 5",
            "oncelog_e2e_latency_seconds_bucket{le=\"0.001\",sink=\"warehouse\"} 4",
            "oncelog_e2e_latency_seconds_bucket{le=\"+Inf\",sink=\"warehouse\"} 5",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in:\n{text}"
            );
        }
        assert!(!text.contains("oncelog_outbox_pending_rows{relay=\"bills\"}"));
        assert!(!text.contains("kafka_brokers"));
    }
}
