//! Keys that Kafka knows, or once knew, and Oncelog does not act on.
//!
//! Two kinds. Those whose absence nobody would notice (thread counts, ZooKeeper, buffers) are
//! accepted, with a warning that says so, so that an existing `server.properties` starts. Those
//! whose absence would break a promise (who may connect, who may do what, where data goes) are
//! refused: a broker that silently leaves its doors open is worse than one that does not start.

use ForeignKey::{NoEffect, Refused};

#[derive(Clone, Copy, Debug)]
pub enum ForeignKey {
    /// Accepted; the words say why it means nothing here.
    NoEffect(&'static str),
    /// Refused, unless the value is one of `harmless`.
    Refused {
        harmless: &'static [&'static str],
        why: &'static str,
    },
}

const fn refused(harmless: &'static [&'static str], why: &'static str) -> ForeignKey {
    Refused { harmless, why }
}

const SECURITY: &str = "TLS, SASL and access control are not implemented yet, and starting without what was asked for would leave the broker open";
const POLICY: &str =
    "Java plug-ins cannot be loaded, and the rule that this one enforces would not be kept";
const REPLICATION: &str = "there is no replication between brokers yet";
const QUORUM: &str =
    "this node keeps the cluster's metadata by itself, without a separate controller";
const TIERS: &str = "tiered storage is not implemented";
const SHARE: &str = "share groups are not implemented";
const STREAMS: &str = "the Streams group protocol is not implemented";
const QUOTAS: &str = "quotas are not implemented, so there is nothing to sample";
const METRICS: &str = "metrics are served over HTTP, see http.listener";
const THREADS: &str = "there are no such threads to count";
const BUFFERS: &str = "the operating system sizes its buffers by itself";
const ZOOKEEPER: &str = "there is no ZooKeeper";
const WAITING: &str = "there is no purgatory to purge";
const ASSIGNMENT: &str = "assignments are computed at once";

