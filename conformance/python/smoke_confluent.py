"""Smoke of confluent-kafka (librdkafka) against any broker: `smoke_confluent.py BOOTSTRAP`.

The rdkafka crate binds little of librdkafka's admin client; this script covers the rest of it, and
consumer groups under both group protocols; transactions are in confluent_transactions.py.
"""

import os
import random
import sys
import threading
import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    IsolationLevel,
    KafkaError,
    KafkaException,
    OFFSET_BEGINNING,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from checks import Checks, awkward_records, equal, true, wait_for
from confluent_transactions import Transactions

BOOTSTRAP = sys.argv[1]
KEEP = os.environ.get("ONCELOG_SMOKE_KEEP") == "1"
checks = Checks("confluent")
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
made_topics = []


def first(futures):
    """The one answer of an admin call about one thing."""
    [future] = futures.values()
    return future.result(30)


def refused(call, code, what):
    try:
        call()
    except KafkaException as error:
        equal(error.args[0].name(), code, what)
    else:
        raise AssertionError(f"accepted: {what}")


def topic(what, partitions=1, **configs):
    name = checks.name(what)
    configs = {key.replace("_", "."): value for key, value in configs.items()}
    first(admin.create_topics([NewTopic(name, partitions, 1, config=configs)]))
    made_topics.append(name)
    return name


def send(name, records, **config):
    """Sends (partition, key, value, headers, timestamp); the acknowledged offsets, as sent."""
    config = {key.replace("_", "."): value for key, value in config.items()}
    p = Producer({"bootstrap.servers": BOOTSTRAP, "message.max.bytes": 2_000_000, **config})
    offsets = [None] * len(records)

    def delivered(place):
        def note(error, message):
            offsets[place] = error or message.offset()

        return note

    for place, (partition, key, value, headers, timestamp) in enumerate(records):
        p.produce(
            name,
            value,
            key,
            partition,
            on_delivery=delivered(place),
            timestamp=timestamp,
            headers=headers,
        )
    equal(p.flush(30), 0, "records still in the producer's queue")
    failed = [offset for offset in offsets if isinstance(offset, KafkaError)]
    if failed:
        raise KafkaException(failed[0])
    return offsets


def send_numbers(name, start, count, partitions):
    records = [(i % partitions, None, b"%d" % i, [], 0) for i in range(start, start + count)]
    return send(name, records)


def read_all(name, partitions=1, **config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    c = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": checks.name("unused"),
            "enable.auto.commit": False,
            **config,
        }
    )
    parts = [TopicPartition(name, p, OFFSET_BEGINNING) for p in range(partitions)]
    c.assign(parts)
    found = {p: [] for p in range(partitions)}
    deadline = time.monotonic() + 60
    try:
        # Not by the end-of-partition events: one may come before the first record does.
        ranges = {part.partition: c.get_watermark_offsets(part, 30) for part in parts}
        left = {p for p, (low, high) in ranges.items() if low < high}
        while left:
            so_far = {p: len(messages) for p, messages in found.items()}
            true(time.monotonic() < deadline, f"{name}: {so_far} of {ranges} read within 60 s")
            message = c.poll(0.5)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            found[message.partition()].append(message)
            if message.offset() + 1 >= ranges[message.partition()][1]:
                left.discard(message.partition())
        return found
    finally:
        c.close()


# --- Producing and reading ---------------------------------------------------------------------


def produce_and_read(what, **config):
    name = topic(what)
    sent = awkward_records()
    records = [(0, *record) for record in sent]
    offsets = send(name, records, **config)
    if config.get("acks") != 0:
        equal(offsets, list(range(len(sent))), "acknowledged offsets")
    wait_for(lambda: len(read_all(name)[0]) >= len(sent), "everything in the log")
    messages = read_all(name, isolation_level="read_committed", check_crcs=True)[0]
    equal([m.offset() for m in messages], list(range(len(sent))), "offsets")
    for message, (key, value, headers, timestamp) in zip(messages, sent):
        equal(message.key(), key, "key")
        equal(message.value(), value, "value")
        equal(message.headers() or [], headers, "headers")
        equal(message.timestamp(), (1, timestamp), "timestamp (1 is CreateTime)")


