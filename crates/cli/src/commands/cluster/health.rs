//! `oncelog cluster health`: is every broker there, and every partition led and fully replicated?
//!
//! Exit code 0 if healthy, 10 if not, whatever the reason: a cluster that cannot be reached is not
//! healthy either. Deliberately not looked at: what only a broker knows of itself (disks, memory).

use std::io;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::admin::Cluster;
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::options::Options;
use crate::output;

/// Between two looks while waiting for health.
const PAUSE: Duration = Duration::from_millis(250);

/// How many partitions are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// Say whether the cluster is healthy; exit code 10 if not
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Keep looking, and end as soon as the cluster is healthy
    #[arg(short, long)]
    exit_when_healthy: bool,

    /// How long to keep looking, as 30s or 2m; for ever if not given
    #[arg(long, requires = "exit_when_healthy")]
    timeout: Option<SignedDuration>,
}

#[derive(Debug, Default)]
struct Health {
    controller: Option<i32>,
    brokers: Vec<i32>,
    brokers_down: Vec<i32>,
    /// `topic@partition`
    leaderless: Vec<String>,
    under_replicated: Vec<String>,
    /// Why nothing could be learned at all.
    unreachable: Option<String>,
}

impl Health {
    fn reasons(&self) -> Vec<String> {
        if let Some(reason) = &self.unreachable {
            return vec![reason.clone()];
        }
        let mut reasons = Vec::new();
        if self.controller.is_none() {
            reasons.push("there is no controller".into());
        }
        if !self.brokers_down.is_empty() {
            reasons.push(format!(
                "brokers do not answer: {}",
                output::comma_list(&self.brokers_down)
            ));
        }
        for (what, partitions) in [
            ("partitions without a leader", &self.leaderless),
            ("under-replicated partitions", &self.under_replicated),
        ] {
            if !partitions.is_empty() {
                let named = partitions
                    .iter()
                    .take(NAMED_MAX)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ");
                let more = if partitions.len() > NAMED_MAX {
                    ", ..."
                } else {
                    ""
                };
                reasons.push(format!("{what}: {} ({named}{more})", partitions.len()));
            }
        }
        reasons
    }

    fn to_json(&self) -> Value {
        json!({
            "healthy": self.reasons().is_empty(),
            "reasons": self.reasons(),
            "controller": self.controller,
            "brokers": self.brokers,
            "brokers_down": self.brokers_down,
            "leaderless_partitions": self.leaderless,
            "under_replicated_partitions": self.under_replicated,
        })
    }

    fn print(&self, options: &Options) -> io::Result<()> {
        if options.json() {
            return output::print_json(&self.to_json());
        }
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "Healthy: {}",
            if self.reasons().is_empty() {
                "yes"
            } else {
                "no"
            }
        )?;
        if self.unreachable.is_some() {
            return Ok(());
        }
        writeln!(out, "Controller: {}", output::or_dash(self.controller))?;
        writeln!(out, "Brokers: {}", output::comma_list(&self.brokers))?;
        writeln!(out, "Brokers down: {}", self.brokers_down.len())?;
        writeln!(out, "Leaderless partitions: {}", self.leaderless.len())?;
        writeln!(
            out,
            "Under-replicated partitions: {}",
            self.under_replicated.len()
        )
    }
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let timeout = match args.timeout {
        None => None,
        Some(timeout) => Some(
            Duration::try_from(timeout)
                .map_err(|_| Failure::usage("--timeout must not be negative"))?,
        ),
    };
    let interrupt = Interrupt::install()?;
    let started = Instant::now();
    loop {
        let remaining = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let health = look(options, remaining);
        let reasons = health.reasons();
        let over = timeout.is_some_and(|timeout| started.elapsed() + PAUSE >= timeout);
        if reasons.is_empty() || !args.exit_when_healthy || over || interrupt.asked() {
            health.print(options)?;
            return match reasons.as_slice() {
                [] => Ok(()),
                reasons => Err(Failure::new(Exit::NotHealthy, "the cluster is not healthy")
                    .why(reasons.join("; "))
                    .into()),
            };
        }
        tracing::info!("not healthy yet: {}", reasons.join("; "));
        std::thread::sleep(PAUSE);
    }
}

/// One look, in which no broker is waited for longer than `at_most`.
fn look(options: &Options, at_most: Option<Duration>) -> Health {
    let mut options = options.clone();
    if let Some(at_most) = at_most {
        let ms = options.request_timeout().min(at_most).as_millis().max(1);
        options
            .properties
            .insert("socket.timeout.ms".into(), ms.to_string());
    }
    let mut health = Health::default();
    if let Err(failure) = inspect(&options, &mut health) {
        let why = failure
            .why
            .map(|why| format!(" ({why})"))
            .unwrap_or_default();
        health.unreachable = Some(failure.what + &why);
    }
    health
}

fn inspect(options: &Options, health: &mut Health) -> Result<(), Failure> {
    let mut cluster = Cluster::connect(options)?;
    let topics = cluster.topics(None)?;
    health.controller = cluster.controller;
    health.brokers = cluster.nodes.keys().copied().collect();
    for node in health.brokers.clone() {
        if cluster.connection(node).is_err() {
            health.brokers_down.push(node);
        }
    }
    for topic in &topics {
        let name = topic.name.as_deref().unwrap_or_default();
        for partition in &topic.partitions {
            let partition_name = || format!("{name}@{}", partition.partition_index);
            if partition.leader_id < 0 {
                health.leaderless.push(partition_name());
            }
            if partition.isr_nodes.len() < partition.replica_nodes.len() {
                health.under_replicated.push(partition_name());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_a_reason() {
        let healthy = Health {
            controller: Some(1),
            brokers: vec![1],
            ..Health::default()
        };
        assert_eq!(healthy.reasons(), Vec::<String>::new());
        let sick = Health {
            controller: None,
            brokers: vec![1, 2],
            brokers_down: vec![2],
            leaderless: vec!["a@0".into()],
            under_replicated: (0..12).map(|number| format!("b@{number}")).collect(),
            unreachable: None,
        };
        let reasons = sick.reasons();
        assert_eq!(reasons.len(), 4);
        assert_eq!(reasons[2], "partitions without a leader: 1 (a@0)");
        assert!(reasons[3].starts_with("under-replicated partitions: 12 (b@0, "));
        assert!(reasons[3].ends_with("b@9, ...)"));
        assert_eq!(sick.to_json()["healthy"], false);
    }
}
