package smoke;

import static smoke.Checks.equal;
import static smoke.Checks.isTrue;
import static smoke.Checks.refused;
import static smoke.Checks.waitFor;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The admin client: topics, configs, partitions, records, the cluster. */
final class Administration {
    private final Cluster cluster;

    Administration(Cluster cluster) {
        this.cluster = cluster;
    }

    void run(Checks checks) {
        checks.run("topic-create-and-describe", this::createAndDescribe);
        checks.run("topic-create-refusals", this::refusals);
        checks.run("topic-replica-assignment", this::assignment);
        checks.run("configs-of-topic", this::topicConfigs);
        checks.run("configs-of-broker", this::brokerConfigs);
        checks.run("alter-configs-incremental", this::alterConfigs);
        checks.run("create-partitions", this::createPartitions);
        checks.run("delete-records", this::deleteRecords);
        checks.run("describe-cluster", this::describeCluster);
        checks.run("describe-features", this::features);
        checks.run("describe-log-dirs", this::logDirs);
        checks.run("describe-volume-sizes", this::volumeSizes);
        checks.run("list-config-resources", this::configResources);
        checks.run("delete-topic-by-name", this::deleteByName);
        checks.run("delete-topic-by-id", this::deleteById);
    }

    private void createAndDescribe() throws Exception {
        String name = Checks.name("admin");
        var result = cluster.admin.createTopics(List.of(new NewTopic(name, 3, (short) 1)
            .configs(Map.of("retention.ms", "3600000"))));
        result.all().get();
        equal(result.numPartitions(name).get(), 3, "partitions in the answer");
        equal(result.replicationFactor(name).get(), 1, "replication factor in the answer");
        equal(result.config(name).get().get("retention.ms").value(), "3600000", "its config");
        Uuid id = result.topicId(name).get();
        isTrue(!id.equals(Uuid.ZERO_UUID), "topic id");
        waitFor("topic listed", () -> cluster.admin.listTopics().names().get().contains(name));
        var listing = cluster.admin.listTopics().namesToListings().get().get(name);
        equal(listing.topicId(), id, "id in the listing");
        isTrue(!listing.isInternal(), "not internal");
        for (var described : List.of(
            cluster.admin.describeTopics(List.of(name)).allTopicNames().get().get(name),
            cluster.admin.describeTopics(TopicCollection.ofTopicIds(List.of(id)))
                .allTopicIds().get().get(id))) {
            equal(described.name(), name, "name");
            equal(described.topicId(), id, "id");
            equal(described.partitions().size(), 3, "partitions");
            for (int p = 0; p < 3; p++) {
                var partition = described.partitions().get(p);
                equal(partition.partition(), p, "partition index");
                equal(partition.replicas(), List.of(partition.leader()), "replicas");
                equal(partition.isr(), List.of(partition.leader()), "in-sync replicas");
            }
        }
        cluster.admin.deleteTopics(List.of(name)).all().get();
        defaults();
    }

    /** -1 partitions and -1 replicas (KIP-464) take the broker's defaults. */
    private void defaults() throws Exception {
        String name = Checks.name("defaults");
        cluster.create(new NewTopic(name, Optional.empty(), Optional.empty()));
        var described = cluster.admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
        isTrue(described.partitions().size() >= 1, "default number of partitions");
    }

    private Object create(NewTopic topic) throws Exception {
        return cluster.admin.createTopics(List.of(topic)).all().get();
    }