def null_header():
    name = topic("null-header")
    send(name, [(0, b"k", b"v", [("a", None), ("a", b""), ("b", b"x")], 0)])
    [message] = read_all(name)[0]
    equal(message.headers(), [("a", None), ("a", b""), ("b", b"x")], "headers")


def compacted_needs_keys():
    name = topic("compacted", cleanup_policy="compact")
    equal(send(name, [(0, b"key", b"v", [], 0)]), [0], "offset of a record with a key")
    call = lambda: send(name, [(0, None, b"v", [], 0)])
    refused(call, "INVALID_RECORD", "a record without a key in a compacted topic")


def too_large():
    name = topic("small", max_message_bytes="10000")
    call = lambda: send(name, [(0, None, b"x" * 20_000, [], 0)])
    refused(call, "MSG_SIZE_TOO_LARGE", "a record above max.message.bytes")


def order_with_several_in_flight():
    name = topic("order", partitions=3)
    records = [(i % 3, b"k", b"%d" % i, [], 0) for i in range(5000)]
    offsets = send(
        name,
        records,
        enable_idempotence=True,
        max_in_flight_requests_per_connection=5,
        batch_num_messages=7,
        linger_ms=1,
    )
    for p, messages in read_all(name, 3).items():
        equal([int(m.value()) for m in messages], list(range(p, 5000, 3)), "order in the log")
        equal(offsets[p::3], [m.offset() for m in messages], "acknowledged offsets")


def large_record():
    name = topic("huge", max_message_bytes="8000000")
    value = random.Random(11).randbytes(6_000_000)
    record = (0, None, value, [], 0)
    equal(send(name, [record], message_max_bytes=8_000_000), [0], "offset of 6 MB")
    [message] = read_all(name, fetch_message_max_bytes=1000)[0]
    true(message.value() == value, "the value of a record that is larger than a fetch may be")


def log_append_time():
    name = topic("append-time", message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    send(name, [(0, None, b"v", [], 1000)], compression_codec="lz4")
    [message] = read_all(name)[0]
    kind, timestamp = message.timestamp()
    equal(kind, 2, "timestamp type (2 is LogAppendTime)")
    true(before - 1000 <= timestamp <= before + 60_000, "the timestamp is the broker's")
    part = TopicPartition(name, 0)
    at = first(admin.list_offsets({part: OffsetSpec.for_timestamp(timestamp)}))
    equal(at.offset, 0, "found by the broker's time")
    at = first(admin.list_offsets({part: OffsetSpec.for_timestamp(timestamp + 1)}))
    equal(at.offset, -1, "after the broker's time")


def assigned_consumer(*parts, **config):
    c = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": checks.name("assigned"),
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 500,
            **config,
        }
    )
    c.assign(list(parts))
    return c


def poll(consumer, count):
    """The next `count` records in the order that they came."""
    found, deadline = [], time.monotonic() + 30
    while len(found) < count:
        true(time.monotonic() < deadline, f"{len(found)} of {count} records within 30 s")
        message = consumer.poll(0.5)
        if message is not None:
            if message.error():
                raise KafkaException(message.error())
            found.append(message)
    return found


def seek_and_pause():
    name = topic("seek", partitions=2)
    send_numbers(name, 0, 40, 2)
    zero, one = (TopicPartition(name, p, OFFSET_BEGINNING) for p in (0, 1))
    c = assigned_consumer(zero)
    poll(c, 1)
    for at in (15, 3, 19, 0):
        c.seek(TopicPartition(name, 0, at))
        equal(poll(c, 1)[0].offset(), at, "the record sought")
    c.close()
    c = assigned_consumer(zero, one)
    c.pause([zero])
    seen = {m.partition() for m in poll(c, 20)}
    # What was fetched before the pause may still come.
    true(seen <= {0, 1} and 1 in seen, "the other partition is read")
    c.close()
    c = assigned_consumer(zero)
    poll(c, 1)
    c.pause([zero])
    c.seek(TopicPartition(name, 0, 10))
    equal(c.poll(1), None, "a record while paused")
    c.resume([zero])
    equal([int(m.value()) for m in poll(c, 10)], list(range(20, 40, 2)), "once resumed")
    c.close()


