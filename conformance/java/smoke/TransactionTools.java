package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;

import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * Transactions as their operator sees them: the admin client's calls, and kafka-transactions,
 * kafka-console-consumer and the TransactionalMessageCopier as processes.
 */
final class TransactionTools {
    private static final String KAFKA = "org.apache.kafka.tools.";
    private static final String TRANSACTIONS = KAFKA + "TransactionsCommand";
    private static final String CONSUMER = KAFKA + "consumer.ConsoleConsumer";
    private static final long HOURS_AGO_MS = 3 * 3_600_000;
    private final Cluster cluster;

    TransactionTools(Cluster cluster) {
        this.cluster = cluster;
    }

    /** With the admin client. */
    void runAdmin(Checks checks) {
        checks.run("txn-second-protocol", () -> new Transactions(cluster).epochs(true));
        checks.run("txn-list-and-describe", this::listAndDescribe);
        checks.run("txn-describe-producers", this::describeProducers);
        checks.run("txn-fence-producers", this::fenceProducers);
        checks.run("txn-abort-by-admin", this::abortByAdmin);
        checks.run("txn-force-terminate", this::forceTerminate);
    }

    /** With the tools. */
    void runTools(Checks checks) {
        checks.run("kafka-transactions", this::transactions);
        checks.run("kafka-console-consumer-isolation", this::isolation);
        checks.run("kafka-transactional-message-copier", this::copier);
    }

    private KafkaProducer<byte[], byte[]> producer(String what) {
        return Transactions.producer(cluster, what, Map.of());
    }

    /** A record that looks as if its transaction were hours old. */
    private static ProducerRecord<byte[], byte[]> old(String topic, String value) {
        long then = System.currentTimeMillis() - HOURS_AGO_MS;
        return new ProducerRecord<>(topic, 0, then, null, Records.bytes(value));
    }

    // --- The admin client -----------------------------------------------------------------------

    private boolean listed(ListTransactionsOptions options, String id) throws Exception {
        return cluster.admin.listTransactions(options).all().get().stream()
            .anyMatch(listing -> listing.transactionalId().equals(id));
    }

    private void listAndDescribe() throws Exception {
        String topic = cluster.topic("txn-described", 2, Map.of());
        String id = Checks.name("txn-described");
        try (var producer = producer("txn-described")) {
            var before = cluster.admin.describeTransactions(List.of(id)).description(id).get();
            equal(before.state(), TransactionState.EMPTY, "state before the first");
            equal(before.transactionTimeoutMs(), 25_000L, "timeout");
            producer.beginTransaction();
            producer.send(Transactions.record(topic, 0, "0")).get();
            producer.send(Transactions.record(topic, 1, "1")).get();
            long now = System.currentTimeMillis();
            var open = cluster.admin.describeTransactions(List.of(id)).description(id).get();
            equal(open.state(), TransactionState.ONGOING, "state while open");
            equal(open.topicPartitions(), java.util.Set.of(
                new TopicPartition(topic, 0), new TopicPartition(topic, 1)), "its partitions");
            long start = open.transactionStartTimeMs().getAsLong();
            isTrue(start <= now + 1000 && start > now - 30_000, "its start: " + start);
            equal(open.producerId(), before.producerId(), "its producer");
            var all = new ListTransactionsOptions();
            isTrue(listed(all, id), "listed");
            var ongoing = List.of(TransactionState.ONGOING);
            isTrue(listed(new ListTransactionsOptions().filterStates(ongoing), id), "by state");
            var pids = List.of(open.producerId());
            isTrue(listed(new ListTransactionsOptions().filterProducerIds(pids), id), "by producer");
            isTrue(!listed(new ListTransactionsOptions().filterOnDuration(3_600_000), id),
                "not among the old");
            isTrue(listed(new ListTransactionsOptions().filterOnDuration(0), id), "by duration");
            String pattern = Checks.name("txn-descri") + ".*";
            isTrue(listed(new ListTransactionsOptions()
                .filterOnTransactionalIdPattern(pattern), id), "by pattern");
            isTrue(!listed(new ListTransactionsOptions()
                .filterOnTransactionalIdPattern("no" + pattern), id), "not by another pattern");
            producer.commitTransaction();
            Checks.waitFor("it is complete", () -> cluster.admin.describeTransactions(List.of(id))
                .description(id).get().state() == TransactionState.COMPLETE_COMMIT);
            isTrue(!listed(new ListTransactionsOptions().filterStates(ongoing), id), "not open");
        }
        String none = Checks.name("txn-none");
        Checks.refused("an unknown transactional id",
            org.apache.kafka.common.errors.TransactionalIdNotFoundException.class,
            () -> cluster.admin.describeTransactions(List.of(none)).description(none).get());
    }

