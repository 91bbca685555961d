import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * The service whose outbox Debezium reads, and the judge of what comes of it, for
 * {@code cargo xtask debezium}:
 *
 * <pre>
 * java Shop.java write JDBC_URL SEED        until standard input ends; prints what was written
 * java Shop.java judge JDBC_URL BOOTSTRAP   prints the figures; 1 if something is wrong
 * </pre>
 *
 * An order's version goes up by one in each transaction that commits, under the row's lock, so its
 * events are 1, 2, 3 and so on, and what was rolled back shows as an id that the journal lacks.
 */
public final class Shop {
    private static final int WRITERS = 4;
    private static final int ORDERS = 50;
    private static final long PAUSE_NS = 15_000_000;
    private static final String TOPIC = "outbox.event.order";
    /** Connect has that long to catch up after the last kill. */
    private static final long PATIENCE_NS = 240_000_000_000L;
    /** Time for one too many. */
    private static final long QUIET_NS = 5_000_000_000L;
    private static final Pattern VALUE = Pattern.compile("\\{\"version\":(\\d+)}");

    private Shop() {}

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "write" -> write(args[1], Long.parseLong(args[2]));
            case "judge" -> System.exit(judge(args[1], args[2]) ? 0 : 1);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    // --- The service ----------------------------------------------------------------------------

    private static void write(String url, long seed) throws Exception {
        var committed = new LongAdder();
        var rolledBack = new LongAdder();
        var failure = new AtomicReference<Exception>();
        var writers = new ArrayList<Thread>();
        for (int number = 0; number < WRITERS; number++) {
            var random = RandomGeneratorFactory.of("SplittableRandom").create(seed + number);
            var writer = new Thread(() -> {
                try (var database = DriverManager.getConnection(url)) {
                    database.setAutoCommit(false);
                    while (!Thread.currentThread().isInterrupted()) {
                        (transaction(database, random) ? committed : rolledBack).increment();
                        LockSupport.parkNanos(random.nextLong(2 * PAUSE_NS));
                    }
                } catch (Exception error) {
                    failure.set(error);
                }
            });
            writer.start();
            writers.add(writer);
        }
        while (System.in.read() >= 0) {
            // Only its end says something.
        }
        for (var writer : writers) {
            writer.interrupt();
            writer.join();
        }
        if (failure.get() != null) {
            throw failure.get();
        }
        System.out.printf("transactions: %s committed, %s rolled back%n", committed, rolledBack);
    }

    /** Whether it was committed. One in ten is rolled back, one in ten in a part. */
    private static boolean transaction(Connection database, RandomGenerator random)
            throws SQLException {
        // In one order, or two writers wait for each other.
        var orders = new TreeSet<String>();
        while (orders.size() <= random.nextInt(3)) {
            orders.add("order-" + random.nextInt(ORDERS));
        }
        for (String order : orders) {
            int events = 1 + random.nextInt(3);
            for (int event = 0; event < events; event++) {
                place(database, order, random.nextBoolean());
            }
        }
        if (random.nextInt(10) == 0) {
            var before = database.setSavepoint();
            place(database, orders.first(), false);
            database.rollback(before);
        }
        if (random.nextInt(10) == 0) {
            database.rollback();
            return false;
        }
        database.commit();
        return true;
    }

    /** An event; its row is deleted at once, as Debezium's guide has it, or stays. */
    private static void place(Connection database, String order, boolean stays)
            throws SQLException {
        long version;
        try (var change = database.prepareStatement(
                "INSERT INTO orders VALUES (?, 1) ON CONFLICT (id) "
                    + "DO UPDATE SET version = orders.version + 1 RETURNING version")) {
            change.setString(1, order);
            try (var changed = change.executeQuery()) {
                changed.next();
                version = changed.getLong(1);
            }
        }
        var id = UUID.randomUUID();
        try (var journal = database.prepareStatement("INSERT INTO journal VALUES (?, ?, ?)")) {
            journal.setObject(1, id);
            journal.setString(2, order);
            journal.setLong(3, version);
            journal.execute();
        }
        try (var outbox = database.prepareStatement(
                "INSERT INTO outbox VALUES (?, 'order', ?, 'OrderChanged', ?::jsonb)")) {
            outbox.setObject(1, id);
            outbox.setString(2, order);
            outbox.setString(3, "{\"version\": " + version + "}");
            outbox.execute();
        }
        if (!stays) {
            try (var delete = database.prepareStatement("DELETE FROM outbox WHERE id = ?")) {
                delete.setObject(1, id);
                delete.execute();
            }
        }
    }

