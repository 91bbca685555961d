package smoke;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;

/** The broker under test: its address, an admin client, and the topics that this run has made. */
final class Cluster implements AutoCloseable {
    final String bootstrap;
    final Admin admin;
    private final List<String> made = new ArrayList<>();

    Cluster(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of(
            "bootstrap.servers", bootstrap, "default.api.timeout.ms", "30000"));
    }

    String topic(String what, int partitions, Map<String, String> configs) throws Exception {
        String name = Checks.name(what);
        create(new NewTopic(name, partitions, (short) 1).configs(configs));
        return name;
    }

    void create(NewTopic topic) throws Exception {
        admin.createTopics(List.of(topic)).all().get();
        made.add(topic.name());
        Checks.waitFor("leaders of " + topic.name(), () -> {
            if (!admin.listTopics().names().get().contains(topic.name())) {
                return false; // a broker's metadata may follow a moment later
            }
            var described = admin.describeTopics(List.of(topic.name())).allTopicNames().get();
            return described.get(topic.name()).partitions().stream()
                .allMatch(partition -> partition.leader() != null);
        });
    }

    void deleted(String topic) {
        made.remove(topic);
    }

    long offset(String topic, int partition, OffsetSpec spec) throws Exception {
        var part = new TopicPartition(topic, partition);
        return admin.listOffsets(Map.of(part, spec)).partitionResult(part).get().offset();
    }

    void deleteMade() throws Exception {
        if (!made.isEmpty() && !"1".equals(System.getenv("ONCELOG_SMOKE_KEEP"))) {
            admin.deleteTopics(made).all().get();
        }
    }

    @Override
    public void close() {
        admin.close();
    }
}