    private void describeProducers() throws Exception {
        String topic = cluster.topic("txn-producers", 1, Map.of());
        var part = new TopicPartition(topic, 0);
        Records.sendNumbers(cluster, topic, 0, 3, 1);
        try (var producer = producer("txn-producers")) {
            producer.beginTransaction();
            producer.send(Transactions.record(topic, 0, "0")).get();
            producer.send(Transactions.record(topic, 0, "1")).get();
            var states = cluster.admin.describeProducers(List.of(part))
                .partitionResult(part).get().activeProducers();
            equal(states.size(), 2, "producers: an idempotent and a transactional one");
            var open = states.stream()
                .filter(state -> state.currentTransactionStartOffset().isPresent()).toList();
            equal(open.size(), 1, "producers with an open transaction");
            equal(open.get(0).currentTransactionStartOffset().getAsLong(), 3L, "its start");
            equal(open.get(0).lastSequence(), 1, "its last sequence");
            producer.abortTransaction();
            Transactions.stable(cluster, topic, 1);
            states = cluster.admin.describeProducers(List.of(part))
                .partitionResult(part).get().activeProducers();
            isTrue(states.stream().allMatch(s -> s.currentTransactionStartOffset().isEmpty()),
                "no transaction is open any more");
        }
    }

    private void fenceProducers() throws Exception {
        String topic = cluster.topic("txn-fenced", 1, Map.of());
        try (var producer = producer("txn-fenced")) {
            producer.beginTransaction();
            producer.send(Transactions.record(topic, 0, "0")).get();
            cluster.admin.fenceProducers(List.of(Checks.name("txn-fenced"))).all().get();
            Transactions.stable(cluster, topic, 1);
            Checks.refused("a commit of a fenced producer",
                org.apache.kafka.common.KafkaException.class, () -> {
                    producer.commitTransaction();
                    return null;
                });
            producer.close(java.time.Duration.ZERO);
        }
        equal(Transactions.values(cluster, topic, 1, Transactions.COMMITTED),
            Map.of(0, List.of()), "read_committed");
    }

    /** An abort of one partition, as for a transaction that hangs. */
    private void abortByAdmin() throws Exception {
        String topic = cluster.topic("txn-aborted", 1, Map.of());
        var part = new TopicPartition(topic, 0);
        try (var producer = producer("txn-aborted")) {
            producer.beginTransaction();
            producer.send(Transactions.record(topic, 0, "0")).get();
            var open = cluster.admin.describeProducers(List.of(part))
                .partitionResult(part).get().activeProducers().get(0);
            cluster.admin.abortTransaction(new AbortTransactionSpec(part, open.producerId(),
                (short) open.producerEpoch(), open.coordinatorEpoch().orElse(0))).all().get();
            equal(Transactions.ends(cluster, topic, 0), List.of(2L, 2L), "ends");
            producer.close(java.time.Duration.ZERO);
        }
        try (var next = producer("txn-aborted")) {
            next.beginTransaction();
            next.send(Transactions.record(topic, 0, "next"));
            next.commitTransaction();
        }
        Transactions.stable(cluster, topic, 1);
        equal(Transactions.values(cluster, topic, 1, Transactions.COMMITTED),
            Map.of(0, List.of("next")), "read_committed");
    }

    private void forceTerminate() throws Exception {
        String topic = cluster.topic("txn-forced", 1, Map.of());
        try (var producer = producer("txn-forced")) {
            producer.beginTransaction();
            producer.send(Transactions.record(topic, 0, "0")).get();
            cluster.admin.forceTerminateTransaction(Checks.name("txn-forced")).result().get();
            Transactions.stable(cluster, topic, 1);
            producer.close(java.time.Duration.ZERO);
        }
        equal(Transactions.values(cluster, topic, 1, Transactions.COMMITTED),
            Map.of(0, List.of()), "read_committed");
    }

    // --- The tools ------------------------------------------------------------------------------

    private Tool tool(String main, String... arguments) throws Exception {
        String[] all = new String[arguments.length + 2];
        all[0] = "--bootstrap-server";
        all[1] = cluster.bootstrap;
        System.arraycopy(arguments, 0, all, 2, arguments.length);
        return Tool.run(main, all);
    }

