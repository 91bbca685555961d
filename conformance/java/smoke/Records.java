package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;
import static smoke.Checks.refused;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Producing and reading by assign: acks, codecs, shapes of records, order, time, limits. */
final class Records {
    private static final long BASE_MS = 1_700_000_000_000L;
    private final Cluster cluster;

    Records(Cluster cluster) {
        this.cluster = cluster;
    }

    void run(Checks checks) {
        for (String acks : List.of("0", "1", "all")) {
            checks.run("produce-acks-" + acks, () -> produceAndRead(
                "acks-" + acks, Map.of("acks", acks, "enable.idempotence", "false")));
        }
        checks.run("produce-idempotent", () -> produceAndRead(
            "idempotent", Map.of("acks", "all", "enable.idempotence", "true")));
        for (String codec : List.of("gzip", "snappy", "lz4", "zstd")) {
            checks.run("codec-" + codec, () -> produceAndRead(
                "codec-" + codec, Map.of("compression.type", codec, "linger.ms", "50")));
        }
        checks.run("order-per-key", this::orderPerKey);
        checks.run("record-too-large", this::tooLarge);
        checks.run("large-records", this::large);
        checks.run("compacted-topic-needs-keys", this::compactedNeedsKeys);
        checks.run("compaction", this::compaction);
        checks.run("log-append-time", this::logAppendTime);
        checks.run("timestamp-bounds", this::timestampBounds);
        checks.run("offsets-by-time", this::offsetsByTime);
        checks.run("offset-out-of-range", this::outOfRange);
        checks.run("fetch-waits-for-data", this::fetchWaits);
    }

    static KafkaProducer<byte[], byte[]> producer(Cluster cluster, Map<String, String> config) {
        Map<String, Object> all = new HashMap<>(Map.of(
            "bootstrap.servers", cluster.bootstrap,
            "max.request.size", "2000000",
            "delivery.timeout.ms", "30000",
            "request.timeout.ms", "15000"));
        all.putAll(config);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Cluster cluster, Map<String, String> config) {
        Map<String, Object> all = new HashMap<>(Map.of(
            "bootstrap.servers", cluster.bootstrap,
            "enable.auto.commit", "false",
            "auto.offset.reset", "earliest",
            "default.api.timeout.ms", "30000"));
        all.putAll(config);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void sendNumbers(Cluster cluster, String topic, int start, int count, int partitions)
        throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = producer(cluster, Map.of())) {
            for (int i = start; i < start + count; i++) {
                byte[] value = bytes(String.valueOf(i));
                sent.add(producer.send(new ProducerRecord<>(topic, i % partitions, null, value)));
            }
        }
        for (var future : sent) {
            future.get();
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static int number(ConsumerRecord<byte[], byte[]> record) {
        return Integer.parseInt(new String(record.value(), StandardCharsets.UTF_8));
    }

    /** Everything in a topic, by assign from the beginning, in the order it was polled. */
    static List<ConsumerRecord<byte[], byte[]>> readAll(
        Cluster cluster, String topic, int partitions, Map<String, String> config) {
        List<TopicPartition> parts = new ArrayList<>();
        for (int p = 0; p < partitions; p++) {
            parts.add(new TopicPartition(topic, p));
        }
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        try (var consumer = consumer(cluster, config)) {
            consumer.assign(parts);
            consumer.seekToBeginning(parts);
            Map<TopicPartition, Long> ends = consumer.endOffsets(parts);
            long deadline = System.nanoTime() + 30_000_000_000L;
            while (parts.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                isTrue(System.nanoTime() < deadline, topic + " not read to its end within 30 s");
                consumer.poll(Duration.ofMillis(500)).forEach(found::add);
            }
        }
        return found;
    }

    /** Each shape of record that codecs get wrong. */
    private static List<ProducerRecord<byte[], byte[]>> awkward(String topic) {
        byte[] noise = new byte[900_000]; // does not compress
        new Random(7).nextBytes(noise);
        byte[] every = new byte[256];
        for (int i = 0; i < 256; i++) {
            every[i] = (byte) i;
        }
        var twice = new RecordHeaders();
        twice.add("h", bytes("1")).add("other", new byte[] {0, -1}).add("h", bytes("2"));
        twice.add("h", bytes("1"));
        var empty = new RecordHeaders(List.of(
            new RecordHeader("", new byte[0]), new RecordHeader("null", (byte[]) null)));
        Object[][] shapes = {
            {bytes("key"), bytes("value"), null},
            {null, bytes("no key"), null},
            {bytes("tombstone"), null, null},
            {new byte[0], new byte[0], null},
            {null, null, null},
            {bytes("headers"), bytes("v"), twice},
            {bytes("empty headers"), bytes("v"), empty},
            {bytes("schlüssel ✓"), every, null},
            {bytes("large"), noise, null},
            {bytes("zeros"), new byte[300_000], null},
            {bytes("last"), bytes("end"), null},
        };
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < shapes.length; i++) {
            records.add(new ProducerRecord<>(topic, 0, BASE_MS + i * 1000L, (byte[]) shapes[i][0],
                (byte[]) shapes[i][1], (RecordHeaders) shapes[i][2]));
        }
        return records;
    }

