package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;
import static smoke.Checks.refused;
import static smoke.Checks.waitFor;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidRequestException;
import org.apache.kafka.common.errors.WakeupException;

/** Consumer groups under both protocols: rebalances, commits, static members, the admin's view. */
final class Groups {
    private static final List<String> CLASSIC_ASSIGNORS =
        List.of("RangeAssignor", "RoundRobinAssignor", "StickyAssignor", "CooperativeStickyAssignor");
    private final Cluster cluster;

    Groups(Cluster cluster) {
        this.cluster = cluster;
    }

    void run(Checks checks) {
        for (String assignor : CLASSIC_ASSIGNORS) {
            checks.run("group-classic-" + assignor, () -> rebalance(assignor, Map.of(
                "group.protocol", "classic",
                "session.timeout.ms", "10000",
                "heartbeat.interval.ms", "500",
                "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer." + assignor)));
        }
        for (String assignor : List.of("uniform", "range")) {
            checks.run("group-consumer-" + assignor, () -> rebalance(
                assignor, Map.of("group.protocol", "consumer", "group.remote.assignor", assignor)));
        }
        for (String protocol : List.of("classic", "consumer")) {
            checks.run("group-commit-" + protocol, () -> commit(protocol));
            checks.run("group-static-members-" + protocol, () -> staticMembers(protocol));
            checks.run("group-pattern-" + protocol, () -> pattern(protocol));
            checks.run("group-new-partitions-" + protocol, () -> newPartitions(protocol));
            checks.run("group-lost-member-" + protocol, () -> lostMember(protocol));
        }
        checks.run("group-migration", this::migration);
        checks.run("group-admin", this::administer);
        checks.run("group-configs", this::groupConfigs);
    }

    /** A group member on its own thread: what it was assigned and what it read. */
    private final class Member implements ConsumerRebalanceListener, AutoCloseable {
        final ConcurrentLinkedQueue<Integer> read = new ConcurrentLinkedQueue<>();
        volatile Set<Integer> assigned = Set.of();
        volatile int revocations = 0;
        private volatile boolean stopping = false;
        private volatile Throwable error = null;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final Thread thread;

        Member(String group, Map<String, String> config, Object subscription) {
            Map<String, String> all = new HashMap<>(config);
            all.put("group.id", group);
            all.put("metadata.max.age.ms", "1000");
            consumer = Records.consumer(cluster, all);
            if (subscription instanceof Pattern pattern) {
                consumer.subscribe(pattern, this);
            } else if (subscription instanceof SubscriptionPattern pattern) {
                consumer.subscribe(pattern, this);
            } else {
                consumer.subscribe(List.of((String) subscription), this);
            }
            thread = new Thread(this::work, "member");
            thread.start();
        }

        private void work() {
            try (consumer) {
                while (!stopping) {
                    var polled = consumer.poll(Duration.ofMillis(100));
                    polled.forEach(record -> read.add(Records.number(record)));
                    assigned = consumer.assignment().stream()
                        .map(TopicPartition::partition).collect(Collectors.toSet());
                    if (!polled.isEmpty()) {
                        commit();
                    }
                }
            } catch (WakeupException stop) {
                // Only close() wakes it.
            } catch (Throwable failure) {
                error = failure;
            }
        }

        private void commit() {
            try {
                consumer.commitSync();
            } catch (CommitFailedException
                | org.apache.kafka.common.errors.RebalanceInProgressException rebalanced) {
                // A rebalance came first; what was read is read again.
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            revocations += partitions.isEmpty() ? 0 : 1;
        }

        @Override
        public void close() throws Exception {
            stopping = true;
            thread.join(30_000);
            isTrue(!thread.isAlive(), "member stops");
            if (error != null) {
                throw new AssertionError("member failed: " + error, error);
            }
        }
    }

    private static Set<Integer> union(Member... members) {
        Set<Integer> all = new TreeSet<>();
        for (Member member : members) {
            all.addAll(member.assigned);
        }
        return all;
    }

