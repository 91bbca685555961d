package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;

/**
 * Transactions: what readers of each isolation level see, offset by offset, and who is let on.
 *
 * A client of Kafka 4 speaks the second protocol of transactions (KIP-890): partitions are added by
 * the broker and each transaction has an epoch of its own. An older one speaks the first; the same
 * checks run with both: {@code java smoke.Transactions BOOTSTRAP} with an old client's jar before
 * all others runs only these.
 */
final class Transactions {
    static final String COMMITTED = "read_committed";
    static final String ALL = "read_uncommitted";
    private static final int LARGE = 40_000;
    private final Cluster cluster;

    Transactions(Cluster cluster) {
        this.cluster = cluster;
    }

    public static void main(String[] args) throws Exception {
        var checks = new Checks();
        try (var cluster = new Cluster(args[0])) {
            new Transactions(cluster).run(checks);
            new TransactionLoop(cluster).run(checks, List.of("classic"));
            checks.run("txn-first-protocol", () -> new Transactions(cluster).epochs(false));
            checks.run("clean-up", cluster::deleteMade);
        }
        System.exit(checks.failed == 0 ? 0 : 1);
    }

    void run(Checks checks) {
        checks.run("txn-commit-and-abort", this::commitAndAbort);
        checks.run("txn-all-or-nothing", this::allOrNothing);
        checks.run("txn-empty", this::empty);
        checks.run("txn-large", this::large);
        checks.run("txn-open-one-holds-back", this::openOneHoldsBack);
        checks.run("txn-read-from-the-middle", this::readFromTheMiddle);
        checks.run("txn-unstable-offsets", this::unstableOffsets);
        checks.run("txn-zombie-is-fenced", this::zombieIsFenced);
        checks.run("txn-left-by-a-dead-instance", this::leftByDeadInstance);
        checks.run("txn-timeout", this::timeout);
        checks.run("txn-goes-on-after-abortable-error", this::goesOnAfterAbortableError);
        checks.run("txn-many-producers", this::manyProducers);
    }

    // --- Tools ----------------------------------------------------------------------------------

    /** A producer that has initialised its transactions, so that an older one is fenced. */
    static KafkaProducer<byte[], byte[]> producer(
        Cluster cluster, String what, Map<String, String> config) {
        Map<String, String> all = new TreeMap<>(Map.of(
            "transactional.id", Checks.name(what), "transaction.timeout.ms", "25000"));
        all.putAll(config);
        var producer = Records.producer(cluster, all);
        producer.initTransactions();
        return producer;
    }

    private KafkaProducer<byte[], byte[]> producer(String what) {
        return producer(cluster, what, Map.of());
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int partition, String value) {
        return new ProducerRecord<>(topic, partition, null, Records.bytes(value));
    }

    /** Ends it one way or the other. */
    private static void end(KafkaProducer<byte[], byte[]> producer, boolean commit) {
        if (commit) {
            producer.commitTransaction();
        } else {
            producer.abortTransaction();
        }
    }

    /** What offsets are sent with for a group without members. */
    private ConsumerGroupMetadata metadata(String group) {
        try (var consumer = Records.consumer(cluster, Map.of("group.id", group))) {
            return consumer.groupMetadata();
        }
    }

    /** What a reader sees, by partition, up to the end that it is told. */
    static Map<Integer, List<ConsumerRecord<byte[], byte[]>>> read(
        Cluster cluster, String topic, int partitions, String isolation, long start) {
        var parts = IntStream.range(0, partitions)
            .mapToObj(p -> new TopicPartition(topic, p)).toList();
        Map<Integer, List<ConsumerRecord<byte[], byte[]>>> found = new TreeMap<>();
        var config = Map.of("isolation.level", isolation, "fetch.max.wait.ms", "50");
        try (var consumer = Records.consumer(cluster, config)) {
            consumer.assign(parts);
            parts.forEach(part -> consumer.seek(part, start));
            parts.forEach(part -> found.put(part.partition(), new ArrayList<>()));
            Map<TopicPartition, Long> ends = consumer.endOffsets(parts);
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (parts.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                isTrue(System.nanoTime() < deadline, topic + " not read to its end within 60 s");
                for (var record : consumer.poll(Duration.ofMillis(300))) {
                    var part = new TopicPartition(topic, record.partition());
                    // What came in since is not within the ends.
                    if (record.offset() < ends.get(part)) {
                        found.get(record.partition()).add(record);
                    }
                }
            }
        }
        return found;
    }

