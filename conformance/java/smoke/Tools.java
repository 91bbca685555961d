package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.errors.UnsupportedVersionException;

/**
 * Kafka's console tools, each as a process of its own: {@code java smoke.Tools BOOTSTRAP}.
 *
 * What they print and how they end is checked, and what they did is looked up with the admin
 * client. The scripts of Kafka's bin/ directory start the same classes.
 */
public final class Tools {
    private static final String KAFKA = "org.apache.kafka.tools.";
    private static final String TOPICS = KAFKA + "TopicCommand";
    private static final String CONFIGS = "kafka.admin.ConfigCommand";
    private static final String GROUPS = KAFKA + "consumer.group.ConsumerGroupCommand";
    private static final String OFFSETS = KAFKA + "GetOffsetShell";
    private static final String PRODUCER = KAFKA + "ConsoleProducer";
    private static final String CONSUMER = KAFKA + "consumer.ConsoleConsumer";
    private final Cluster cluster;

    private Tools(Cluster cluster) {
        this.cluster = cluster;
    }

    public static void main(String[] args) throws Exception {
        var checks = new Checks();
        try (var cluster = new Cluster(args[0])) {
            new Tools(cluster).run(checks);
            checks.run("clean-up", cluster::deleteMade);
        }
        System.exit(checks.failed == 0 ? 0 : 1);
    }

    private void run(Checks checks) {
        checks.run("kafka-topics", this::topics);
        checks.run("kafka-configs", this::configs);
        checks.run("kafka-console-producer-and-consumer", this::console);
        checks.run("kafka-consumer-groups", this::groups);
        checks.run("kafka-get-offsets", this::offsets);
        checks.run("kafka-delete-records", this::deleteRecords);
        checks.run("kafka-log-dirs", this::logDirs);
        checks.run("kafka-cluster", this::clusterTool);
        checks.run("kafka-features", this::features);
        checks.run("kafka-broker-api-versions", this::apiVersions);
        checks.run("kafka-verifiable-producer-and-consumer", this::verifiable);
        checks.run("kafka-perf-tests", this::performance);
        checks.run("kafka-e2e-latency", this::latency);
        checks.run("kafka-streams-application-reset", this::streamsReset);
        checks.run("client-compatibility-test", this::compatibility);
        checks.run("kafka-metadata-quorum", () -> served(
            "MetadataQuorumCommand", "LeaderId:", "describe", "--status"));
        new TransactionTools(cluster).runTools(checks);
        checks.run("kafka-acls", () -> aclsServed());
    }

    /** Runs a tool with the broker's address. */
    private Tool tool(String main, String... arguments) throws Exception {
        return typing("", main, arguments);
    }

    private Tool typing(String input, String main, String... arguments) throws Exception {
        String[] all = new String[arguments.length + 2];
        all[0] = "--bootstrap-server";
        all[1] = cluster.bootstrap;
        System.arraycopy(arguments, 0, all, 2, arguments.length);
        return Tool.typing(input, main, all);
    }

    private void topics() throws Exception {
        String name = Checks.name("tool-topics");
        tool(TOPICS, "--create", "--topic", name, "--partitions", "3",
            "--replication-factor", "1", "--config", "retention.ms=3600000")
            .ok().says("Created topic " + name);
        tool(TOPICS, "--create", "--topic", name).refused("already exists");
        tool(TOPICS, "--create", "--if-not-exists", "--topic", name).ok();
        tool(TOPICS, "--list").ok().says(name);
        tool(TOPICS, "--alter", "--topic", name, "--partitions", "5").ok();
        Checks.waitFor("5 partitions", () -> cluster.admin.describeTopics(List.of(name))
            .allTopicNames().get().get(name).partitions().size() == 5);
        Tool described = tool(TOPICS, "--describe", "--topic", name).ok()
            .says("Topic: " + name, "TopicId: ", "PartitionCount: 5", "ReplicationFactor: 1",
                "retention.ms=3600000")
            .says("Partition: 4", "Leader: ", "Replicas: ", "Isr: ");
        equal(described.count("Partition: ", "Leader: "), 5L, "lines of partitions");
        tool(TOPICS, "--describe", "--under-replicated-partitions").ok().saysNot(name);
        tool(TOPICS, "--alter", "--topic", name, "--partitions", "2").refused("partition");
        tool(TOPICS, "--delete", "--topic", name).ok();
        Checks.waitFor("topic gone", () -> !cluster.admin.listTopics().names().get().contains(name));
        tool(TOPICS, "--describe", "--topic", name).refused("does not exist");
    }