    private static int distinct(Member... members) {
        Set<Integer> all = new HashSet<>();
        for (Member member : members) {
            all.addAll(member.read);
        }
        return all.size();
    }

    private static boolean shared(Member a, Member b) {
        return a.assigned.size() == 2 && b.assigned.size() == 2 && union(a, b).size() == 4;
    }

    private ConsumerGroupDescription describe(String group) throws Exception {
        return cluster.admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    private Map<Integer, Long> committed(String group) throws Exception {
        Map<Integer, Long> offsets = new TreeMap<>();
        cluster.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
            .forEach((part, at) -> offsets.put(part.partition(), at.offset()));
        return offsets;
    }

    private void delete(String group) throws Exception {
        waitFor("group " + group + " is empty",
            () -> describe(group).groupState() == GroupState.EMPTY);
        cluster.admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    private void rebalance(String what, Map<String, String> config) throws Exception {
        String protocol = config.get("group.protocol");
        String topic = cluster.topic("group-" + protocol + "-" + what, 4, Map.of());
        String group = Checks.name("group-" + protocol + "-" + what);
        Records.sendNumbers(cluster, topic, 0, 100, 4);
        try (Member a = new Member(group, config, topic)) {
            waitFor("the first member has every partition", () -> a.assigned.size() == 4);
            waitFor("the first member reads everything", () -> a.read.size() == 100);
            try (Member b = new Member(group, config, topic)) {
                waitFor("two partitions for each of two members", () -> shared(a, b));
                waitFor("the group is stable",
                    () -> describe(group).groupState() == GroupState.STABLE);
                describedRight(describe(group), protocol);
                Records.sendNumbers(cluster, topic, 100, 100, 4);
                waitFor("the second hundred is read", () -> distinct(a, b) == 200);
                refused("deleting a group with members", GroupNotEmptyException.class,
                    () -> cluster.admin.deleteConsumerGroups(List.of(group)).all().get());
            }
            waitFor("the leaver's partitions come back", () -> a.assigned.size() == 4);
            equal(distinct(a), a.read.size(), "each record read once by the member that stayed");
        }
        equal(committed(group), Map.of(0, 50L, 1, 50L, 2, 50L, 3, 50L), "committed offsets");
        Records.sendNumbers(cluster, topic, 200, 20, 4);
        try (Member again = new Member(group, config, topic)) {
            waitFor("the restarted member reads on", () -> again.read.size() >= 20);
            Thread.sleep(300);
            Set<Integer> want = new TreeSet<>();
            for (int i = 200; i < 220; i++) {
                want.add(i);
            }
            equal(new ArrayList<>(new TreeSet<>(again.read)), new ArrayList<>(want), "resumed at");
            equal(again.read.size(), 20, "only what came after the commit");
        }
        delete(group);
    }

    private void describedRight(ConsumerGroupDescription described, String protocol) {
        GroupType type = protocol.equals("classic") ? GroupType.CLASSIC : GroupType.CONSUMER;
        equal(described.type(), type, "group type");
        equal(described.members().size(), 2, "members described");
        Set<Integer> owned = new TreeSet<>();
        for (var member : described.members()) {
            isTrue(!member.consumerId().isEmpty(), "member id");
            isTrue(!member.host().isEmpty(), "member host");
            member.assignment().topicPartitions().forEach(part -> owned.add(part.partition()));
        }
        equal(owned, Set.of(0, 1, 2, 3), "assignment described");
        isTrue(described.coordinator().id() >= 0, "coordinator");
    }

    private void commit(String protocol) throws Exception {
        String topic = cluster.topic("commit-" + protocol, 2, Map.of());
        String group = Checks.name("commit-" + protocol);
        Records.sendNumbers(cluster, topic, 0, 10, 2);
        var zero = new TopicPartition(topic, 0);
        var config = Map.of("group.id", group, "group.protocol", protocol);
        try (var consumer = Records.consumer(cluster, config)) {
            consumer.assign(List.of(zero));
            equal(consumer.committed(Set.of(zero)).get(zero), null, "before any commit");
            consumer.commitSync(Map.of(zero, new OffsetAndMetadata(3, "where I was")));
            var at = consumer.committed(Set.of(zero)).get(zero);
            equal(at.offset(), 3L, "committed offset");
            equal(at.metadata(), "where I was", "commit metadata");
        }
        try (var consumer = Records.consumer(cluster, config)) {
            consumer.assign(List.of(zero));
            equal(consumer.position(zero), 3L, "position taken from the commit");
        }
        delete(group);
    }

    private void staticMembers(String protocol) throws Exception {
        String topic = cluster.topic("static-" + protocol, 4, Map.of());
        String group = Checks.name("static-" + protocol);
        Map<String, String> one = new HashMap<>(Map.of("group.protocol", protocol));
        one.put("group.instance.id", "one");
        if (protocol.equals("classic")) {
            one.put("session.timeout.ms", "20000");
            one.put("heartbeat.interval.ms", "500");
        }
        Map<String, String> two = new HashMap<>(one);
        two.put("group.instance.id", "two");
        try (Member b = new Member(group, two, topic)) {
            Set<Integer> before;
            try (Member a = new Member(group, one, topic)) {
                waitFor("two static members share the partitions", () -> shared(a, b));
                before = a.assigned;
                Set<String> instances = describe(group).members().stream()
                    .map(member -> member.groupInstanceId().orElse("none"))
                    .collect(Collectors.toSet());
                equal(instances, Set.of("one", "two"), "instance ids described");
            }
            int revocations = b.revocations;
            try (Member back = new Member(group, one, topic)) {
                waitFor("the instance gets its partitions back", () -> back.assigned.equals(before));
                isTrue(shared(back, b), "the other member keeps its own");
                equal(b.revocations, revocations, "revocations at the other member");
            }
        }
        if (protocol.equals("classic")) {
            var members = List.of(new MemberToRemove("one"), new MemberToRemove("two"));
            cluster.admin.removeMembersFromConsumerGroup(
                group, new RemoveMembersFromConsumerGroupOptions(members)).all().get();
            delete(group);
        }
    }

    /** A subscription by pattern also takes in a topic that is created later. */
    private void pattern(String protocol) throws Exception {
        String group = Checks.name("pattern-" + protocol);
        String prefix = Checks.name("pattern-" + protocol);
        String first = cluster.topic("pattern-" + protocol + "-1", 1, Map.of());
        Records.sendNumbers(cluster, first, 0, 5, 1);
        Object pattern = protocol.equals("classic")
            ? Pattern.compile(prefix + "-[0-9]") : new SubscriptionPattern(prefix + "-[0-9]");
        try (Member member = new Member(group, Map.of("group.protocol", protocol), pattern)) {
            waitFor("the first topic is read", () -> distinct(member) == 5);
            if (protocol.equals("consumer")) {
                return; // the broker looks again every ten minutes, which no check waits for
            }
            String second = cluster.topic("pattern-" + protocol + "-2", 1, Map.of());
            Records.sendNumbers(cluster, second, 5, 5, 1);
            waitFor("a matching topic made later is read", () -> distinct(member) == 10);
        }
        delete(group);
    }

    private void newPartitions(String protocol) throws Exception {
        String topic = cluster.topic("grow-" + protocol, 1, Map.of());
        String group = Checks.name("grow-" + protocol);
        try (Member member = new Member(group, Map.of("group.protocol", protocol), topic)) {
            waitFor("one partition", () -> member.assigned.equals(Set.of(0)));
            cluster.admin.createPartitions(
                Map.of(topic, org.apache.kafka.clients.admin.NewPartitions.increaseTo(3)))
                .all().get();
            waitFor("the new partitions are assigned",
                () -> member.assigned.equals(Set.of(0, 1, 2)));
        }
        delete(group);
    }

    /** A member that stops polling heartbeats no more after max.poll.interval.ms; others take over. */
    private void lostMember(String protocol) throws Exception {
        String topic = cluster.topic("lost-" + protocol, 2, Map.of());
        String group = Checks.name("lost-" + protocol);
        Map<String, String> config = new HashMap<>(Map.of("group.protocol", protocol));
        config.put("max.poll.interval.ms", "3000");
        config.put("group.id", group);
        try (var stuck = Records.consumer(cluster, config)) {
            stuck.subscribe(List.of(topic));
            waitFor("the member that will stop has both partitions", () -> {
                stuck.poll(Duration.ofMillis(100));
                return stuck.assignment().size() == 2;
            });
            try (Member other = new Member(group, Map.of("group.protocol", protocol), topic)) {
                waitFor("the other takes over", () -> other.assigned.size() == 2);
                equal(describe(group).members().size(), 1, "members left");
            }
        }
        delete(group);
    }

    /** An empty group changes its protocol with its next member, and its offsets stay. */
    private void migration() throws Exception {
        String topic = cluster.topic("migrate", 4, Map.of());
        String group = Checks.name("migrate");
        int sent = 0;
        for (String protocol : List.of("classic", "consumer", "classic")) {
            Records.sendNumbers(cluster, topic, sent, 20, 4);
            try (Member member = new Member(group, Map.of("group.protocol", protocol), topic)) {
                waitFor("twenty more are read under " + protocol, () -> member.read.size() >= 20);
                Thread.sleep(300);
                equal(member.read.size(), 20, "records read under " + protocol);
                equal(describe(group).type().toString().toLowerCase(), protocol, "type");
            }
            sent += 20;
            waitFor("empty", () -> describe(group).groupState() == GroupState.EMPTY);
        }
        delete(group);
    }

    private void administer() throws Exception {
        String topic = cluster.topic("group-admin", 2, Map.of());
        String group = Checks.name("group-admin");
        var zero = new TopicPartition(topic, 0);
        var one = new TopicPartition(topic, 1);
        Records.sendNumbers(cluster, topic, 0, 10, 2);
        cluster.admin.alterConsumerGroupOffsets(
            group, Map.of(zero, new OffsetAndMetadata(2), one, new OffsetAndMetadata(4))).all().get();
        equal(committed(group), Map.of(0, 2L, 1, 4L), "offsets altered and listed");
        isTrue(listed(new ListGroupsOptions(), group), "group listed");
        isTrue(listed(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY)), group),
            "listed among the empty");
        isTrue(!listed(new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE)), group),
            "not listed among the stable");
        isTrue(!listed(new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER)), group),
            "not of the consumer type");
        try (Member member = new Member(group, Map.of("group.protocol", "classic"), topic)) {
            waitFor("assigned", () -> member.assigned.size() == 2);
            refused("deleting offsets of a subscribed topic", GroupSubscribedToTopicException.class,
                () -> cluster.admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get());
        }
        waitFor("empty", () -> describe(group).groupState() == GroupState.EMPTY);
        cluster.admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get();
        equal(committed(group).keySet(), Set.of(1), "partitions with an offset");
        delete(group);
        isTrue(!listed(new ListGroupsOptions(), group), "deleted group not listed");
        refused("deleting a group twice", GroupIdNotFoundException.class,
            () -> cluster.admin.deleteConsumerGroups(List.of(group)).all().get());
        refused("describing a group that does not exist", GroupIdNotFoundException.class,
            () -> describe(group));
    }

    private void groupConfigs() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.GROUP, Checks.name("configs"));
        var set = new AlterConfigOp(
            new ConfigEntry("consumer.session.timeout.ms", "50000"), AlterConfigOp.OpType.SET);
        try {
            cluster.admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof InvalidRequestException refusal) {
                throw new Checks.Skip("the broker refuses: " + refusal.getMessage());
            }
            throw error;
        }
        waitFor("the group's config is described", () -> cluster.admin
            .describeConfigs(List.of(resource)).all().get().get(resource)
            .get("consumer.session.timeout.ms").value().equals("50000"));
    }

    private boolean listed(ListGroupsOptions options, String group) throws Exception {
        return cluster.admin.listGroups(options).all().get().stream()
            .anyMatch(listing -> listing.groupId().equals(group));
    }
}
