package smoke;

import static smoke.Checks.equal;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * A Kafka Streams word count with exactly_once_v2, for {@code cargo xtask streams}, which kills it
 * and the broker meanwhile:
 *
 * <pre>
 * java smoke.WordCount make BOOTSTRAP ID           the topics
 * java smoke.WordCount app BOOTSTRAP ID DIRECTORY  an instance of the application
 * java smoke.WordCount feed BOOTSTRAP ID SECONDS   lines of text; prints how many
 * java smoke.WordCount judge BOOTSTRAP ID LINES    what came of them, as a check
 * </pre>
 *
 * Every update of a count is written, so the output says more than the counts in the end: for each
 * word it has to be 1, 2, 3 and so on, each once.
 */
public final class WordCount {
    private static final int PARTITIONS = 3;
    private static final int WORDS = 40;
    private static final int WORDS_IN_LINE = 6;
    private static final int LINES_PER_S = 100;
    private static final long JUDGE_S = 300;

    private final String bootstrap;
    private final String id;
    private final String lines;
    private final String counts;

    private WordCount(String bootstrap, String id) {
        this.bootstrap = bootstrap;
        this.id = id;
        this.lines = id + "-lines";
        this.counts = id + "-counts";
    }

    public static void main(String[] args) throws Exception {
        var count = new WordCount(args[1], args[2]);
        switch (args[0]) {
            case "make" -> count.make();
            case "app" -> count.app(args[3]);
            case "feed" -> count.feed(Long.parseLong(args[3]));
            case "judge" -> {
                var checks = new Checks();
                checks.run("word-count-exactly-once", () -> count.judge(Integer.parseInt(args[3])));
                System.exit(checks.failed == 0 ? 0 : 1);
            }
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** The words of a line: always the same, and of different frequencies. */
    private static List<String> words(int line) {
        return IntStream.range(0, WORDS_IN_LINE)
            .mapToObj(i -> "word" + (line * 31 + i * i * 17 + line * i) % WORDS % (WORDS - i)).toList();
    }

    private void make() throws Exception {
        try (var cluster = new Cluster(bootstrap)) {
            for (String name : List.of(lines, counts)) {
                cluster.create(new NewTopic(name, PARTITIONS, (short) 1));
            }
        }
    }

    // --- The application ------------------------------------------------------------------------

    private void app(String directory) throws Exception {
        var builder = new StreamsBuilder();
        builder.stream(lines, Consumed.with(Serdes.String(), Serdes.String()))
            .flatMapValues(line -> List.of(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.with("words", Serdes.String(), Serdes.String()))
            .count(Materialized.as("counts"))
            .toStream()
            .to(counts, Produced.with(Serdes.String(), Serdes.Long()));
        var streams = new KafkaStreams(builder.build(), config(directory));
        // Whatever the broker's death makes of a thread: another takes its place.
        streams.setUncaughtExceptionHandler(error -> {
            System.out.println("a thread ended: " + error);
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        var ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(30));
            ended.countDown();
        }));
        streams.start();
        ended.await();
    }

    private Properties config(String directory) {
        var config = new Properties();
        config.putAll(Map.of(
            "bootstrap.servers", bootstrap,
            "application.id", id,
            "processing.guarantee", "exactly_once_v2",
            "state.dir", directory,
            "num.stream.threads", "1",
            "replication.factor", "1",
            "commit.interval.ms", "100",
            // No update of a count is folded into a later one.
            "statestore.cache.max.bytes", "0"));
        config.putAll(Map.of(
            "consumer.session.timeout.ms", "6000",
            "consumer.heartbeat.interval.ms", "1000",
            "consumer.auto.offset.reset", "earliest",
            "producer.transaction.timeout.ms", "10000",
            "reconnect.backoff.max.ms", "500"));
        return config;
    }

    // --- The input ------------------------------------------------------------------------------

    private void feed(long seconds) throws Exception {
        var failure = new AtomicReference<Exception>();
        int line = 0;
        // An idempotent producer that never gives up: each line is there once, whoever is killed.
        var config = Map.of("delivery.timeout.ms", "600000", "request.timeout.ms", "5000",
            "max.block.ms", "600000", "linger.ms", "5", "reconnect.backoff.max.ms", "500");
        try (var producer = Records.producer(new Cluster(bootstrap), config)) {
            long began = System.nanoTime();
            while (System.nanoTime() - began < seconds * 1_000_000_000L) {
                byte[] text = Records.bytes(String.join(" ", words(line)));
                producer.send(new ProducerRecord<>(lines, line % PARTITIONS, null, text),
                    (metadata, error) -> {
                        if (error != null) {
                            failure.set(error);
                        }
                    });
                line += 1;
                LockSupport.parkNanos(1_000_000_000L / LINES_PER_S);
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
        System.out.println("fed " + line);
        System.exit(0);
    }

    // --- The judgement --------------------------------------------------------------------------

    private void judge(int fed) throws Exception {
        Map<String, Long> want = new TreeMap<>();
        for (int line = 0; line < fed; line++) {
            words(line).forEach(word -> want.merge(word, 1L, Long::sum));
        }
        try (var cluster = new Cluster(bootstrap)) {
            long input = 0;
            for (var part : parts(lines)) {
                input += Transactions.ends(cluster, lines, part.partition()).get(1);
            }
            equal(input, (long) fed, "lines in the input");
            long deadline = System.nanoTime() + JUDGE_S * 1_000_000_000L;
            Map<String, List<Long>> got = read();
            while (total(got) < (long) fed * WORDS_IN_LINE && System.nanoTime() < deadline) {
                Thread.sleep(1000);
                got = read();
            }
            Thread.sleep(2000); // time for one too many
            got = read();
            Map<String, Long> last = new TreeMap<>();
            got.forEach((word, values) -> last.put(word, values.get(values.size() - 1)));
            equal(last, want, "counts in the end");
            for (var word : got.entrySet()) {
                var counted = new ArrayList<Long>();
                for (long i = 1; i <= want.get(word.getKey()); i++) {
                    counted.add(i);
                }
                equal(word.getValue(), counted, "the updates of " + word.getKey());
            }
            committed(cluster);
            nothingHangs(cluster);
            System.out.println("  " + fed + " lines, " + total(got) + " words, " + got.size()
                + " counts");
        }
    }

    private static long total(Map<String, List<Long>> counts) {
        return counts.values().stream().mapToLong(List::size).sum();
    }

    private List<TopicPartition> parts(String topic) {
        return IntStream.range(0, PARTITIONS).mapToObj(p -> new TopicPartition(topic, p)).toList();
    }

    /** Every update of each word's count that is committed, in order. */
    private Map<String, List<Long>> read() throws Exception {
        Map<String, List<Long>> found = new TreeMap<>();
        try (var cluster = new Cluster(bootstrap)) {
            Transactions.read(cluster, counts, PARTITIONS, Transactions.COMMITTED, 0)
                .values().forEach(records -> records.forEach(record -> {
                    String word = new StringDeserializer().deserialize(counts, record.key());
                    long count = new LongDeserializer().deserialize(counts, record.value());
                    found.computeIfAbsent(word, w -> new ArrayList<>()).add(count);
                }));
        }
        return found;
    }

    /** The whole input is committed as read. */
    private void committed(Cluster cluster) throws Exception {
        var parts = parts(lines).toArray(TopicPartition[]::new);
        List<Long> ends = new ArrayList<>();
        for (var part : parts) {
            ends.add(Transactions.ends(cluster, lines, part.partition()).get(1));
        }
        Checks.waitFor("the whole input is committed as read: " + ends,
            () -> Transactions.committed(cluster, id, parts).equals(ends));
    }

    /** In none of the application's topics, its own and the internal ones, is anything left open. */
    private void nothingHangs(Cluster cluster) throws Exception {
        var names = cluster.admin.listTopics(
            new org.apache.kafka.clients.admin.ListTopicsOptions().listInternal(true)).names().get();
        for (var topic : cluster.admin.describeTopics(new HashSet<>(names))
            .allTopicNames().get().values()) {
            if (topic.name().startsWith(id) || topic.isInternal()) {
                Transactions.stable(cluster, topic.name(), topic.partitions().size());
            }
        }
    }
}