def lag():
    name = topic("lag")
    send_numbers(name, 0, 30, 1)
    part = TopicPartition(name, 0, OFFSET_BEGINNING)
    c = assigned_consumer(part, **{"group.id": checks.name("lag")})
    last = poll(c, 10)[-1]
    c.commit(message=last, asynchronous=False)
    [at] = c.committed([part], 30)
    equal(at.offset, 10, "committed offset")
    low, high = c.get_watermark_offsets(part, 30)
    equal((low, high - at.offset), (0, 20), "start and lag")
    c.close()
    first(admin.delete_consumer_groups([checks.name("lag")]))


def many_partitions(protocol):
    name, group = topic(f"many-{protocol}", partitions=200), checks.name(f"many-{protocol}")
    send_numbers(name, 0, 1000, 200)
    member = Member(protocol, group, name)
    wait_for(lambda: len(member.records) >= 1000, "everything is read")
    member.stop()
    equal(numbers(member), list(range(1000)), "records read")
    true(all(int(m.value()) % 200 == m.partition() for m in member.records), "in its partition")
    equal(committed(group), {p: 5 for p in range(200)}, "committed offsets")
    first(admin.delete_consumer_groups([group]))
    # Even where topics are kept: so many files would be all that is left to look at.
    first(admin.delete_topics([name]))
    made_topics.remove(name)


def deleted_and_made_again():
    name = topic("again")
    p = Producer({"bootstrap.servers": BOOTSTRAP, "topic.metadata.refresh.interval.ms": 500})
    got = []

    def sent(value, partition):
        p.produce(name, value, partition=partition, on_delivery=lambda e, m: got.append((e, m)))
        p.flush(30)
        error, message = got.pop()
        equal(error, None, "delivery")
        return message.offset()

    equal(sent(b"1", 0), 0, "offset in the first topic")
    first(admin.delete_topics([name]))
    made_topics.remove(name)
    wait_for(lambda: name not in admin.list_topics(timeout=30).topics, "topic gone")
    topic("again", partitions=3)
    wait_for(
        lambda: len(p.list_topics(name, 30).topics[name].partitions) == 3,
        "the producer sees the new topic",
    )
    equal(sent(b"2", 2), 0, "offset in the second topic")
    equal([len(part) for part in read_all(name, 3).values()], [0, 0, 1], "records of the second")


def auto_create():
    name = checks.name("auto-created")
    equal(send(name, [(0, None, b"v", [], 0)]), [0], "offset in a topic nobody created")
    made_topics.append(name)


# --- Groups ------------------------------------------------------------------------------------


class Member:
    """A group member on its own thread; what it was assigned and what it read."""

    def __init__(self, protocol, group, name, instance=None, strategy="range"):
        config = {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 5000,
        }
        if protocol == "classic":
            config["session.timeout.ms"] = 10_000
            config["heartbeat.interval.ms"] = 500
            config["partition.assignment.strategy"] = strategy
        if instance:
            config["group.instance.id"] = instance
        self.records, self.assigned, self.error, self.losses = [], None, None, 0
        self.stopping = False
        self.consumer = Consumer(config)
        self.consumer.subscribe([name], on_revoke=self._revoked)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _revoked(self, _consumer, _partitions):
        self.losses += 1
        self._commit()

    def _commit(self):
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            # Nothing read since the last assignment: nothing to commit.
            if error.args[0].code() != KafkaError._NO_OFFSET:
                self.error = error

    def _work(self):
        try:
            while not self.stopping:
                message = self.consumer.poll(0.1)
                if message is not None:
                    if message.error():
                        raise KafkaException(message.error())
                    self.records.append(message)
                self.assigned = {tp.partition for tp in self.consumer.assignment()}
            self._commit()
        except KafkaException as error:
            self.error = error
        finally:
            self.consumer.close()

    def stop(self):
        self.stopping = True
        self.thread.join(30)
        true(not self.thread.is_alive(), "member stops")
        if self.error:
            raise self.error


def numbers(*members):
    return sorted(int(m.value()) for member in members for m in member.records)


def describe_group(group):
    return first(admin.describe_consumer_groups([group]))