    static Map<Integer, List<String>> values(
        Cluster cluster, String topic, int partitions, String isolation) {
        Map<Integer, List<String>> values = new TreeMap<>();
        read(cluster, topic, partitions, isolation, 0).forEach((part, records) -> values.put(
            part, records.stream().map(record -> new String(record.value())).toList()));
        return values;
    }

    private List<String> values(String topic, String isolation) {
        return values(cluster, topic, 1, isolation).get(0);
    }

    private List<Long> offsets(String topic, String isolation, long start) {
        return read(cluster, topic, 1, isolation, start).get(0).stream()
            .map(ConsumerRecord::offset).toList();
    }

    /** The last stable offset and the high watermark. */
    static List<Long> ends(Cluster cluster, String topic, int partition) throws Exception {
        var part = new TopicPartition(topic, partition);
        List<Long> ends = new ArrayList<>();
        for (var level : List.of(IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)) {
            ends.add(cluster.admin.listOffsets(
                Map.of(part, OffsetSpec.latest()), new ListOffsetsOptions(level))
                .partitionResult(part).get().offset());
        }
        return ends;
    }

    /** Markers are written after a commit has been answered; waits for them. */
    static void stable(Cluster cluster, String topic, int partitions) throws Exception {
        for (int p = 0; p < partitions; p++) {
            int partition = p;
            Checks.waitFor("nothing open in " + topic + "-" + p,
                () -> new HashSet<>(ends(cluster, topic, partition)).size() == 1);
        }
    }

    /** The committed offsets of a group without members, -1 where there is none. */
    static List<Long> committed(Cluster cluster, String group, TopicPartition... parts)
        throws Exception {
        var found = cluster.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata();
        List<Long> offsets = new ArrayList<>();
        for (var part : parts) {
            var at = found.get().get(part);
            offsets.add(at == null ? -1 : at.offset());
        }
        return offsets;
    }

    private static List<String> numbered(String what, int count) {
        return IntStream.range(0, count).mapToObj(i -> what + "-" + i).toList();
    }

    // --- Checks ---------------------------------------------------------------------------------

    private void commitAndAbort() throws Exception {
        String topic = cluster.topic("txn-commit", 1, Map.of());
        List<Long> want = new ArrayList<>();
        List<String> wantValues = new ArrayList<>();
        long place = 0;
        try (var producer = producer("txn-commit")) {
            for (boolean commit : List.of(true, false, true, false, false, true)) {
                producer.beginTransaction();
                var values = numbered("at " + place, 5);
                values.forEach(value -> producer.send(record(topic, 0, value)));
                producer.flush();
                equal(ends(cluster, topic, 0), List.of(place, place + 5), "ends, while open");
                equal(values(topic, COMMITTED), wantValues, "read_committed, while open");
                equal(values(topic, ALL).size(), (int) place / 6 * 5 + 5, "records, while open");
                end(producer, commit);
                if (commit) {
                    LongStream.range(place, place + 5).forEach(want::add);
                    wantValues.addAll(values);
                }
                stable(cluster, topic, 1);
                place += 6; // and the marker
                equal(ends(cluster, topic, 0), List.of(place, place), "ends, once it is over");
                equal(values(topic, COMMITTED), wantValues, "read_committed, once it is over");
                equal(offsets(topic, COMMITTED, 0), want, "their offsets");
            }
        }
        equal(values(topic, ALL).size(), 30, "read_uncommitted");
    }

    private void allOrNothing() throws Exception {
        String one = cluster.topic("txn-one", 3, Map.of());
        String two = cluster.topic("txn-two", 2, Map.of());
        String group = Checks.name("txn-whole");
        var parts = new TopicPartition[] {new TopicPartition(one, 0), new TopicPartition(two, 1)};
        List<Long> before = List.of(-1L, -1L);
        try (var producer = producer("txn-whole")) {
            for (int turn = 0; turn < 4; turn++) {
                long at = 10 + turn;
                producer.beginTransaction();
                for (int i = 0; i < 12; i++) {
                    producer.send(record(one, i % 3, turn + "-" + i));
                    producer.send(record(two, i % 2, turn + "-" + i));
                }
                producer.sendOffsetsToTransaction(
                    Map.of(parts[0], new OffsetAndMetadata(at), parts[1], new OffsetAndMetadata(at)),
                    metadata(group));
                boolean commit = turn % 2 == 1;
                end(producer, commit);
                stable(cluster, one, 3);
                stable(cluster, two, 2);
                List<Long> want = commit ? List.of(at, at) : before;
                Checks.waitFor("committed offsets are " + want,
                    () -> committed(cluster, group, parts).equals(want));
                before = want;
            }
        }
        for (var topic : Map.of(one, 3, two, 2).entrySet()) {
            var got = values(cluster, topic.getKey(), topic.getValue(), COMMITTED);
            for (int p = 0; p < topic.getValue(); p++) {
                List<String> want = new ArrayList<>();
                for (int turn : new int[] {1, 3}) {
                    for (int i = p; i < 12; i += topic.getValue()) {
                        want.add(turn + "-" + i);
                    }
                }
                equal(got.get(p), want, "records of " + topic.getKey() + "-" + p);
            }
        }
    }