/// A name, or a prefix that ends with `*`. The first row that fits counts.
#[rustfmt::skip] // a row reads better as a row
const FOREIGN: &[(&str, ForeignKey)] = &[
    // Who may connect, and who may do what.
    ("allow.everyone.if.no.acl.found", refused(&["true"], SECURITY)),
    ("authorizer.class.name", refused(&[""], SECURITY)),
    ("connections.max.reauth.ms", refused(&["0"], SECURITY)),
    ("delegation.token.secret.key", refused(&[""], SECURITY)),
    ("delegation.token.master.key", refused(&[""], SECURITY)),
    ("delegation.token.*", NoEffect("there are no delegation tokens")),
    ("listener.name.*", refused(&[], SECURITY)),
    ("principal.builder.class", refused(&["org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"], SECURITY)),
    ("sasl.*", refused(&[], SECURITY)),
    ("security.inter.broker.protocol", refused(&["PLAINTEXT"], SECURITY)),
    ("security.providers", refused(&[""], SECURITY)),
    ("ssl.*", refused(&[], SECURITY)),
    ("super.users", refused(&[""], SECURITY)),
    ("connection.failed.authentication.delay.ms", NoEffect("there is no authentication yet")),
    // Rules that would not be kept.
    ("alter.config.policy.class.name", refused(&[""], POLICY)),
    ("client.quota.callback.class", refused(&[""], POLICY)),
    ("create.topic.policy.class.name", refused(&[""], POLICY)),
    ("config.providers", refused(&[""], "values are not looked up in other places; write them out, or pass them in the environment")),
    ("config.providers.*", refused(&[], "values are not looked up in other places; write them out, or pass them in the environment")),
    ("cordoned.log.dirs", refused(&[""], "there is one data directory, and it cannot be closed to new partitions")),
    ("log.message.timestamp.difference.max.ms", refused(&[], "Kafka 4.0 removed it: use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms")),
    ("max.connection.creation.rate", refused(&["2147483647"], "connection rates are not limited yet")),
    ("max.connections.per.ip", refused(&["2147483647"], "connections are not limited by address yet; max.connections limits them in all")),
    ("max.connections.per.ip.overrides", refused(&[""], "connections are not limited by address yet; max.connections limits them in all")),
    ("metadata.log.dir", refused(&[""], "metadata lies in the data directory, see log.dirs")),
    ("remote.log.storage.system.enable", refused(&["false"], TIERS)),
    ("transaction.partition.verification.enable", refused(&["true"], "without it a late write can leave a transaction open for ever")),
    ("unstable.*", refused(&["false"], "only released protocol versions are served")),
    // Names from before Kafka 3.
    ("advertised.host.name", refused(&[], "Kafka 3.0 removed it: use advertised.listeners")),
    ("advertised.port", refused(&[], "Kafka 3.0 removed it: use advertised.listeners")),
    ("host.name", refused(&[], "Kafka 3.0 removed it: use listeners")),
    ("port", refused(&[], "Kafka 3.0 removed it: use listeners")),
    // The metadata quorum. Some of these are looked at in BrokerConfig.
    ("broker.heartbeat.interval.ms", NoEffect(QUORUM)),
    ("broker.id.generation.enable", NoEffect(QUORUM)),
    ("broker.session.timeout.ms", NoEffect(QUORUM)),
    ("control.plane.listener.name", NoEffect(QUORUM)),
    ("controller.*", NoEffect(QUORUM)),
    ("controlled.shutdown.*", NoEffect("a partition has one replica, so its leadership cannot move away first")),
    ("early.start.listeners", NoEffect(QUORUM)),
    ("initial.broker.registration.timeout.ms", NoEffect(QUORUM)),
    ("inter.broker.listener.name", NoEffect(REPLICATION)),
    ("inter.broker.protocol.version", NoEffect(REPLICATION)),
    ("metadata.*", NoEffect("the metadata log has no snapshots yet: it is read in full at the start")),
    ("process.roles", NoEffect(QUORUM)),
    ("reserved.broker.max.id", NoEffect(QUORUM)),
    ("zookeeper.*", NoEffect(ZOOKEEPER)),
    // Replication.
    ("alter.log.dirs.replication.quota.*", NoEffect(REPLICATION)),
    ("auto.leader.rebalance.enable", NoEffect(REPLICATION)),
    ("follower.replication.throttled.rate", NoEffect(REPLICATION)),
    ("leader.imbalance.*", NoEffect(REPLICATION)),
    ("leader.replication.throttled.rate", NoEffect(REPLICATION)),
    ("num.replica.alter.log.dirs.threads", NoEffect(REPLICATION)),
    ("num.replica.fetchers", NoEffect(REPLICATION)),
    ("replica.*", NoEffect(REPLICATION)),
    ("replication.quota.*", NoEffect(REPLICATION)),
    ("unclean.leader.election.interval.ms", NoEffect(REPLICATION)),
    // Transactions.
    ("add.partitions.to.txn.*", NoEffect("a write waits for the transaction before it, nothing is asked again in a loop")),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", NoEffect("a transaction is aborted when its time is over, not at intervals")),
    ("transaction.remove.expired.transaction.cleanup.interval.ms", NoEffect("a transactional id is forgotten when its time is over, not at intervals")),
    ("transaction.state.log.load.buffer.size", NoEffect(BUFFERS)),
    ("transaction.state.log.min.isr", NoEffect(REPLICATION)),
    // Groups.
    ("group.consumer.assignment.interval.ms", NoEffect(ASSIGNMENT)),
    ("group.consumer.max.assignment.interval.ms", NoEffect(ASSIGNMENT)),
    ("group.consumer.min.assignment.interval.ms", NoEffect(ASSIGNMENT)),
    ("group.consumer.migration.policy", NoEffect("groups change between the two protocols only when they are empty")),
    ("group.consumer.regex.refresh.interval.ms", NoEffect("regular expressions are looked at again whenever a topic changes")),
    ("group.coordinator.rebalance.protocols", NoEffect("the classic and the consumer protocol are always served, the others never")),
    ("group.coordinator.*", NoEffect(THREADS)),
    ("group.share.*", NoEffect(SHARE)),
    ("share.*", NoEffect(SHARE)),
    ("group.streams.*", NoEffect(STREAMS)),
    ("offsets.commit.required.acks", NoEffect("a commit is answered when it is as durable as a write with acks=all")),
    ("offsets.commit.timeout.ms", NoEffect("a commit is answered when it is durable, and not before")),
    ("offsets.load.buffer.size", NoEffect(BUFFERS)),
    ("offsets.topic.compression.codec", NoEffect("records of groups are small and are written uncompressed")),
    // The log.
    ("log.cleaner.dedupe.buffer.size", NoEffect("compaction sizes its own buffers")),
    ("log.cleaner.io.*", NoEffect("compaction sizes its own buffers")),
    ("log.cleaner.threads", NoEffect(THREADS)),
    ("log.dir.failure.timeout.ms", NoEffect("a broken data directory stops the broker at once")),
    ("log.flush.offset.checkpoint.interval.ms", NoEffect("checkpoints are written by how much was synced since the last one, not by time")),
    ("log.flush.start.offset.checkpoint.interval.ms", NoEffect("the start of a log is part of its checkpoint, which is written by what was synced")),
    ("log.initial.task.delay.ms", NoEffect("housekeeping begins with its own intervals")),
    ("log.message.downconversion.enable", NoEffect("there is one message format, as in Kafka 4")),
    ("log.message.format.version", NoEffect("there is one message format, as in Kafka 4")),
    ("num.recovery.threads.per.data.dir", NoEffect(THREADS)),
    ("producer.id.expiration.check.interval.ms", NoEffect("idle producers are looked for along with retention, see log.retention.check.interval.ms")),
    ("follower.fetch.last.tiered.offset.enable", NoEffect(TIERS)),
    ("remote.*", NoEffect(TIERS)),
    // Threads, sockets, measurements.
    ("background.threads", NoEffect(THREADS)),
    ("num.io.threads", NoEffect(THREADS)),
    ("num.network.threads", NoEffect(THREADS)),
    ("queued.max.requests", NoEffect("requests are limited by their bytes, see queued.max.request.bytes")),
    ("request.timeout.ms", NoEffect(REPLICATION)),
    ("server.max.startup.time.ms", NoEffect("the start waits for nobody else")),
    ("socket.connection.setup.*", NoEffect(REPLICATION)),
    ("socket.listen.backlog.size", NoEffect(BUFFERS)),
    ("socket.receive.buffer.bytes", NoEffect(BUFFERS)),
    ("socket.send.buffer.bytes", NoEffect(BUFFERS)),
    ("delete.records.purgatory.purge.interval.requests", NoEffect(WAITING)),
    ("fetch.purgatory.purge.interval.requests", NoEffect(WAITING)),
    ("producer.purgatory.purge.interval.requests", NoEffect(WAITING)),
    ("auto.include.jmx.reporter", NoEffect(METRICS)),
    ("confluent.*", NoEffect("it is not a key of Apache Kafka's")),
    ("kafka.metrics.*", NoEffect(METRICS)),
    ("metric.reporters", NoEffect(METRICS)),
    ("metrics.*", NoEffect(METRICS)),
    ("internal.*", NoEffect("it sets what only Kafka's own tests set")),
    ("quota.*", NoEffect(QUOTAS)),
    ("telemetry.max.bytes", NoEffect("clients are not asked for telemetry")),
];

/// What is to be said of a key that is in Kafka's tables and not in ours.
pub fn foreign_key(name: &str) -> Option<ForeignKey> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    let row = FOREIGN.iter().find(|(pattern, _)| fits(pattern))?;
    Some(row.1)
}

/// The names without a wildcard, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let whole = |name: &&str| !name.ends_with('*');
    FOREIGN.iter().map(|(name, _)| *name).filter(whole)
}

#[cfg(test)]
mod tests {
    use super::super::broker_keys::broker_key;
    use super::*;

    #[test]
    fn no_key_is_both_ours_and_foreign() {
        for name in names() {
            assert!(broker_key(name).is_none(), "{name}");
        }
    }

    #[test]
    fn security_is_never_ignored() {
        for name in [
            "ssl.keystore.location",
            "sasl.enabled.mechanisms",
            "sasl.jaas.config",
            "authorizer.class.name",
            "super.users",
            "listener.name.internal.ssl.keystore.location",
            "security.inter.broker.protocol",
        ] {
            let key = foreign_key(name);
            assert!(matches!(key, Some(Refused { .. })), "{name}: {key:?}");
        }
        assert!(foreign_key("log.dirz").is_none());
    }
}