def committed(group):
    answer = first(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    return {tp.partition: tp.offset for tp in answer.topic_partitions}


def group_rebalance(protocol, strategy="range"):
    name = topic(f"group-{protocol}-{strategy}", partitions=4)
    group = checks.name(f"group-{protocol}-{strategy}")
    send_numbers(name, 0, 100, 4)
    a = Member(protocol, group, name, strategy=strategy)
    wait_for(lambda: a.assigned == {0, 1, 2, 3}, "the first member has every partition")
    wait_for(lambda: len(a.records) == 100, "the first member reads everything")
    b = Member(protocol, group, name, strategy=strategy)
    wait_for(
        lambda: a.assigned and b.assigned and len(a.assigned) == len(b.assigned) == 2,
        "two partitions for each of two members",
    )
    equal(a.assigned | b.assigned, {0, 1, 2, 3}, "partitions owned")
    described = wait_for(
        lambda: (d := describe_group(group)).state == ConsumerGroupState.STABLE and d,
        "the group is stable",
    )
    equal(len(described.members), 2, "members described")
    equal(described.type.name, protocol.upper(), "group type")
    owned = sorted(
        tp.partition for m in described.members for tp in m.assignment.topic_partitions
    )
    equal(owned, [0, 1, 2, 3], "assignment described")
    send_numbers(name, 100, 100, 4)
    wait_for(lambda: set(numbers(a, b)) == set(range(200)), "the second hundred is read")
    b.stop()
    wait_for(lambda: a.assigned == {0, 1, 2, 3}, "the leaver's partitions come back")
    wait_for(lambda: set(numbers(a, b)) == set(range(200)), "nothing is missing")
    a.stop()
    equal(committed(group), {p: 50 for p in range(4)}, "committed offsets")
    send_numbers(name, 200, 20, 4)
    again = Member(protocol, group, name, strategy=strategy)
    wait_for(lambda: len(again.records) >= 20, "the restarted member reads on")
    time.sleep(0.5)
    again.stop()
    equal(numbers(again), list(range(200, 220)), "only what came after the commit")
    first(admin.delete_consumer_groups([group]))


def static_members(protocol):
    name, group = topic(f"static-{protocol}", partitions=4), checks.name(f"static-{protocol}")
    a, b = (Member(protocol, group, name, instance) for instance in ("one", "two"))
    wait_for(
        lambda: a.assigned and b.assigned and len(a.assigned) == len(b.assigned) == 2,
        "two static members share the partitions",
    )
    described = describe_group(group)
    equal({m.group_instance_id for m in described.members}, {"one", "two"}, "instance ids")
    before, b_before, losses = set(a.assigned), set(b.assigned), b.losses
    a.stop()
    back = Member(protocol, group, name, "one")
    wait_for(lambda: back.assigned == before, "the same instance gets its partitions back")
    equal(b.assigned, b_before, "the other member keeps its own")
    equal(b.losses, losses, "revocations at the other member")
    back.stop()
    b.stop()


def group_admin():
    name, group = topic("group-admin", partitions=2), checks.name("group-admin")
    send_numbers(name, 0, 10, 2)
    at = ConsumerGroupTopicPartitions(
        group, [TopicPartition(name, 0, 2), TopicPartition(name, 1, 4)]
    )
    for tp in first(admin.alter_consumer_group_offsets([at])).topic_partitions:
        equal(tp.error, None, "altering an offset")
    equal(committed(group), {0: 2, 1: 4}, "offsets listed")

    def listed(**filters):
        result = admin.list_consumer_groups(**filters).result(30)
        equal(result.errors, [], "errors of ListGroups")
        return {g.group_id for g in result.valid}

    true(group in listed(), "group listed")
    true(group in listed(states={ConsumerGroupState.EMPTY}), "listed among the empty")
    true(group not in listed(states={ConsumerGroupState.STABLE}), "not listed among the stable")
    true(group not in listed(types={ConsumerGroupType.CONSUMER}), "not of the new protocol")
    equal(describe_group(group).state, ConsumerGroupState.EMPTY, "state described")
    first(admin.delete_consumer_groups([group]))
    true(group not in listed(), "deleted group not listed")
    call = lambda: first(admin.delete_consumer_groups([group]))
    refused(call, "GROUP_ID_NOT_FOUND", "deleting a group twice")


# --- Admin -------------------------------------------------------------------------------------


def configs_of(name, kind=ResourceType.TOPIC):
    return first(admin.describe_configs([ConfigResource(kind, name)]))


def topic_admin():
    name = topic("admin", partitions=3, retention_ms="3600000")
    listed = wait_for(
        lambda: (t := admin.list_topics(timeout=30).topics) and name in t and t, "topic listed"
    )
    equal(len(listed[name].partitions), 3, "partitions in the metadata")
    described = first(admin.describe_topics(TopicCollection([name])))
    equal([p.id for p in described.partitions], [0, 1, 2], "partitions")
    true(not described.is_internal, "not internal")
    true(str(described.topic_id) not in ("", "AAAAAAAAAAAAAAAAAAAAAA"), "topic id")
    for part in described.partitions:
        equal([n.id for n in part.isr], [part.leader.id], "in-sync replicas")
    configs = configs_of(name)
    equal(configs["retention.ms"].value, "3600000", "retention.ms")
    true(not configs["retention.ms"].is_default, "retention.ms is not the default")
    true(configs["segment.bytes"].is_default, "segment.bytes is the default")
    call = lambda: first(admin.create_topics([NewTopic(name, 1, 1)]))
    refused(call, "TOPIC_ALREADY_EXISTS", "creating a topic twice")
    call = lambda: first(admin.describe_topics(TopicCollection([checks.name("none")])))
    refused(call, "UNKNOWN_TOPIC_OR_PART", "describing a topic that does not exist")


def broker_configs():
    node = next(iter(admin.list_topics(timeout=30).brokers))
    configs = configs_of(str(node), ResourceType.BROKER)
    equal(configs["message.max.bytes"].value, "1048588", "message.max.bytes")
    true(int(configs["num.partitions"].value) >= 1, "num.partitions")


def create_partitions():
    name = topic("grow")
    first(admin.create_partitions([NewPartitions(name, 4)]))
    wait_for(
        lambda: len(first(admin.describe_topics(TopicCollection([name]))).partitions) == 4,
        "4 partitions",
    )
    send_numbers(name, 0, 8, 4)
    equal([len(p) for p in read_all(name, 4).values()], [2, 2, 2, 2], "records per partition")


def alter_configs_incremental():
    name = topic("alter-incremental", retention_ms="1000000", segment_ms="700000")

    def alter(op, key, value=None):
        entry = ConfigEntry(key, value, incremental_operation=op)
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        first(admin.incremental_alter_configs([resource]))

    alter(AlterConfigOpType.SET, "retention.ms", "2000000")
    alter(AlterConfigOpType.APPEND, "cleanup.policy", "compact")
    configs = wait_for(
        lambda: (c := configs_of(name))["cleanup.policy"].value != "delete" and c, "append seen"
    )
    equal(set(configs["cleanup.policy"].value.split(",")), {"delete", "compact"}, "after append")
    equal(configs["retention.ms"].value, "2000000", "after set")
    equal(configs["segment.ms"].value, "700000", "a key that was not altered")
    alter(AlterConfigOpType.SUBTRACT, "cleanup.policy", "compact")
    alter(AlterConfigOpType.DELETE, "retention.ms")
    configs = wait_for(
        lambda: (c := configs_of(name))["retention.ms"].is_default and c, "delete seen"
    )
    equal(configs["cleanup.policy"].value, "delete", "after subtract")
    equal(configs["retention.ms"].value, "604800000", "after delete")


def alter_configs_legacy():
    name = topic("alter-legacy", retention_ms="1000000", segment_ms="700000")
    resource = ConfigResource(ResourceType.TOPIC, name, set_config={"retention.ms": "2000000"})
    first(admin.alter_configs([resource]))
    wait_for(lambda: configs_of(name)["retention.ms"].value == "2000000", "the value is described")
    true(configs_of(name)["segment.ms"].is_default, "a key left out goes back to its default")
    bad = ConfigResource(ResourceType.TOPIC, name, set_config={"retention.ms": "soon"})
    refused(lambda: first(admin.alter_configs([bad])), "INVALID_CONFIG", "a bad value")


def delete_records():
    name = topic("delete-records")
    send_numbers(name, 0, 20, 1)
    deleted = first(admin.delete_records([TopicPartition(name, 0, 7)]))
    equal(deleted.low_watermark, 7, "low watermark")
    equal([m.offset() for m in read_all(name)[0]], list(range(7, 20)), "offsets left")
    call = lambda: first(admin.delete_records([TopicPartition(name, 0, 50)]))
    refused(call, "OFFSET_OUT_OF_RANGE", "deleting beyond the high watermark")


def list_offsets():
    name = topic("list-offsets")
    part = TopicPartition(name, 0)
    base = 1_700_000_000_000
    for i in range(10):
        send(name, [(0, None, b"%d" % i, [], base + i * 100)])
    for spec, want in [
        (OffsetSpec.earliest(), 0),
        (OffsetSpec.latest(), 10),
        (OffsetSpec.max_timestamp(), 9),
        (OffsetSpec.for_timestamp(base + 250), 3),
        (OffsetSpec.for_timestamp(base + 5000), -1),
    ]:
        for isolation in IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED:
            futures = admin.list_offsets({part: spec}, isolation_level=isolation)
            equal(first(futures).offset, want, f"offset of {spec} under {isolation}")


def describe_cluster():
    cluster = admin.describe_cluster().result(30)
    true(cluster.cluster_id, "cluster id")
    true(cluster.controller.id in [node.id for node in cluster.nodes], "controller is a node")


def delete_topic():
    name = topic("doomed", partitions=2)
    first(admin.delete_topics([name]))
    made_topics.remove(name)
    wait_for(lambda: name not in admin.list_topics(timeout=30).topics, "topic gone")
    call = lambda: first(admin.delete_topics([name]))
    refused(call, "UNKNOWN_TOPIC_OR_PART", "deleting a topic twice")


def main():
    for acks in (0, 1, "all"):
        checks.run(f"produce-acks-{acks}", lambda: produce_and_read(f"acks-{acks}", acks=acks))
    checks.run(
        "produce-idempotent", lambda: produce_and_read("idempotent", enable_idempotence=True)
    )
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        checks.run(
            f"codec-{codec}",
            lambda: produce_and_read(f"codec-{codec}", compression_codec=codec, linger_ms=50),
        )
    checks.run("null-header-value", null_header)
    checks.run("compacted-topic-needs-keys", compacted_needs_keys)
    checks.run("record-too-large", too_large)
    checks.run("order-with-several-in-flight", order_with_several_in_flight)
    checks.run("large-record", large_record)
    checks.run("log-append-time", log_append_time)
    checks.run("auto-create-topic", auto_create)
    checks.run("seek-pause-resume", seek_and_pause)
    checks.run("lag", lag)
    checks.run("many-partitions-classic", many_partitions, "classic")
    checks.run("many-partitions-consumer", many_partitions, "consumer")
    checks.run("topic-deleted-and-made-again", deleted_and_made_again)
    checks.run("group-classic-range", group_rebalance, "classic", "range")
    checks.run("group-classic-cooperative", group_rebalance, "classic", "cooperative-sticky")
    checks.run("group-consumer", group_rebalance, "consumer")
    checks.run("group-static-classic", static_members, "classic")
    checks.run("group-static-consumer", static_members, "consumer")
    checks.run("group-admin", group_admin)
    Transactions(BOOTSTRAP, checks, topic).run()
    checks.run("topic-admin", topic_admin)
    checks.run("broker-configs", broker_configs)
    checks.run("create-partitions", create_partitions)
    checks.run("alter-configs-incremental", alter_configs_incremental)
    checks.run("alter-configs-legacy", alter_configs_legacy)
    checks.run("delete-records", delete_records)
    checks.run("list-offsets", list_offsets)
    checks.run("describe-cluster", describe_cluster)
    checks.run("delete-topic", delete_topic)
    if made_topics and not KEEP:
        for future in admin.delete_topics(made_topics).values():
            future.result(30)
    checks.exit()


main()