    private void transactions() throws Exception {
        String topic = cluster.topic("tool-txn", 1, Map.of());
        String id = Checks.name("tool-txn");
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        // Each tool takes seconds to start.
        var patient = Map.of("transaction.timeout.ms", "600000");
        try (var producer = Transactions.producer(cluster, "tool-txn", patient)) {
            producer.beginTransaction();
            producer.send(old(topic, "0")).get();
            tool(TRANSACTIONS, "list").ok().says("TransactionalId", "ProducerId")
                .says(id, "Ongoing");
            tool(TRANSACTIONS, "list", "--duration-filter", "3600000").ok().saysNot(id);
            tool(TRANSACTIONS, "describe", "--transactional-id", id).ok()
                .says("TransactionState", "TransactionTimeoutMs", "TopicPartitions")
                .says(id, "Ongoing", "600000", topic + "-0");
            tool(TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", "0").ok()
                .says("ProducerId", "LastSequence", "CurrentTransactionStartOffset");
            // Old enough to be looked into; and it is not hanging, for its coordinator knows it.
            tool(TRANSACTIONS, "find-hanging", "--broker-id", String.valueOf(node)).ok()
                .saysNot(topic);
            tool(TRANSACTIONS, "find-hanging", "--topic", topic).ok().saysNot(topic);
            equal(Transactions.ends(cluster, topic, 0), List.of(0L, 1L), "ends, while open");
            tool(TRANSACTIONS, "abort", "--topic", topic, "--partition", "0", "--start-offset",
                "0").ok();
            equal(Transactions.ends(cluster, topic, 0), List.of(2L, 2L), "ends, once aborted");
            tool(TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", "0").ok()
                .says("None");
            producer.close(java.time.Duration.ZERO);
        }
        tool(TRANSACTIONS, "describe", "--transactional-id", id + "-none")
            .refused("TransactionalIdNotFound");
        equal(Transactions.values(cluster, topic, 1, Transactions.COMMITTED),
            Map.of(0, List.of()), "read_committed");
    }

    private void isolation() throws Exception {
        String topic = cluster.topic("tool-isolation", 1, Map.of());
        try (var producer = producer("tool-isolation")) {
            for (boolean commit : List.of(true, false, true)) {
                producer.beginTransaction();
                for (int i = 0; i < 5; i++) {
                    producer.send(Transactions.record(topic, 0, (commit ? "kept" : "lost") + i));
                }
                if (commit) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
            Transactions.stable(cluster, topic, 1);
            Tool all = tool(CONSUMER, "--topic", topic, "--from-beginning", "--isolation-level",
                "read_uncommitted", "--max-messages", "15", "--timeout-ms", "60000").ok();
            equal(all.count("kept"), 10L, "committed records among all");
            equal(all.count("lost"), 5L, "aborted records among all");
            Tool committed = tool(CONSUMER, "--topic", topic, "--from-beginning",
                "--isolation-level", "read_committed", "--max-messages", "10", "--timeout-ms",
                "60000").ok().says("total of 10 messages");
            equal(committed.count("kept"), 10L, "committed records");
            equal(committed.count("lost"), 0L, "aborted records");
            // One more is not there for a reader of what is committed, though it is open.
            producer.beginTransaction();
            producer.send(Transactions.record(topic, 0, "open")).get();
            tool(CONSUMER, "--topic", topic, "--from-beginning", "--isolation-level",
                "read_committed", "--max-messages", "11", "--timeout-ms", "3000")
                .says("total of 10 messages").saysNot("open");
            tool(CONSUMER, "--topic", topic, "--from-beginning", "--isolation-level",
                "read_uncommitted", "--max-messages", "16", "--timeout-ms", "60000").ok()
                .says("open");
            producer.abortTransaction();
        }
    }

    private void copier() throws Exception {
        String source = cluster.topic("tool-copied", 1, Map.of());
        String sink = cluster.topic("tool-copy", 1, Map.of());
        Records.sendNumbers(cluster, source, 0, 1000, 1);
        for (String half : List.of("first", "second")) {
            Tool.run(KAFKA + "TransactionalMessageCopier", "--broker-list", cluster.bootstrap,
                "--input-topic", source, "--input-partition", "0", "--output-topic", sink,
                "--consumer-group", Checks.name("tool-copier"), "--transactional-id",
                Checks.name("tool-copier"), "--transaction-size", "50", "--max-messages",
                "500", "--enable-random-aborts").ok().says("\"remaining\":0");
            equal(Transactions.committed(cluster, Checks.name("tool-copier"),
                new TopicPartition(source, 0)), List.of(half.equals("first") ? 500L : 1000L),
                "committed after the " + half + " half");
        }
        Transactions.stable(cluster, sink, 1);
        var got = Transactions.values(cluster, sink, 1, Transactions.COMMITTED).get(0);
        equal(got, java.util.stream.IntStream.range(0, 1000).mapToObj(String::valueOf).toList(),
            "what was copied");
    }
}