    private void produceAndRead(String what, Map<String, String> config) throws Exception {
        String topic = cluster.topic(what, 1, Map.of());
        var sent = awkward(topic);
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        try (var producer = producer(cluster, config)) {
            for (var record : sent) {
                futures.add(producer.send(record));
            }
        }
        boolean acked = !"0".equals(config.get("acks"));
        for (int i = 0; i < futures.size(); i++) {
            equal(futures.get(i).get().offset(), acked ? (long) i : -1L, "acknowledged offset");
        }
        Checks.waitFor("everything in the log",
            () -> cluster.offset(topic, 0, OffsetSpec.latest()) == sent.size());
        for (String isolation : List.of("read_uncommitted", "read_committed")) {
            var got = readAll(cluster, topic, 1, Map.of("isolation.level", isolation));
            equal(got.size(), sent.size(), "records read, " + isolation);
            for (int i = 0; i < got.size(); i++) {
                equal(got.get(i).offset(), (long) i, "offset");
                equal(got.get(i).key(), sent.get(i).key(), "key " + i);
                equal(got.get(i).value(), sent.get(i).value(), "value " + i);
                equal(got.get(i).headers(), sent.get(i).headers(), "headers " + i);
                equal(got.get(i).timestamp(), sent.get(i).timestamp(), "timestamp " + i);
                equal(got.get(i).timestampType(), TimestampType.CREATE_TIME, "timestamp type");
                equal(got.get(i).leaderEpoch().isPresent(), true, "leader epoch present");
            }
        }
    }

    private void orderPerKey() throws Exception {
        String topic = cluster.topic("order", 3, Map.of());
        var config = Map.of("compression.type", "zstd", "linger.ms", "2", "batch.size", "500",
            "max.in.flight.requests.per.connection", "5");
        try (var producer = producer(cluster, config)) {
            for (int i = 0; i < 5000; i++) {
                byte[] key = bytes(String.valueOf(i % 7));
                producer.send(new ProducerRecord<>(topic, key, bytes(String.valueOf(i))));
            }
        }
        var got = readAll(cluster, topic, 3, Map.of());
        equal(got.size(), 5000, "records read");
        Map<String, Integer> last = new HashMap<>();
        Set<String> places = new HashSet<>();
        for (var record : got) {
            String key = new String(record.key(), StandardCharsets.UTF_8);
            places.add(key + "@" + record.partition());
            Integer before = last.put(key, number(record));
            int want = before == null ? Integer.parseInt(key) : before + 7;
            equal(number(record), want, "the next value of key " + key);
        }
        equal(places.size(), 7, "each key in one partition");
    }

    private void tooLarge() throws Exception {
        String topic = cluster.topic("small", 1, Map.of("max.message.bytes", "10000"));
        try (var producer = producer(cluster, Map.of())) {
            refused("a record above max.message.bytes", RecordTooLargeException.class,
                () -> producer.send(new ProducerRecord<>(topic, 0, null, new byte[20_000])).get());
            var fits = producer.send(new ProducerRecord<>(topic, 0, null, new byte[9_000])).get();
            equal(fits.offset(), 0L, "offset after the refusal");
        }
    }