    private void configs() throws Exception {
        String name = cluster.topic("tool-configs", 1, Map.of());
        String[] topic = {"--entity-type", "topics", "--entity-name", name};
        config("--alter", "--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete]",
            topic).ok().says("Completed updating config for topic " + name);
        config("--describe", null, null, topic).ok()
            .says("retention.ms=7200000", "DYNAMIC_TOPIC_CONFIG:retention.ms=7200000")
            .says("cleanup.policy=compact,delete");
        config("--alter", "--delete-config", "retention.ms", topic).ok();
        config("--describe", null, null, topic).ok().saysNot("retention.ms=");
        config("--alter", "--add-config", "no.such.key=1", topic).refused("no.such.key");
        config("--alter", "--add-config", "retention.ms=soon", topic).refused("retention.ms");
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        tool(CONFIGS, "--describe", "--all", "--entity-type", "brokers",
            "--entity-name", String.valueOf(node)).ok().says("message.max.bytes=1048588");
    }

    private Tool config(String what, String how, String value, String... entity) throws Exception {
        var arguments = new java.util.ArrayList<>(List.of(entity));
        arguments.add(what);
        if (how != null) {
            arguments.addAll(List.of(how, value));
        }
        return tool(CONFIGS, arguments.toArray(String[]::new));
    }