    // --- The judge ------------------------------------------------------------------------------

    private record Event(String order, long version) {}

    private static boolean judge(String url, String bootstrap) throws Exception {
        Map<String, Event> journal = journal(url);
        var read = committed(bootstrap, journal.size());
        boolean open = open(bootstrap);
        int aborted = written(bootstrap) - read.size();

        var times = new HashMap<String, Integer>();
        var last = new HashMap<String, Long>();
        var partitions = new HashMap<String, Integer>();
        long foreign = 0;
        long reordered = 0;
        long wrong = 0;
        for (var record : read) {
            var header = record.headers().lastHeader("id");
            String id = header == null ? "" : new String(header.value());
            Event event = journal.get(id);
            if (event == null) {
                foreign += 1;
                continue;
            }
            times.merge(id, 1, Integer::sum);
            var value = VALUE.matcher(record.value());
            if (!event.order().equals(record.key()) || !value.matches()
                || Long.parseLong(value.group(1)) != event.version()
                || partitions.computeIfAbsent(event.order(), o -> record.partition())
                    != record.partition()) {
                wrong += 1;
            }
            if (event.version() < last.merge(event.order(), event.version(), Math::max)) {
                reordered += 1;
            }
        }
        long lost = journal.keySet().stream().filter(id -> !times.containsKey(id)).count();
        long duplicated = times.values().stream().mapToLong(n -> n - 1).sum();
        System.out.printf("%d events committed, %d delivered "
                + "(and %d records in aborted transactions): %d lost, %d duplicated, %d reordered, "
                + "%d that were never committed, %d with another key, value or partition%s%n",
            journal.size(), read.size(), aborted, lost, duplicated, reordered, foreign, wrong,
            open ? "; a transaction is still open" : "");
        return !journal.isEmpty() && !open
            && lost + duplicated + reordered + foreign + wrong == 0;
    }

    private static Map<String, Event> journal(String url) throws SQLException {
        var journal = new HashMap<String, Event>();
        try (var database = DriverManager.getConnection(url);
                var query = database.createStatement();
                var rows = query.executeQuery("SELECT id, order_id, version FROM journal")) {
            while (rows.next()) {
                journal.put(rows.getString(1), new Event(rows.getString(2), rows.getLong(3)));
            }
        }
        return journal;
    }

    /** The topic's partitions, from their beginnings. */
    private static List<TopicPartition> assign(KafkaConsumer<String, String> consumer) {
        List<TopicPartition> parts = consumer.partitionsFor(TOPIC).stream()
            .map(part -> new TopicPartition(TOPIC, part.partition())).toList();
        consumer.assign(parts);
        consumer.seekToBeginning(parts);
        return parts;
    }

    /** All that is committed in the topic; it waits for {@code want}. */
    private static List<ConsumerRecord<String, String>> committed(String bootstrap, int want) {
        var read = new ArrayList<ConsumerRecord<String, String>>();
        try (var consumer = consumer(bootstrap, "read_committed")) {
            assign(consumer);
            long deadline = System.nanoTime() + PATIENCE_NS;
            long last = System.nanoTime();
            while (System.nanoTime() < deadline
                && (read.size() < want || System.nanoTime() - last < QUIET_NS)) {
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    read.add(record);
                    last = System.nanoTime();
                }
            }
        }
        return read;
    }

    /** How many records are in the topic, those of aborted transactions among them. */
    private static int written(String bootstrap) {
        try (var consumer = consumer(bootstrap, "read_uncommitted")) {
            var ends = consumer.endOffsets(assign(consumer));
            int written = 0;
            while (ends.entrySet().stream()
                    .anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                written += consumer.poll(Duration.ofMillis(200)).count();
            }
            return written;
        }
    }

    /** Whether a transaction is open in the topic. */
    private static boolean open(String bootstrap) {
        try (var stable = consumer(bootstrap, "read_committed");
                var all = consumer(bootstrap, "read_uncommitted")) {
            return !stable.endOffsets(assign(stable)).equals(all.endOffsets(assign(all)));
        }
    }

    private static KafkaConsumer<String, String> consumer(String bootstrap, String isolation) {
        var config = new Properties();
        config.putAll(Map.of("bootstrap.servers", bootstrap, "isolation.level", isolation,
            "auto.offset.reset", "earliest"));
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }
}