    /** Up to the limit, and a megabyte and more in a topic that takes it: read with any fetch size. */
    private void large() throws Exception {
        byte[] noise = new byte[6_000_000];
        new Random(11).nextBytes(noise);
        String usual = cluster.topic("usual", 1, Map.of());
        String huge = cluster.topic("huge", 1, Map.of("max.message.bytes", "8000000"));
        int overhead = 61 + 14; // of a batch, and of a record of this size in it
        int limit = 1_048_588 - overhead;
        try (var producer = producer(cluster, Map.of("max.request.size", "8000000"))) {
            equal(producer.send(new ProducerRecord<>(usual, 0, null,
                java.util.Arrays.copyOf(noise, limit))).get().offset(), 0L, "at the limit");
            refused("a record just above the limit", RecordTooLargeException.class,
                () -> producer.send(new ProducerRecord<>(usual, 0, null,
                    java.util.Arrays.copyOf(noise, limit + 20))).get());
            for (String codec : List.of("none", "zstd")) {
                try (var other = producer(cluster, Map.of("max.request.size", "8000000",
                    "compression.type", codec))) {
                    other.send(new ProducerRecord<>(huge, 0, null, noise)).get();
                }
            }
        }
        equal(readAll(cluster, usual, 1, Map.of()).get(0).value().length, limit, "its length");
        var small = Map.of("max.partition.fetch.bytes", "1000", "fetch.max.bytes", "1000");
        var read = readAll(cluster, huge, 1, small);
        equal(read.size(), 2, "records larger than a fetch may be");
        for (var record : read) {
            equal(record.value(), noise, "value");
        }
    }

    private void compactedNeedsKeys() throws Exception {
        String topic = cluster.topic("compacted", 1, Map.of("cleanup.policy", "compact"));
        try (var producer = producer(cluster, Map.of())) {
            refused("no key in a compacted topic", InvalidRecordException.class,
                () -> producer.send(new ProducerRecord<>(topic, 0, null, bytes("v"))).get());
        }
        sendOne(topic, new ProducerRecord<>(topic, 0, bytes("k"), bytes("v")), 0);
    }