    private void console() throws Exception {
        String name = cluster.topic("tool-console", 1, Map.of());
        String input = "h1:a,h2:b,h1:c\tk1\tone\nNULL\tk2\ttwo\nh3:\tk3\tNULL\n";
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            typing(input, PRODUCER, "--topic", name, "--compression-codec", codec,
                "--reader-property", "parse.headers=true", "--reader-property", "parse.key=true",
                "--reader-property", "null.marker=NULL").ok();
        }
        equal(cluster.offset(name, 0, OffsetSpec.latest()), 15L, "records produced");
        Tool read = tool(CONSUMER, "--topic", name, "--from-beginning", "--max-messages", "15",
            "--timeout-ms", "60000", "--formatter-property", "print.key=true",
            "--formatter-property", "print.headers=true", "--formatter-property",
            "print.offset=true", "--formatter-property", "print.timestamp=true",
            "--formatter-property", "print.partition=true").ok();
        for (int i = 0; i < 15; i += 3) {
            read.says("CreateTime:", "Partition:0", "Offset:" + i, "h1:a,h2:b,h1:c", "k1", "one")
                .says("Offset:" + (i + 1), "NO_HEADERS", "k2", "two")
                .says("Offset:" + (i + 2), "h3:", "k3", "null");
        }
        read.says("Processed a total of 15 messages");
        tool(CONSUMER, "--topic", name, "--partition", "0", "--offset", "13", "--max-messages", "1",
            "--timeout-ms", "60000").ok().says("two");
        tool(CONSUMER, "--topic", name, "--from-beginning", "--isolation-level", "read_committed",
            "--max-messages", "15", "--timeout-ms", "60000").ok().says("total of 15 messages");
    }

    private void groups() throws Exception {
        for (String protocol : List.of("classic", "consumer")) {
            String name = cluster.topic("tool-groups-" + protocol, 2, Map.of());
            Records.sendNumbers(cluster, name, 0, 20, 2);
            groupOf(protocol, name, Checks.name("tool-groups-" + protocol));
        }
    }

    private void groupOf(String protocol, String name, String group) throws Exception {
        tool(CONSUMER, "--topic", name, "--group", group, "--from-beginning", "--max-messages",
            "20", "--timeout-ms", "60000", "--command-property", "group.protocol=" + protocol)
            .ok().says("Processed a total of 20 messages");
        Records.sendNumbers(cluster, name, 20, 2, 2);
        tool(GROUPS, "--list").ok().says(group);
        tool(GROUPS, "--list", "--state", "empty").ok().says(group);
        tool(KAFKA + "GroupsCommand", "--list").ok()
            .says(group, protocol.equals("classic") ? "Classic" : "Consumer");
        tool(GROUPS, "--describe", "--group", group).ok()
            .says(group, name, "0", "10", "11", "1")
            .says(group, name, "1", "10", "11", "1");
        tool(GROUPS, "--describe", "--state", "--group", group).ok().says(group, "Empty", "0");
        tool(GROUPS, "--reset-offsets", "--to-offset", "4", "--topic", name, "--group", group,
            "--dry-run").ok().says(group, name, "0", "4");
        equal(committed(group, name), 10L, "committed after the dry run");
        tool(GROUPS, "--reset-offsets", "--shift-by", "-3", "--topic", name, "--group", group,
            "--execute").ok().says(group, name, "0", "7");
        equal(committed(group, name), 7L, "committed after the reset");
        tool(GROUPS, "--delete-offsets", "--group", group, "--topic", name + ":0").ok();
        equal(committed(group, name), -1L, "committed after its deletion");
        tool(GROUPS, "--delete", "--group", group).ok().says(group, "successful");
        tool(GROUPS, "--list").ok().saysNot(group);
        tool(GROUPS, "--describe", "--group", group).says(group);
    }

    private void deleteBefore(Map<TopicPartition, Long> offsets) throws Exception {
        var records = new java.util.HashMap<
            TopicPartition, org.apache.kafka.clients.admin.RecordsToDelete>();
        offsets.forEach((part, offset) -> records.put(
            part, org.apache.kafka.clients.admin.RecordsToDelete.beforeOffset(offset)));
        cluster.admin.deleteRecords(records).all().get();
    }

    private long committed(String group, String topic) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = cluster.admin
            .listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        OffsetAndMetadata at = offsets.get(new TopicPartition(topic, 0));
        return at == null ? -1 : at.offset();
    }

    private void offsets() throws Exception {
        String name = cluster.topic("tool-offsets", 3, Map.of());
        Records.sendNumbers(cluster, name, 0, 30, 3);
        deleteBefore(Map.of(new TopicPartition(name, 1), 4L));
        tool(OFFSETS, "--topic", name).ok()
            .says(name + ":0:10").says(name + ":1:10").says(name + ":2:10");
        tool(OFFSETS, "--topic", name, "--time", "earliest").ok()
            .says(name + ":0:0").says(name + ":1:4").says(name + ":2:0");
        // Of records of one millisecond the first counts, so only the range is known.
        Tool newest = tool(OFFSETS, "--topic", name, "--time", "max-timestamp").ok();
        equal(newest.count(name + ":"), 3L, "partitions with a newest record");
        tool(OFFSETS, "--topic-partitions", name + ":2", "--time", "1000").ok().says(name + ":2:0");
        // After the last record there is none, and a partition without an offset is left out.
        tool(OFFSETS, "--topic", name, "--time", "9000000000000").ok().saysNot(name + ":0:1");
    }

    private void deleteRecords() throws Exception {
        String name = cluster.topic("tool-delete", 2, Map.of());
        Records.sendNumbers(cluster, name, 0, 20, 2);
        String json = "{\"version\":1,\"partitions\":[{\"topic\":\"%s\",\"partition\":0,"
            + "\"offset\":%d},{\"topic\":\"%s\",\"partition\":1,\"offset\":-1}]}";
        var file = Tool.file(json.formatted(name, 6, name)).getPath();
        tool(KAFKA + "DeleteRecordsCommand", "--offset-json-file", file).ok()
            .says(name + "-0", "low_watermark: 6").says(name + "-1", "low_watermark: 10");
        equal(cluster.offset(name, 0, OffsetSpec.earliest()), 6L, "start of partition 0");
        equal(cluster.offset(name, 1, OffsetSpec.earliest()), 10L, "start of partition 1");
        file = Tool.file(json.formatted(name, 99, name)).getPath();
        tool(KAFKA + "DeleteRecordsCommand", "--offset-json-file", file)
            .says(name + "-0", "OffsetOutOfRange");
    }

    private void logDirs() throws Exception {
        String name = cluster.topic("tool-log-dirs", 2, Map.of());
        Records.sendNumbers(cluster, name, 0, 10, 2);
        tool(KAFKA + "LogDirsCommand", "--describe", "--topic-list", name).ok()
            .says("\"broker\":", "\"error\":null", "\"logDir\":")
            .says("\"partition\":\"" + name + "-0\"")
            .says("\"partition\":\"" + name + "-1\"")
            .saysNot("\"size\":0,");
    }

    private void clusterTool() throws Exception {
        String id = cluster.admin.describeCluster().clusterId().get();
        Tool.run(KAFKA + "ClusterTool", "cluster-id", "--bootstrap-server", cluster.bootstrap)
            .ok().says("Cluster ID: " + id);
        String port = cluster.bootstrap.substring(cluster.bootstrap.lastIndexOf(':') + 1);
        Tool.run(KAFKA + "ClusterTool", "list-endpoints", "--bootstrap-server", cluster.bootstrap)
            .ok().says("HOST", "PORT").says(port);
    }

    private void features() throws Exception {
        tool(KAFKA + "FeatureCommand", "describe").ok()
            .says("Feature: group.version", "SupportedMaxVersion: 1", "FinalizedVersionLevel: 1")
            .says("Feature: transaction.version", "SupportedMaxVersion: 2",
                "FinalizedVersionLevel: 2");
    }

    private void apiVersions() throws Exception {
        tool(KAFKA + "BrokerApiVersionsCommand").ok()
            .says("(id: ", "rack: null")
            .says("Produce(0): 0 to ", "[usable: ")
            .says("Fetch(1): 4 to ", "[usable: ")
            .says("ConsumerGroupHeartbeat(68): 0 to 1", "[usable: 1]")
            .says("AddRaftVoter(80)")
            .saysNot("ERROR");
    }

    private void verifiable() throws Exception {
        String name = cluster.topic("tool-verifiable", 2, Map.of());
        Tool sent = tool(KAFKA + "VerifiableProducer", "--topic", name, "--max-messages", "500",
            "--repeating-keys", "7").ok();
        equal(sent.count("\"producer_send_success\""), 500L, "records acknowledged");
        sent.says("\"tool_data\"", "\"sent\":500", "\"acked\":500");
        for (String protocol : List.of("CLASSIC", "CONSUMER")) {
            var read = tool(KAFKA + "VerifiableConsumer", "--topic", name, "--group-protocol",
                protocol, "--group-id", Checks.name("tool-verifiable-" + protocol),
                "--max-messages", "500", "--verbose").ok();
            equal(read.count("\"record_data\""), 500L, "records read under " + protocol);
            read.says("\"partitions_assigned\"").says("\"offsets_committed\"", "\"success\":true")
                .says("\"shutdown_complete\"").saysNot("\"success\":false");
        }
    }

    private void performance() throws Exception {
        String name = cluster.topic("tool-perf", 3, Map.of());
        tool(KAFKA + "ProducerPerformance", "--topic", name, "--num-records", "20000",
            "--record-size", "100", "--throughput", "-1", "--command-property", "acks=all",
            "compression.type=lz4").ok().says("20000 records sent", "records/sec", "99.9th");
        long end = 0;
        for (int p = 0; p < 3; p++) {
            end += cluster.offset(name, p, OffsetSpec.latest());
        }
        equal(end, 20_000L, "records in the log");
        Tool read = tool(KAFKA + "ConsumerPerformance", "--topic", name, "--num-records", "20000",
            "--timeout", "60000").ok().says("start.time", "data.consumed.in.nMsg");
        // start, end, MB, MB/s, records, ...
        String[] figures = read.lines().get(read.lines().size() - 1).split(", ");
        equal(figures[4], "20000", "records that it says it has read");
    }

    private void latency() throws Exception {
        String name = cluster.topic("tool-latency", 1, Map.of());
        Tool.run(KAFKA + "EndToEndLatency", cluster.bootstrap, name, "200", "all", "100")
            .ok().says("Avg latency: ").says("Percentiles: 50th");
        equal(cluster.offset(name, 0, OffsetSpec.latest()), 200L, "records that it has sent");
    }

    private void streamsReset() throws Exception {
        String name = cluster.topic("tool-reset", 2, Map.of());
        Records.sendNumbers(cluster, name, 0, 20, 2);
        String group = Checks.name("tool-reset");
        var zero = new TopicPartition(name, 0);
        cluster.admin.alterConsumerGroupOffsets(
            group, Map.of(zero, new OffsetAndMetadata(9))).all().get();
        tool(KAFKA + "StreamsResetter", "--application-id", group, "--input-topics", name,
            "--to-offset", "2", "--force").ok().says("Topic: " + name, "Partition: 0", "Offset: 2");
        equal(committed(group, name), 2L, "committed offset");
    }

    private void compatibility() throws Exception {
        String name = cluster.topic("tool-compatibility", 1, Map.of());
        String acls;
        try {
            cluster.admin.describeAcls(AclBindingFilter.ANY).values().get();
            acls = "True";
        } catch (ExecutionException error) {
            // Served but without an authorizer is what the tool takes for supported.
            acls = error.getCause() instanceof UnsupportedVersionException ? "False" : "True";
        }
        removeTheTestsTopic();
        tool(KAFKA + "ClientCompatibilityTest", "--topic", name,
            "--offsets-for-times-supported", "True", "--cluster-id-supported", "True",
            "--expect-record-too-large-exception", "False", "--num-cluster-nodes", "1",
            "--create-topics-supported", "True", "--describe-acls-supported", acls,
            "--describe-configs-supported", "True", "--idempotent-producer-supported", "True").ok();
        removeTheTestsTopic();
    }

    /** The tool makes a topic of this name, and fails if there is one. */
    private void removeTheTestsTopic() throws Exception {
        if (cluster.admin.listTopics().names().get().contains("newtopic")) {
            cluster.admin.deleteTopics(List.of("newtopic")).all().get();
            Checks.waitFor("it is gone",
                () -> !cluster.admin.listTopics().names().get().contains("newtopic"));
        }
    }

    private void served(String main, String want, String... arguments) throws Exception {
        Tool ran = tool(KAFKA + main, arguments);
        if (ran.exit() == 0) {
            ran.says(want);
            return;
        }
        String why = ran.count("does not support") > 0
            ? "does not support" : "UnsupportedVersionException";
        ran.refused(why);
        throw new Checks.Skip("the broker does not serve it, and the tool says so");
    }

    private void aclsServed() throws Exception {
        Tool ran = tool(KAFKA + "AclCommand", "--list");
        if (ran.count("UnsupportedVersionException") > 0) {
            ran.refused("UnsupportedVersionException");
            throw new Checks.Skip("the broker does not serve it, and the tool says so");
        }
        // A Kafka without an authorizer.
        ran.refused("SecurityDisabledException");
    }
}