    private void refusals() throws Exception {
        String name = cluster.topic("exists", 1, Map.of());
        String bad = Checks.name("bad");
        refused("creating a topic twice", TopicExistsException.class,
            () -> create(new NewTopic(name, 1, (short) 1)));
        refused("no partitions", InvalidPartitionsException.class,
            () -> create(new NewTopic(bad, 0, (short) 1)));
        refused("replication factor 5", InvalidReplicationFactorException.class,
            () -> create(new NewTopic(bad, 1, (short) 5)));
        refused("an unknown config", InvalidConfigurationException.class,
            () -> create(new NewTopic(bad, 1, (short) 1).configs(Map.of("no.such.key", "1"))));
        refused("a bad config value", InvalidConfigurationException.class,
            () -> create(new NewTopic(bad, 1, (short) 1).configs(Map.of("retention.ms", "x"))));
        refused("a name with spaces", InvalidTopicException.class,
            () -> create(new NewTopic("no spaces", 1, (short) 1)));
        refused("a name of 250 characters", InvalidTopicException.class,
            () -> create(new NewTopic("x".repeat(250), 1, (short) 1)));
        cluster.admin.createTopics(List.of(new NewTopic(bad, 1, (short) 1)),
            new CreateTopicsOptions().validateOnly(true)).all().get();
        isTrue(!cluster.admin.listTopics().names().get().contains(bad), "validateOnly creates none");
        refused("describing a topic that does not exist", UnknownTopicOrPartitionException.class,
            () -> cluster.admin.describeTopics(List.of(bad)).allTopicNames().get());
        refused("describing an id that does not exist", UnknownTopicIdException.class,
            () -> cluster.admin.describeTopics(
                TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds().get());
    }

    private void assignment() throws Exception {
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        String name = Checks.name("assigned");
        cluster.create(new NewTopic(name, Map.of(0, List.of(node), 1, List.of(node))));
        var described = cluster.admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
        equal(described.partitions().size(), 2, "partitions");
    }

    private Config configs(ConfigResource resource) throws Exception {
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        return cluster.admin.describeConfigs(List.of(resource), options).all().get().get(resource);
    }

    private static ConfigResource topicResource(String name) {
        return new ConfigResource(ConfigResource.Type.TOPIC, name);
    }

    private void topicConfigs() throws Exception {
        String name = cluster.topic("configs", 1, Map.of(
            "cleanup.policy", "compact,delete", "segment.bytes", "2000000"));
        Config configs = configs(topicResource(name));
        equal(configs.get("cleanup.policy").value(), "compact,delete", "cleanup.policy");
        equal(configs.get("cleanup.policy").source(), ConfigSource.DYNAMIC_TOPIC_CONFIG, "source");
        equal(configs.get("segment.bytes").value(), "2000000", "segment.bytes");
        equal(configs.get("segment.bytes").type(), ConfigEntry.ConfigType.INT, "its type");
        equal(configs.get("retention.ms").value(), "604800000", "default of retention.ms");
        isTrue(configs.get("retention.ms").isDefault(), "retention.ms is the default");
        equal(configs.get("max.message.bytes").value(), "1048588", "default of max.message.bytes");
        isTrue(configs.get("min.insync.replicas") != null, "min.insync.replicas described");
        refused("configs of a topic that does not exist", UnknownTopicOrPartitionException.class,
            () -> configs(topicResource(Checks.name("none"))));
    }

    private void brokerConfigs() throws Exception {
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        var resource = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
        Config configs = configs(resource);
        equal(configs.get("message.max.bytes").value(), "1048588", "message.max.bytes");
        equal(configs.get("node.id").value(), String.valueOf(node), "node.id");
        isTrue(configs.get("node.id").isReadOnly(), "node.id is read-only");
        isTrue(configs.get("log.dirs") != null, "log.dirs described");
    }

    private void alter(String topic, OpType op, String key, String value) throws Exception {
        var change = new AlterConfigOp(new ConfigEntry(key, value), op);
        cluster.admin.incrementalAlterConfigs(
            Map.of(topicResource(topic), List.of(change))).all().get();
    }

    private void alterConfigs() throws Exception {
        String name = cluster.topic("alter", 1, Map.of("segment.ms", "700000"));
        alter(name, OpType.SET, "retention.ms", "2000000");
        alter(name, OpType.APPEND, "cleanup.policy", "compact");
        waitFor("the append is described", () ->
            configs(topicResource(name)).get("cleanup.policy").value().equals("delete,compact"));
        Config configs = configs(topicResource(name));
        equal(configs.get("retention.ms").value(), "2000000", "after SET");
        equal(configs.get("segment.ms").value(), "700000", "a key that was not altered");
        alter(name, OpType.SUBTRACT, "cleanup.policy", "delete");
        alter(name, OpType.DELETE, "retention.ms", "");
        waitFor("the delete is described", () ->
            configs(topicResource(name)).get("retention.ms").isDefault());
        equal(configs(topicResource(name)).get("cleanup.policy").value(), "compact", "subtract");
        refused("a bad value", InvalidConfigurationException.class, () -> {
            alter(name, OpType.SET, "retention.ms", "soon");
            return null;
        });
        refused("an unknown key", InvalidConfigurationException.class, () -> {
            alter(name, OpType.SET, "no.such.key", "1");
            return null;
        });
    }

    private void createPartitions() throws Exception {
        String name = cluster.topic("grow", 1, Map.of());
        cluster.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(4))).all().get();
        waitFor("4 partitions with leaders", () -> {
            var described = cluster.admin.describeTopics(List.of(name)).allTopicNames().get();
            var partitions = described.get(name).partitions();
            return partitions.size() == 4 && partitions.stream().allMatch(p -> p.leader() != null);
        });
        Records.sendNumbers(cluster, name, 0, 8, 4);
        equal(Records.readAll(cluster, name, 4, Map.of()).size(), 8, "records read");
        refused("fewer partitions", InvalidPartitionsException.class, () -> cluster.admin
            .createPartitions(Map.of(name, NewPartitions.increaseTo(2))).all().get());
    }

    private long deleteBefore(TopicPartition part, long offset) throws Exception {
        return cluster.admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(offset)))
            .lowWatermarks().get(part).get().lowWatermark();
    }

    private void deleteRecords() throws Exception {
        String name = cluster.topic("delete-records", 1, Map.of());
        var part = new TopicPartition(name, 0);
        Records.sendNumbers(cluster, name, 0, 20, 1);
        equal(deleteBefore(part, 7), 7L, "low watermark");
        equal(cluster.offset(name, 0, OffsetSpec.earliest()), 7L, "earliest offset");
        List<Integer> left = new ArrayList<>();
        Records.readAll(cluster, name, 1, Map.of()).forEach(r -> left.add(Records.number(r)));
        equal(left.size(), 13, "records left");
        equal(left.get(0), 7, "first record left");
        refused("deleting beyond the end", OffsetOutOfRangeException.class,
            () -> deleteBefore(part, 50));
        equal(deleteBefore(part, -1), 20L, "low watermark at -1");
    }

    private void describeCluster() throws Exception {
        var described = cluster.admin.describeCluster();
        isTrue(!described.clusterId().get().isEmpty(), "cluster id");
        Collection<org.apache.kafka.common.Node> nodes = described.nodes().get();
        isTrue(nodes.contains(described.controller().get()), "the controller is a node");
    }

    private void features() throws Exception {
        var features = cluster.admin.describeFeatures().featureMetadata().get();
        isTrue(features.supportedFeatures() != null, "supported features");
        var group = features.finalizedFeatures().get("group.version");
        isTrue(group != null && group.maxVersionLevel() >= 1, "group.version 1 is finalized");
    }

    private void logDirs() throws Exception {
        String name = cluster.topic("log-dirs", 2, Map.of());
        Records.sendNumbers(cluster, name, 0, 10, 2);
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        Set<Integer> found = new TreeSet<>();
        for (var dir : cluster.admin.describeLogDirs(List.of(node)).allDescriptions().get()
            .get(node).values()) {
            equal(dir.error(), null, "log dir error");
            dir.replicaInfos().forEach((part, info) -> {
                if (part.topic().equals(name)) {
                    isTrue(info.size() > 0, "size of " + part);
                    equal(info.offsetLag(), 0L, "offset lag of " + part);
                    found.add(part.partition());
                }
            });
        }
        equal(found, Set.of(0, 1), "partitions in log dirs");
    }

    /** The sizes are optional in the protocol (KIP-827): -1 says that the broker does not know. */
    private void volumeSizes() throws Exception {
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        for (var dir : cluster.admin.describeLogDirs(List.of(node)).allDescriptions().get()
            .get(node).values()) {
            if (dir.totalBytes().isEmpty()) {
                throw new Checks.Skip("the broker does not tell the size of its volumes");
            }
            isTrue(dir.totalBytes().getAsLong() > 0, "size of the volume");
            isTrue(dir.usableBytes().getAsLong() <= dir.totalBytes().getAsLong(), "usable bytes");
        }
    }

    private void configResources() throws Exception {
        String name = cluster.topic("resources", 1, Map.of());
        var topics = cluster.admin.listConfigResources(
            Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get();
        isTrue(topics.contains(topicResource(name)), "topic among the config resources");
        var all = cluster.admin.listConfigResources().all().get();
        isTrue(all.stream().anyMatch(r -> r.type() == ConfigResource.Type.BROKER), "a broker");
    }

    private void deleteByName() throws Exception {
        String name = cluster.topic("doomed", 2, Map.of());
        Records.sendNumbers(cluster, name, 0, 10, 2);
        cluster.admin.deleteTopics(List.of(name)).all().get();
        cluster.deleted(name);
        waitFor("topic gone", () -> !cluster.admin.listTopics().names().get().contains(name));
        refused("deleting a topic twice", UnknownTopicOrPartitionException.class,
            () -> cluster.admin.deleteTopics(List.of(name)).all().get());
        cluster.topic("doomed", 1, Map.of());
        var left = Records.readAll(cluster, name, 1, Map.of());
        equal(left.size(), 0, "records in a topic made again under the same name");
    }

    private void deleteById() throws Exception {
        String name = cluster.topic("doomed-id", 1, Map.of());
        Uuid id = cluster.admin.describeTopics(List.of(name)).allTopicNames().get()
            .get(name).topicId();
        var ids = TopicCollection.ofTopicIds(List.of(id));
        cluster.admin.deleteTopics(ids).all().get();
        cluster.deleted(name);
        waitFor("topic gone", () -> !cluster.admin.listTopics().names().get().contains(name));
        refused("deleting an id twice", UnknownTopicIdException.class,
            () -> cluster.admin.deleteTopics(ids).all().get());
    }
}