    /** Sealed segments lose what a later record of the same key replaces, whatever their codec. */
    private void compaction() throws Exception {
        String topic = cluster.topic("compaction", 1, Map.of("cleanup.policy", "compact",
            "segment.ms", "300", "min.cleanable.dirty.ratio", "0.01"));
        int sent = 0;
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd", "none")) {
            try (var producer = producer(cluster, Map.of("compression.type", codec))) {
                for (int i = 0; i < 200; i++, sent++) {
                    byte[] key = bytes("key " + i % 20);
                    producer.send(new ProducerRecord<>(topic, 0, key, bytes("" + sent)));
                }
            }
            Thread.sleep(400); // the next batch begins a segment
        }
        // The last segment is never compacted: of the first five rounds 20 keys are left at most.
        int rounds = 1000;
        long deadline = System.nanoTime() + 90_000_000_000L;
        while (readAll(cluster, topic, 1, Map.of()).size() > sent - rounds + 20) {
            isTrue(System.nanoTime() < deadline, "not compacted within 90 s");
            Thread.sleep(500);
        }
        Map<String, Integer> last = new HashMap<>();
        long before = -1;
        for (var record : readAll(cluster, topic, 1, Map.of())) {
            isTrue(record.offset() > before, "offsets rise");
            equal((long) number(record), record.offset(), "a record keeps its offset");
            before = record.offset();
            last.put(new String(record.key(), StandardCharsets.UTF_8), number(record));
        }
        equal(last.size(), 20, "keys");
        last.forEach((key, value) -> isTrue(value >= 1180, "the last value of " + key));
        equal(before, 1199L, "the last offset");
    }

    private void sendOne(String topic, ProducerRecord<byte[], byte[]> record, long offset)
        throws Exception {
        try (var producer = producer(cluster, Map.of())) {
            equal(producer.send(record).get().offset(), offset, "offset in " + topic);
        }
    }

    private void logAppendTime() throws Exception {
        String topic = cluster.topic(
            "append-time", 1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        RecordMetadata metadata;
        try (var producer = producer(cluster, Map.of("compression.type", "gzip"))) {
            metadata = producer.send(new ProducerRecord<>(topic, 0, 1000L, null, bytes("v"))).get();
        }
        var record = readAll(cluster, topic, 1, Map.of()).get(0);
        equal(record.timestampType(), TimestampType.LOG_APPEND_TIME, "timestamp type");
        equal(record.timestamp(), metadata.timestamp(), "the timestamp acknowledged");
        long late = record.timestamp() - before;
        isTrue(late >= -1000 && late < 60_000, "the timestamp is the broker's");
        var part = new TopicPartition(topic, 0);
        try (var consumer = consumer(cluster, Map.of())) {
            var at = consumer.offsetsForTimes(Map.of(part, record.timestamp())).get(part);
            equal(at.offset(), 0L, "found by the broker's time");
            equal(at.timestamp(), record.timestamp(), "the time found");
            var none = consumer.offsetsForTimes(Map.of(part, record.timestamp() + 1)).get(part);
            equal(none, null, "after the broker's time");
        }
    }

    private void timestampBounds() throws Exception {
        String topic = cluster.topic("bounds", 1, Map.of("message.timestamp.before.max.ms", "60000"));
        long now = System.currentTimeMillis();
        try (var producer = producer(cluster, Map.of())) {
            var old = new ProducerRecord<>(topic, 0, now - 3_600_000, bytes("k"), bytes("v"));
            refused("a timestamp an hour old", InvalidTimestampException.class,
                () -> producer.send(old).get());
        }
        sendOne(topic, new ProducerRecord<>(topic, 0, now, bytes("k"), bytes("v")), 0);
    }

    private void offsetsByTime() throws Exception {
        String topic = cluster.topic("times", 1, Map.of());
        var part = new TopicPartition(topic, 0);
        try (var producer = producer(cluster, Map.of())) {
            for (int i = 0; i < 10; i++) {
                byte[] value = bytes(String.valueOf(i));
                producer.send(new ProducerRecord<>(topic, 0, BASE_MS + i * 100, null, value)).get();
            }
        }
        try (var consumer = consumer(cluster, Map.of())) {
            var hit = consumer.offsetsForTimes(Map.of(part, BASE_MS + 250)).get(part);
            equal(hit.offset(), 3L, "first offset at or after the time");
            equal(hit.timestamp(), BASE_MS + 300, "its timestamp");
            var none = consumer.offsetsForTimes(Map.of(part, BASE_MS + 5000)).get(part);
            equal(none, null, "after the last record");
            equal(consumer.beginningOffsets(List.of(part)).get(part), 0L, "beginning");
            equal(consumer.endOffsets(List.of(part)).get(part), 10L, "end");
        }
        equal(cluster.offset(topic, 0, OffsetSpec.earliest()), 0L, "earliest");
        equal(cluster.offset(topic, 0, OffsetSpec.latest()), 10L, "latest");
        equal(cluster.offset(topic, 0, OffsetSpec.maxTimestamp()), 9L, "max timestamp");
        equal(cluster.offset(topic, 0, OffsetSpec.forTimestamp(BASE_MS + 901)), -1L, "none");
        equal(cluster.offset(topic, 0, OffsetSpec.forTimestamp(BASE_MS)), 0L, "exact hit");
    }

    private void outOfRange() throws Exception {
        String topic = cluster.topic("out-of-range", 1, Map.of());
        sendNumbers(cluster, topic, 0, 5, 1);
        var part = new TopicPartition(topic, 0);
        try (var consumer = consumer(cluster, Map.of("auto.offset.reset", "none"))) {
            consumer.assign(List.of(part));
            consumer.seek(part, 100);
            refused("reading at offset 100 of 5", OffsetOutOfRangeException.class, () -> {
                for (int i = 0; i < 50; i++) {
                    consumer.poll(Duration.ofMillis(200));
                }
                return null;
            });
        }
    }

    /** A fetch at the end of the log is parked and answered when a record comes, not at its limit. */
    private void fetchWaits() throws Exception {
        String topic = cluster.topic("waits", 1, Map.of());
        var part = new TopicPartition(topic, 0);
        var config = Map.of("fetch.max.wait.ms", "6000", "request.timeout.ms", "20000");
        try (var consumer = consumer(cluster, config); var producer = producer(cluster, Map.of())) {
            consumer.assign(List.of(part));
            equal(consumer.poll(Duration.ofSeconds(1)).count(), 0, "records in an empty topic");
            long sent = System.nanoTime();
            producer.send(new ProducerRecord<>(topic, 0, null, bytes("1"))).get();
            equal(consumer.poll(Duration.ofSeconds(10)).count(), 1, "records once one is sent");
            long waitedMs = (System.nanoTime() - sent) / 1_000_000;
            isTrue(waitedMs < 3000, "the parked fetch was answered after " + waitedMs + " ms");
        }
    }
}