    private void empty() throws Exception {
        String topic = cluster.topic("txn-empty", 1, Map.of());
        try (var producer = producer("txn-empty")) {
            for (boolean commit : List.of(true, false, true, false, true, false)) {
                producer.beginTransaction();
                end(producer, commit);
            }
            producer.beginTransaction();
            producer.send(record(topic, 0, "0"));
            producer.commitTransaction();
        }
        stable(cluster, topic, 1);
        equal(ends(cluster, topic, 0), List.of(2L, 2L), "one record and its marker");
        equal(values(topic, COMMITTED), List.of("0"), "records");
    }

    private void large() throws Exception {
        String topic = cluster.topic("txn-large", 4, Map.of());
        String filler = "x".repeat(150);
        var config = Map.of("linger.ms", "20", "compression.type", "lz4");
        try (var producer = producer(cluster, "txn-large", config)) {
            for (boolean commit : List.of(false, true)) {
                producer.beginTransaction();
                for (int i = 0; i < LARGE; i++) {
                    producer.send(record(topic, i % 4, commit + "-" + i + filler));
                }
                producer.flush();
                var open = ends(cluster, topic, 3);
                isTrue(open.get(0) + LARGE / 4 == open.get(1), "the open one is whole: " + open);
                end(producer, commit);
                stable(cluster, topic, 4);
            }
        }
        var got = values(cluster, topic, 4, COMMITTED);
        for (int p = 0; p < 4; p++) {
            int partition = p;
            var want = IntStream.range(0, LARGE).filter(i -> i % 4 == partition)
                .mapToObj(i -> true + "-" + i + filler).toList();
            isTrue(got.get(p).equals(want), "partition " + p + " has what was committed, not "
                + got.get(p).size() + " records");
        }
    }

    private void openOneHoldsBack() throws Exception {
        String topic = cluster.topic("txn-open", 1, Map.of());
        try (var first = producer("txn-open-1"); var second = producer("txn-open-2");
            var plain = Records.producer(cluster, Map.of())) {
            first.beginTransaction();
            first.send(record(topic, 0, "first")).get();
            second.beginTransaction();
            second.send(record(topic, 0, "second")).get();
            second.commitTransaction();
            plain.send(record(topic, 0, "plain")).get();
            Checks.waitFor("what is behind an open one is not stable",
                () -> ends(cluster, topic, 0).equals(List.of(0L, 4L)));
            equal(values(topic, COMMITTED), List.of(), "read_committed, while the first is open");
            equal(values(topic, ALL), List.of("first", "second", "plain"), "read_uncommitted");
            first.abortTransaction();
            stable(cluster, topic, 1);
            equal(values(topic, COMMITTED), List.of("second", "plain"), "once it is aborted");
        }
    }

    private void readFromTheMiddle() throws Exception {
        String topic = cluster.topic("txn-middle", 1, Map.of());
        try (var producer = producer(cluster, "txn-middle", Map.of("linger.ms", "100"))) {
            for (boolean commit : List.of(true, false, true)) {
                producer.beginTransaction();
                numbered("" + commit, 10).forEach(v -> producer.send(record(topic, 0, v)));
                producer.flush();
                end(producer, commit);
                stable(cluster, topic, 1);
            }
        }
        // 0-9, marker at 10, aborted 11-20, marker at 21, 22-31, marker at 32.
        for (long start : new long[] {0, 5, 9, 10, 11, 15, 20, 21, 22, 27, 31, 32}) {
            var want = LongStream.concat(LongStream.range(0, 10), LongStream.range(22, 32))
                .filter(offset -> offset >= start).boxed().toList();
            equal(offsets(topic, COMMITTED, start), want, "read from " + start);
        }
    }

