package smoke;

import java.util.List;

/**
 * Smoke of Kafka's own Java client against any broker: {@code java smoke.Smoke BOOTSTRAP}.
 *
 * It speaks the newest version of every API, both group protocols and the second protocol of
 * transactions. It does not cover share groups.
 */
public final class Smoke {
    public static void main(String[] args) throws Exception {
        var checks = new Checks();
        try (var cluster = new Cluster(args[0])) {
            new Records(cluster).run(checks);
            new Reading(cluster).run(checks);
            new Groups(cluster).run(checks);
            new Transactions(cluster).run(checks);
            new TransactionLoop(cluster).run(checks, List.of("classic", "consumer"));
            new TransactionTools(cluster).runAdmin(checks);
            new Administration(cluster).run(checks);
            checks.run("clean-up", cluster::deleteMade);
        }
        System.exit(checks.failed == 0 ? 0 : 1);
    }
}
