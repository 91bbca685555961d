package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;

/**
 * Consume, transform, produce: two workers of a group with a producer each, offsets within the
 * transactions, some of them aborted, partitions that move between the workers; every number of
 * the input has to be in the output once.
 */
final class TransactionLoop {
    private static final int TOTAL = 600;
    private static final int PARTITIONS = 4;
    private final Cluster cluster;

    TransactionLoop(Cluster cluster) {
        this.cluster = cluster;
    }

    void run(Checks checks, List<String> protocols) {
        for (String protocol : protocols) {
            checks.run("txn-consume-transform-produce-" + protocol, () -> loop(protocol));
        }
    }

    private void loop(String protocol) throws Exception {
        String source = cluster.topic("txn-source-" + protocol, PARTITIONS, Map.of());
        String sink = cluster.topic("txn-sink-" + protocol, PARTITIONS, Map.of());
        String group = Checks.name("txn-loop-" + protocol);
        Records.sendNumbers(cluster, source, 0, TOTAL, PARTITIONS);
        var parts = IntStream.range(0, PARTITIONS)
            .mapToObj(p -> new TopicPartition(source, p)).toArray(TopicPartition[]::new);
        var done = IntStream.range(0, PARTITIONS)
            .mapToObj(p -> (long) TOTAL / PARTITIONS).toList();
        int aborted;
        try (var one = new Worker(protocol, group, source, sink, 1)) {
            Checks.waitFor("the first worker has begun", () -> one.check().committed >= 3);
            try (var two = new Worker(protocol, group, source, sink, 2)) {
                Checks.waitFor("everything is processed", () -> {
                    one.check();
                    two.check();
                    return Transactions.committed(cluster, group, parts).equals(done);
                });
                aborted = one.aborted + two.aborted;
            }
        }
        Transactions.stable(cluster, sink, PARTITIONS);
        equal(Transactions.committed(cluster, group, parts), done, "committed offsets");
        var got = Transactions.values(cluster, sink, PARTITIONS, Transactions.COMMITTED);
        for (int p = 0; p < PARTITIONS; p++) {
            int partition = p;
            var want = IntStream.range(0, TOTAL).filter(i -> i % PARTITIONS == partition)
                .mapToObj(i -> String.valueOf(2 * i)).toList();
            equal(got.get(p), want, "output in partition " + p);
        }
        isTrue(aborted > 0, "some transactions were aborted");
    }

    /** Doubles numbers from a topic to another. */
    private final class Worker implements ConsumerRebalanceListener, AutoCloseable {
        volatile int committed = 0;
        volatile int aborted = 0;
        private final String sink;
        private final int number;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final Thread thread;
        private volatile boolean stopping = false;
        private volatile Throwable error = null;

        Worker(String protocol, String group, String source, String sink, int number) {
            this.sink = sink;
            this.number = number;
            Map<String, String> config = new HashMap<>(Map.of("group.id", group,
                "group.protocol", protocol, "isolation.level", Transactions.COMMITTED,
                "max.poll.records", "30"));
            if (protocol.equals("classic")) {
                config.put("heartbeat.interval.ms", "500");
                config.put("session.timeout.ms", "10000");
            }
            consumer = Records.consumer(cluster, config);
            consumer.subscribe(List.of(source), this);
            thread = new Thread(this::work, "worker");
            thread.start();
        }

        private void work() {
            var random = new Random(number);
            try (consumer;
                var producer = Transactions.producer(cluster, "txn-loop-" + sink + number, Map.of())) {
                while (!stopping) {
                    // Within one poll partitions do not change under the records that it returns.
                    var records = consumer.poll(Duration.ofMillis(200));
                    if (records.isEmpty()) {
                        continue;
                    }
                    Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
                    producer.beginTransaction();
                    for (var record : records) {
                        String value = String.valueOf(2 * Records.number(record));
                        producer.send(Transactions.record(sink, record.partition(), value));
                        ends.put(new TopicPartition(record.topic(), record.partition()),
                            new OffsetAndMetadata(record.offset() + 1));
                    }
                    finish(producer, ends, random.nextInt(4) == 0);
                }
            } catch (Throwable failure) {
                error = failure;
            }
        }

        private void finish(KafkaProducer<byte[], byte[]> producer,
            Map<TopicPartition, OffsetAndMetadata> ends, boolean abort) {
            try {
                producer.sendOffsetsToTransaction(ends, consumer.groupMetadata());
                if (!abort) {
                    producer.commitTransaction();
                    committed += 1;
                    return;
                }
            } catch (KafkaException error) {
                if (error instanceof ProducerFencedException) {
                    throw error;
                }
                // The offsets are of a generation that is over.
            }
            producer.abortTransaction();
            aborted += 1;
            // Back to what is committed: what was read in vain is read again.
            var assignment = consumer.assignment();
            var at = consumer.committed(assignment);
            for (TopicPartition part : assignment) {
                consumer.seek(part, at.get(part) == null ? 0 : at.get(part).offset());
            }
        }

        /** Itself, unless its thread has failed. */
        Worker check() {
            if (error != null) {
                throw new AssertionError("a worker failed: " + error, error);
            }
            return this;
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}

        @Override
        public void close() throws Exception {
            stopping = true;
            thread.join(30_000);
            isTrue(!thread.isAlive(), "a worker stops");
            check();
        }
    }
}