    private void unstableOffsets() throws Exception {
        String topic = cluster.topic("txn-unstable", 1, Map.of());
        String group = Checks.name("txn-unstable");
        var part = new TopicPartition(topic, 0);
        // The consumer always asks for stable offsets, the admin client unless told does not.
        try (var producer = producer("txn-unstable");
            var reader = Records.consumer(cluster, Map.of("group.id", group))) {
            for (boolean commit : List.of(true, false)) {
                var before = committed(cluster, group, part);
                producer.beginTransaction();
                producer.sendOffsetsToTransaction(
                    Map.of(part, new OffsetAndMetadata(commit ? 7 : 9)),
                    metadata(group));
                equal(committed(cluster, group, part), before, "offset, not minding");
                Checks.refused("while one is pending", TimeoutException.class, () -> {
                    var got = reader.committed(Set.of(part), Duration.ofSeconds(2));
                    throw new AssertionError("a stable offset while one is pending: " + got);
                });
                end(producer, commit);
                equal(reader.committed(Set.of(part)).get(part).offset(), 7L, "then");
            }
        }
    }

    private void zombieIsFenced() throws Exception {
        String topic = cluster.topic("txn-zombie", 1, Map.of());
        String group = Checks.name("txn-zombie");
        var part = new TopicPartition(topic, 0);
        try (var zombie = producer("txn-zombie")) {
            zombie.beginTransaction();
            zombie.send(record(topic, 0, "zombie")).get();
            zombie.sendOffsetsToTransaction(
                Map.of(part, new OffsetAndMetadata(5)), metadata(group));
            try (var heir = producer("txn-zombie")) {
                heir.beginTransaction();
                heir.send(record(topic, 0, "heir")).get();
                fenced("a zombie's record", () -> zombie.send(record(topic, 0, "late")).get());
                fenced("a zombie's commit", () -> {
                    zombie.commitTransaction();
                    return null;
                });
                heir.commitTransaction();
                stable(cluster, topic, 1);
                equal(values(topic, COMMITTED), List.of("heir"), "read_committed");
                equal(committed(cluster, group, part), List.of(-1L), "the zombie's offset");
                heir.beginTransaction();
                heir.send(record(topic, 0, "again"));
                heir.commitTransaction();
            }
            zombie.close(Duration.ZERO);
        }
        stable(cluster, topic, 1);
        equal(values(topic, COMMITTED), List.of("heir", "again"), "the heir goes on");
    }

