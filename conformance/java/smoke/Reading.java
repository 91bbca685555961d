package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;
import static smoke.Checks.waitFor;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** What a consumer does beside reading on: seek, pause, lag, topics that go and come, many of them. */
final class Reading {
    private static final int MANY = 200;
    private final Cluster cluster;

    Reading(Cluster cluster) {
        this.cluster = cluster;
    }

    void run(Checks checks) {
        for (String protocol : List.of("classic", "consumer")) {
            checks.run("seek-" + protocol, () -> seek(protocol));
            checks.run("pause-and-resume-" + protocol, () -> pause(protocol));
            checks.run("lag-" + protocol, () -> lag(protocol));
            checks.run("many-partitions-" + protocol, () -> manyPartitions(protocol));
        }
        checks.run("topic-deleted-and-made-again", this::deletedAndMadeAgain);
    }

    private KafkaConsumer<byte[], byte[]> consumer(String protocol, String what) {
        return Records.consumer(cluster, Map.of("group.protocol", protocol,
            "group.id", Checks.name(what + "-" + protocol), "max.poll.records", "10"));
    }

    /** Polls until {@code count} records are there; their numbers in the order that they came. */
    private static List<Integer> poll(KafkaConsumer<byte[], byte[]> consumer, int count)
        throws Exception {
        List<Integer> read = new ArrayList<>();
        waitFor(count + " records", () -> {
            consumer.poll(Duration.ofMillis(200)).forEach(r -> read.add(Records.number(r)));
            return read.size() >= count;
        });
        return read;
    }

    private void seek(String protocol) throws Exception {
        String name = cluster.topic("seek-" + protocol, 1, Map.of());
        Records.sendNumbers(cluster, name, 0, 50, 1);
        var part = new TopicPartition(name, 0);
        try (var consumer = consumer(protocol, "seek")) {
            consumer.assign(List.of(part));
            for (int at : new int[] {40, 3, 49, 0}) {
                consumer.seek(part, at);
                equal(consumer.position(part), (long) at, "position after the seek");
                equal(poll(consumer, 1).get(0), at, "the record there");
            }
            consumer.seek(part, new OffsetAndMetadata(17, java.util.Optional.of(0), ""));
            equal(poll(consumer, 1).get(0), 17, "a seek with a leader epoch");
            consumer.seekToEnd(List.of(part));
            equal(consumer.position(part), 50L, "the end");
            consumer.seekToBeginning(List.of(part));
            equal(poll(consumer, 50).get(0), 0, "the beginning");
        }
    }

    private void pause(String protocol) throws Exception {
        String name = cluster.topic("pause-" + protocol, 2, Map.of());
        var zero = new TopicPartition(name, 0);
        try (var consumer = consumer(protocol, "pause")) {
            consumer.subscribe(List.of(name));
            waitFor("assigned", () -> {
                consumer.poll(Duration.ofMillis(100));
                return consumer.assignment().size() == 2;
            });
            consumer.pause(List.of(zero));
            Records.sendNumbers(cluster, name, 0, 20, 2);
            var odd = poll(consumer, 10);
            isTrue(odd.stream().allMatch(number -> number % 2 == 1), "only of the other: " + odd);
            for (int i = 0; i < 5; i++) {
                equal(consumer.poll(Duration.ofMillis(100)).count(), 0, "records while paused");
            }
            consumer.resume(List.of(zero));
            equal(poll(consumer, 10), List.of(0, 2, 4, 6, 8, 10, 12, 14, 16, 18), "once resumed");
        }
    }

    private void lag(String protocol) throws Exception {
        String name = cluster.topic("lag-" + protocol, 1, Map.of());
        Records.sendNumbers(cluster, name, 0, 30, 1);
        var part = new TopicPartition(name, 0);
        try (var consumer = consumer(protocol, "lag")) {
            consumer.assign(List.of(part));
            int read = poll(consumer, 10).size();
            consumer.commitSync();
            waitFor("the lag is known", () -> consumer.currentLag(part).isPresent());
            equal(consumer.currentLag(part).getAsLong(), 30L - read, "lag behind the end");
            long committed = consumer.committed(Set.of(part)).get(part).offset();
            equal(consumer.endOffsets(List.of(part)).get(part) - committed, 30L - read,
                "lag of what is committed");
            poll(consumer, 30 - read);
            waitFor("no lag at the end", () -> {
                consumer.poll(Duration.ofMillis(100));
                return consumer.currentLag(part).orElse(-1) == 0;
            });
        }
    }

    private void manyPartitions(String protocol) throws Exception {
        String name = cluster.topic("many-" + protocol, MANY, Map.of());
        // In rounds: where a partition becomes ready only after its topic was told, a first batch
        // that is refused while the second is taken is out of order from then on.
        for (int round = 0; round < 5; round++) {
            Records.sendNumbers(cluster, name, round * MANY, MANY, MANY);
        }
        Set<Integer> numbers = new HashSet<>();
        Set<Integer> partitions = new TreeSet<>();
        try (var consumer = consumer(protocol, "many")) {
            consumer.subscribe(List.of(name));
            waitFor("all of " + MANY + " partitions are read", () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(record -> {
                    numbers.add(Records.number(record));
                    partitions.add(record.partition());
                    equal(Records.number(record) % MANY, record.partition(), "partition");
                });
                return numbers.size() == 5 * MANY;
            });
            consumer.commitSync();
            equal(partitions.size(), MANY, "partitions read");
            var committed = consumer.committed(consumer.assignment());
            equal(committed.size(), MANY, "partitions with a committed offset");
            committed.forEach((part, at) -> equal(at.offset(), 5L, "offset of " + part));
        }
        // Even where topics are kept: so many files would be all that is left to look at.
        cluster.admin.deleteTopics(List.of(name)).all().get();
        cluster.deleted(name);
    }

    /** A producer and a consumer outlive the topic: another of the same name has another id. */
    private void deletedAndMadeAgain() throws Exception {
        String name = cluster.topic("again", 2, Map.of());
        var refresh = Map.of("metadata.max.age.ms", "500", "allow.auto.create.topics", "false");
        try (var producer = Records.producer(cluster, refresh);
            var consumer = Records.consumer(cluster, refresh)) {
            var zero = new TopicPartition(name, 0);
            consumer.assign(List.of(zero));
            producer.send(new ProducerRecord<>(name, 0, null, Records.bytes("1"))).get();
            equal(poll(consumer, 1), List.of(1), "from the first topic");
            cluster.admin.deleteTopics(List.of(name)).all().get();
            cluster.deleted(name);
            waitFor("topic gone", () -> !cluster.admin.listTopics().names().get().contains(name));
            cluster.topic("again", 3, Map.of());
            waitFor("the producer sees the third partition",
                () -> producer.partitionsFor(name).size() == 3);
            var sent = producer.send(new ProducerRecord<>(name, 0, null, Records.bytes("2"))).get();
            equal(sent.offset(), 0L, "offset in the second topic");
            // At offset 1 of the first topic there is nothing in the second, and then the third.
            producer.send(new ProducerRecord<>(name, 0, null, Records.bytes("3"))).get();
            var read = poll(consumer, 1);
            isTrue(read.equals(List.of(3)) || read.equals(List.of(2))
                || read.equals(List.of(2, 3)), "from the second topic: " + read);
        }
    }
}