    private static void fenced(String what, java.util.concurrent.Callable<?> call) {
        try {
            call.call();
        } catch (Throwable error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                if (cause instanceof ProducerFencedException
                    || cause instanceof InvalidProducerEpochException) {
                    return;
                }
            }
            throw new AssertionError(what + ": got " + error + ", want to be fenced");
        }
        throw new AssertionError("accepted: " + what);
    }

    private void leftByDeadInstance() throws Exception {
        String topic = cluster.topic("txn-dead", 2, Map.of());
        try (var dead = producer("txn-dead")) {
            dead.beginTransaction();
            dead.send(record(topic, 0, "dead")).get();
            dead.send(record(topic, 1, "dead")).get();
            equal(ends(cluster, topic, 1), List.of(0L, 1L), "ends, while open");
            long began = System.nanoTime();
            producer("txn-dead").close();
            stable(cluster, topic, 2);
            isTrue(System.nanoTime() - began < 20_000_000_000L,
                "a new instance ends what an old one has left open, before its timeout");
            dead.close(Duration.ZERO);
        }
        equal(values(cluster, topic, 2, COMMITTED), Map.of(0, List.of(), 1, List.of()), "read");
    }

    private void timeout() throws Exception {
        String topic = cluster.topic("txn-timeout", 1, Map.of());
        var config = Map.of("transaction.timeout.ms", "2000");
        try (var late = producer(cluster, "txn-timeout", config)) {
            late.beginTransaction();
            late.send(record(topic, 0, "late")).get();
            stable(cluster, topic, 1);
            equal(values(topic, ALL), List.of("late"), "read_uncommitted");
            // Who is fenced, and who ends what has been ended otherwise, is a matter of the protocol.
            Checks.refused("a commit after the timeout", KafkaException.class, () -> {
                late.commitTransaction();
                return null;
            });
            late.close(Duration.ZERO);
        }
        equal(values(topic, COMMITTED), List.of(), "read_committed after the late commit");
        try (var producer = producer("txn-timeout")) {
            producer.beginTransaction();
            producer.send(record(topic, 0, "in time"));
            producer.commitTransaction();
        }
        stable(cluster, topic, 1);
        equal(values(topic, COMMITTED), List.of("in time"), "read_committed");
    }

    private void goesOnAfterAbortableError() throws Exception {
        String topic = cluster.topic("txn-small", 2, Map.of("max.message.bytes", "10000"));
        try (var producer = producer("txn-small")) {
            for (int turn = 0; turn < 3; turn++) {
                producer.beginTransaction();
                producer.send(record(topic, 1, "doomed " + turn));
                var big = producer.send(record(topic, 0, "x".repeat(20_000)));
                Checks.refused("a commit with a refused record", KafkaException.class, () -> {
                    producer.commitTransaction();
                    return null;
                });
                Checks.refused("the record", RecordTooLargeException.class, big::get);
                producer.abortTransaction();
                producer.beginTransaction();
                producer.send(record(topic, 0, "well " + turn));
                producer.send(record(topic, 1, "well " + turn));
                producer.commitTransaction();
            }
        }
        stable(cluster, topic, 2);
        var want = List.of("well 0", "well 1", "well 2");
        equal(values(cluster, topic, 2, COMMITTED), Map.of(0, want, 1, want), "read_committed");
    }

    /** Interleaved transactions of many producers: readers see the committed ones, whole. */
    private void manyProducers() throws Exception {
        String topic = cluster.topic("txn-many", 3, Map.of());
        List<List<String>> committed = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        List<Throwable> failures = java.util.Collections.synchronizedList(new ArrayList<>());
        for (int n = 0; n < 8; n++) {
            int number = n;
            List<String> mine = new ArrayList<>();
            committed.add(mine);
            threads.add(new Thread(() -> sendMany(topic, number, mine)));
            threads.get(n).setUncaughtExceptionHandler((thread, error) -> failures.add(error));
            threads.get(n).start();
        }
        for (Thread thread : threads) {
            thread.join(120_000);
        }
        equal(failures, List.of(), "what went wrong in a producer");
        stable(cluster, topic, 3);
        var got = values(cluster, topic, 3, COMMITTED);
        for (int p = 0; p < 3; p++) {
            int partition = p;
            int whole = committed.stream().flatMap(List::stream)
                .filter(v -> partition(v) == partition).toList().size();
            equal(got.get(p).size(), whole, "committed records of partition " + p);
            for (int n = 0; n < 8; n++) {
                String prefix = n + "-";
                var mine = got.get(p).stream().filter(v -> v.startsWith(prefix)).toList();
                var sent = committed.get(n).stream().filter(v -> partition(v) == partition);
                equal(mine, sent.collect(Collectors.toList()), "of producer " + n + " in " + p);
            }
        }
    }

    private static int partition(String value) {
        return Integer.parseInt(value.substring(value.lastIndexOf('-') + 1)) % 3;
    }

    private void sendMany(String topic, int number, List<String> committed) {
        var random = new Random(number);
        try (var producer = producer("txn-many-" + number)) {
            for (int turn = 0; turn < 15; turn++) {
                producer.beginTransaction();
                var values = numbered(number + "-" + turn, random.nextInt(1, 40));
                for (String value : values) {
                    producer.send(record(topic, partition(value), value));
                    if (random.nextInt(10) == 0) {
                        producer.flush();
                    }
                }
                boolean commit = random.nextInt(10) < 6;
                end(producer, commit);
                if (commit) {
                    committed.addAll(values);
                }
            }
        }
    }

    /** Whether each transaction has an epoch of its own tells which protocol is spoken. */
    void epochs(boolean second) throws Exception {
        String topic = cluster.topic("txn-epochs-" + second, 1, Map.of());
        String id = Checks.name("txn-epochs-" + second);
        try (var producer = producer("txn-epochs-" + second)) {
            int first = cluster.admin.describeTransactions(List.of(id))
                .description(id).get().producerEpoch();
            for (int i = 0; i < 5; i++) {
                producer.beginTransaction();
                producer.send(record(topic, 0, "" + i));
                end(producer, i % 2 == 0);
            }
            stable(cluster, topic, 1);
            int last = cluster.admin.describeTransactions(List.of(id))
                .description(id).get().producerEpoch();
            equal(last - first, second ? 5 : 0, "by how much five transactions raise the epoch");
        }
    }
}
