"""Smoke of kafka-python against any broker: `smoke_kafka_python.py BOOTSTRAP`.

Covers what its users do: produce at every acks and codec, read back, groups with rebalances and
committed offsets, static members, and the admin client, legacy AlterConfigs included. It does not
cover transactions, nor KIP-848 (kafka-python has the classic group protocol only).
"""

import os
import random
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    MemberToRemove,
    OffsetSpec,
)
from kafka.structs import OffsetAndMetadata
import kafka.errors as errors

from checks import Checks, awkward_records, equal, true, wait_for

BOOTSTRAP = sys.argv[1]
KEEP = os.environ.get("ONCELOG_SMOKE_KEEP") == "1"
checks = Checks("kafka-python")
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
made_topics = []


def topic(what, partitions=1, **configs):
    name = checks.name(what)
    configs = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics(
        {name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}},
        wait_for_metadata=True,
    )
    made_topics.append(name)
    return name


def producer(**config):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, max_request_size=1_048_576, **config)


def read_all(name, partitions=1, **config):
    """Everything in a topic, by assign from the beginning, as lists per partition."""
    parts = [TopicPartition(name, p) for p in range(partitions)]
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, enable_auto_commit=False, **config)
    try:
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)
        found = {part.partition: [] for part in parts}
        deadline = time.monotonic() + 30
        while any(consumer.position(part) < ends[part] for part in parts):
            true(time.monotonic() < deadline, f"{name} not read to its end within 30 s")
            for part, messages in consumer.poll(timeout_ms=500).items():
                found[part.partition].extend(messages)
        return found
    finally:
        consumer.close()


def same_records(messages, sent):
    equal(len(messages), len(sent), "records read")
    equal([m.offset for m in messages], list(range(len(sent))), "offsets")
    for message, (key, value, headers, timestamp) in zip(messages, sent):
        equal(message.key, key, "key")
        equal(message.value, value, "value")
        equal(list(message.headers), headers, "headers")
        equal(message.timestamp, timestamp, "timestamp")
        equal(message.timestamp_type, 0, "timestamp type (0 is CreateTime)")


# --- Producing and reading ---------------------------------------------------------------------


def produce_and_read(what, **config):
    name = topic(what)
    # The client itself refuses a record with neither key nor value.
    sent = [record for record in awkward_records() if record[:2] != (None, None)]
    p = producer(**config)
    futures = [
        p.send(name, key=k, value=v, headers=h, partition=0, timestamp_ms=t) for k, v, h, t in sent
    ]
    p.flush(30)
    offsets = [future.get(30).offset for future in futures]
    if config.get("acks") == 0:
        wait_for(
            lambda: admin.list_partition_offsets(
                {TopicPartition(name, 0): OffsetSpec.LATEST}
            )[TopicPartition(name, 0)].offset
            == len(sent),
            "all records of an acks=0 producer in the log",
        )
    else:
        equal(offsets, list(range(len(sent))), "acknowledged offsets")
    p.close()
    same_records(read_all(name)[0], sent)


def many_in_order():
    name = topic("order", partitions=3)
    p = producer(linger_ms=5, compression_type="lz4", max_in_flight_requests_per_connection=5)
    for i in range(3000):
        p.send(name, key=b"%d" % (i % 7), value=b"%d" % i)
    p.flush(30)
    p.close()
    found = read_all(name, partitions=3)
    equal(sum(len(part) for part in found.values()), 3000, "records read")
    place = {}
    for part, messages in found.items():
        equal([m.offset for m in messages], list(range(len(messages))), "offsets without gaps")
        for key in {m.key for m in messages}:
            equal(place.setdefault(key, part), part, "the partition of one key")
            values = [int(m.value) for m in messages if m.key == key]
            equal(values, list(range(values[0], 3000, 7)), f"order of key {key}")


def too_large():
    name = topic("small", max_message_bytes="10000")
    p = producer(acks="all")
    try:
        p.send(name, value=b"x" * 20_000, partition=0).get(30)
        raise AssertionError("a record above max.message.bytes was accepted")
    except errors.MessageSizeTooLargeError:
        pass
    p.close()
    p = producer(acks="all")  # the idempotent producer that was refused stays in its error
    equal(p.send(name, value=b"fits", partition=0).get(30).offset, 0, "offset after the refusal")
    p.close()


def log_append_time():
    name = topic("append-time", message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    p = producer()
    p.send(name, value=b"v", partition=0, timestamp_ms=1000).get(30)
    p.close()
    message = read_all(name)[0][0]
    equal(message.timestamp_type, 1, "timestamp type (1 is LogAppendTime)")
    true(before - 1000 <= message.timestamp <= before + 60_000, "timestamp is the broker's")


def offsets_by_time():
    name = topic("times")
    part = TopicPartition(name, 0)
    p = producer()
    for i in range(10):
        p.send(name, value=b"%d" % i, partition=0, timestamp_ms=1_700_000_000_000 + i * 100)
        p.flush(30)
    p.close()
    c = KafkaConsumer(bootstrap_servers=BOOTSTRAP)
    hit = c.offsets_for_times({part: 1_700_000_000_250})[part]
    equal((hit.offset, hit.timestamp), (3, 1_700_000_000_300), "first at or after the time")
    equal(c.offsets_for_times({part: 1_800_000_000_000})[part], None, "after the last record")
    equal(c.beginning_offsets([part])[part], 0, "beginning")
    equal(c.end_offsets([part])[part], 10, "end")
    c.close()
    specs = {OffsetSpec.EARLIEST: 0, OffsetSpec.LATEST: 10, OffsetSpec.MAX_TIMESTAMP: 9}
    for spec, want in specs.items():
        got = admin.list_partition_offsets({part: spec})[part].offset
        equal(got, want, f"offset of {spec.name}")


def large_record():
    name = topic("huge", max_message_bytes="8000000")
    value = random.Random(11).randbytes(6_000_000)
    p = KafkaProducer(bootstrap_servers=BOOTSTRAP, max_request_size=8_000_000)
    equal(p.send(name, value=value, partition=0).get(60).offset, 0, "offset of 6 MB")
    p.close()
    [message] = read_all(name, max_partition_fetch_bytes=1000, fetch_max_bytes=1000)[0]
    true(message.value == value, "the value of a record that is larger than a fetch may be")


def poll(consumer, count):
    """The next `count` records or a few more, in the order that they came."""
    found, deadline = [], time.monotonic() + 30
    while len(found) < count:
        true(time.monotonic() < deadline, f"{len(found)} of {count} records within 30 s")
        for messages in consumer.poll(timeout_ms=200, max_records=10).values():
            found.extend(messages)
    return found


def seek_and_pause():
    name = topic("seek", partitions=2)
    send_numbers(name, 0, 40, 2)
    zero, one = TopicPartition(name, 0), TopicPartition(name, 1)
    c = KafkaConsumer(bootstrap_servers=BOOTSTRAP, enable_auto_commit=False)
    c.assign([zero])
    for at in (15, 3, 19, 0):
        c.seek(zero, at)
        equal(c.position(zero), at, "position")
        equal(poll(c, 1)[0].offset, at, "the record sought")
    c.seek_to_end(zero)
    equal(c.position(zero), 20, "the end")
    c.close()
    # A new one: kafka-python keeps what it had fetched of a paused partition, and does not go on
    # with it once the partition is resumed.
    c = KafkaConsumer(bootstrap_servers=BOOTSTRAP, enable_auto_commit=False)
    c.assign([zero, one])
    c.pause(zero)
    c.seek_to_beginning(zero, one)
    odd = poll(c, 20)
    equal({m.partition for m in odd}, {1}, "partitions read while the other is paused")
    equal(c.poll(timeout_ms=300), {}, "records while paused")
    c.resume(zero)
    equal([int(m.value) for m in poll(c, 20)], list(range(0, 40, 2)), "once resumed")
    c.close()


def lag():
    name, group = topic("lag"), checks.name("lag")
    send_numbers(name, 0, 30, 1)
    part = TopicPartition(name, 0)
    c = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    c.assign([part])
    read = len(poll(c, 10))
    c.commit()
    equal(c.highwater(part), 30, "high watermark that the fetch brought")
    equal(c.end_offsets([part])[part] - c.committed(part), 30 - read, "lag")
    c.close()
    admin.delete_groups([group])


def many_partitions():
    name, group = topic("many", partitions=200), checks.name("many")
    send_numbers(name, 0, 1000, 200)
    c = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    subscribe(c, name)
    found = poll(c, 1000)
    equal(sorted(int(m.value) for m in found), list(range(1000)), "records read")
    true(all(int(m.value) % 200 == m.partition for m in found), "each in its partition")
    c.commit()
    c.close()
    offsets = admin.list_group_offsets(group)[group]
    committed = {tp.partition: at.offset for tp, at in offsets.items()}
    equal(committed, {p: 5 for p in range(200)}, "committed offsets")
    admin.delete_groups([group])
    # Even where topics are kept: so many files would be all that is left to look at.
    admin.delete_topics([name])
    made_topics.remove(name)


def deleted_and_made_again():
    name = topic("again", partitions=1)
    p = producer(metadata_max_age_ms=500)
    equal(p.send(name, value=b"1", partition=0).get(30).offset, 0, "offset in the first topic")
    admin.delete_topics([name])
    made_topics.remove(name)
    wait_for(lambda: name not in admin.list_topics(), "topic gone")
    topic("again", partitions=3)
    wait_for(lambda: len(p.partitions_for(name)) == 3, "the producer sees the new topic")
    equal(p.send(name, value=b"2", partition=2).get(30).offset, 0, "offset in the second topic")
    p.close()
    equal([len(part) for part in read_all(name, 3).values()], [0, 0, 1], "records of the second")


# --- Groups ------------------------------------------------------------------------------------


def subscribe(consumer, name):
    """kafka-python joins before it knows the topic's partitions and again right after, and now and
    then does nothing any more after that (3.0.12; every request has been answered by then)."""
    consumer.partitions_for_topic(name)
    consumer.subscribe([name])


class Member:
    """A group member on its own thread; what it was assigned and what it read."""

    def __init__(self, group, name, instance=None):
        self.records, self._assigned, self.error = [], None, None
        self.stopping = False
        self.consumer = KafkaConsumer(
            bootstrap_servers=BOOTSTRAP,
            group_id=group,
            group_instance_id=instance,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=500,
            metadata_max_age_ms=5_000,
        )
        subscribe(self.consumer, name)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        try:
            while not self.stopping:
                polled = self.consumer.poll(timeout_ms=100)
                for messages in polled.values():
                    self.records.extend(messages)
                if polled:
                    self._commit()
                self._assigned = {tp.partition for tp in self.consumer.assignment()}
        except Exception as error:
            self.error = error
        finally:
            self.consumer.close()

    @property
    def assigned(self):
        if self.error:
            raise self.error
        return self._assigned

    def _commit(self):
        try:
            self.consumer.commit()
        except (errors.CommitFailedError, errors.RebalanceInProgressError):
            pass  # a rebalance came first; what was read is read again

    def stop(self):
        self.stopping = True
        self.thread.join(30)
        true(not self.thread.is_alive(), "member stops")
        if self.error:
            raise self.error


def send_numbers(name, start, count, partitions):
    p = producer()
    for i in range(start, start + count):
        p.send(name, value=b"%d" % i, partition=i % partitions)
    p.flush(30)
    p.close()


def numbers(*members):
    return sorted(int(m.value) for member in members for m in member.records)


def group_rebalance():
    name, group = topic("group", partitions=4), checks.name("group")
    send_numbers(name, 0, 100, 4)
    a = Member(group, name)
    wait_for(lambda: a.assigned == {0, 1, 2, 3}, "the first member has every partition")
    wait_for(lambda: len(a.records) == 100, "the first member reads everything")
    b = Member(group, name)
    wait_for(
        lambda: a.assigned and b.assigned and len(a.assigned) == len(b.assigned) == 2,
        "two partitions for each of two members",
    )
    equal(a.assigned | b.assigned, {0, 1, 2, 3}, "partitions owned")

    # A member that notices a change of the topic just then joins once more.
    def is_stable():
        described = admin.describe_groups([group])[group]
        return described["group_state"] == "Stable" and len(described["members"]) == 2

    wait_for(is_stable, "a stable group of two")
    send_numbers(name, 100, 100, 4)
    wait_for(lambda: set(numbers(a, b)) == set(range(200)), "the second hundred is read")
    b.stop()
    wait_for(lambda: a.assigned == {0, 1, 2, 3}, "the leaver's partitions come back")
    a.stop()
    committed = admin.list_group_offsets(group)[group]
    equal(
        {tp.partition: at.offset for tp, at in committed.items()},
        {p: 50 for p in range(4)},
        "committed offsets",
    )
    send_numbers(name, 200, 20, 4)
    again = Member(group, name)
    wait_for(lambda: len(again.records) >= 20, "the restarted member reads on")
    time.sleep(0.5)
    again.stop()
    equal(numbers(again), list(range(200, 220)), "only what came after the commit")
    admin.delete_groups([group])


def commit_details():
    name, group = topic("commit", partitions=2), checks.name("commit")
    send_numbers(name, 0, 10, 2)
    part = TopicPartition(name, 0)
    c = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=group, enable_auto_commit=False)
    c.assign([part])
    equal(c.committed(part), None, "committed before any commit")
    c.commit({part: OffsetAndMetadata(3, "where I was", -1)})
    equal(c.committed(part), 3, "committed")
    equal(c.committed(part, metadata=True).metadata, "where I was", "commit metadata")
    equal(c.committed(TopicPartition(name, 1)), None, "the other partition")
    equal(next(c).offset, 3, "position taken from the commit")
    c.close()
    admin.delete_groups([group])


def static_members():
    name, group = topic("static", partitions=4), checks.name("static")
    a, b = Member(group, name, "one"), Member(group, name, "two")
    wait_for(
        lambda: a.assigned and b.assigned and len(a.assigned) == len(b.assigned) == 2,
        "two static members share the partitions",
    )
    members = admin.describe_groups([group])[group]["members"]
    equal({m["group_instance_id"] for m in members}, {"one", "two"}, "instance ids")
    before, ids = set(a.assigned), {m["member_id"] for m in members}
    b_before = set(b.assigned)
    a.stop()
    back = Member(group, name, "one")
    wait_for(lambda: back.assigned == before, "the same instance gets its partitions back")
    equal(b.assigned, b_before, "the other member keeps its own")
    now = {m["member_id"] for m in admin.describe_groups([group])[group]["members"]}
    equal(len(ids & now), 1, "one member id unchanged, one replaced")
    back.stop()
    b.stop()
    removed = admin.remove_group_members(
        group, [MemberToRemove(None, group_instance_id=i) for i in ("one", "two")]
    )
    equal({e.__name__ for e in removed.values()}, {"NoError"}, "static members removed by the admin")
    wait_for(
        lambda: admin.describe_groups([group])[group]["group_state"] == "Empty", "group is empty"
    )
    admin.delete_groups([group])


def group_admin():
    name, group = topic("group-admin", partitions=2), checks.name("group-admin")
    send_numbers(name, 0, 10, 2)
    zero, one = TopicPartition(name, 0), TopicPartition(name, 1)
    altered = admin.alter_group_offsets(
        group, {zero: OffsetAndMetadata(2, "m", -1), one: OffsetAndMetadata(4, "", -1)}
    )
    equal({e.__name__ for e in altered.values()}, {"NoError"}, "offsets altered")
    offsets = admin.list_group_offsets(group)[group]
    equal({tp: at.offset for tp, at in offsets.items()}, {zero: 2, one: 4}, "offsets listed")
    listed = {g["group_id"]: g for g in admin.list_groups()}
    true(group in listed, "group listed")
    states = {g["group_id"] for g in admin.list_groups(states_filter=["Empty"])}
    true(group in states, "group listed among the Empty")
    states = {g["group_id"] for g in admin.list_groups(states_filter=["Stable"])}
    true(group not in states, "group not listed among the Stable")
    deleted = admin.delete_group_offsets(group, [zero])
    equal(deleted[zero].__name__, "NoError", "offset deleted")
    offsets = admin.list_group_offsets(group)[group]
    equal([tp for tp in offsets if offsets[tp].offset >= 0], [one], "offsets left")
    equal(admin.delete_groups([group]), {group: "OK"}, "group deleted")
    true(group not in {g["group_id"] for g in admin.list_groups()}, "deleted group not listed")
    again = admin.delete_groups([group])
    true("GroupIdNotFound" in again[group], f"a second delete is refused, not: {again}")


# --- Admin -------------------------------------------------------------------------------------


def configs_of(name):
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    found = admin.describe_configs([resource], config_filter="all")
    return {key: entry["value"] for key, entry in found["topic"][name].items()}


def topic_admin():
    name = topic("admin", partitions=3, retention_ms="3600000", cleanup_policy="compact,delete")
    true(name in admin.list_topics(), "topic listed")
    [described] = admin.describe_topics([name])
    equal(len(described["partitions"]), 3, "partitions")
    for part in described["partitions"]:
        true(part["leader_id"] >= 0, "a leader")
        equal(part["replica_nodes"], [part["leader_id"]], "replicas")
        equal(part["isr_nodes"], [part["leader_id"]], "in-sync replicas")
    paged = admin.describe_topic_partitions([name], response_partition_limit=2)
    equal(len(paged["topics"][0]["partitions"]), 2, "first page of DescribeTopicPartitions")
    rest = admin.describe_topic_partitions([name], cursor=paged["next_cursor"])
    equal(len(rest["topics"][0]["partitions"]), 1, "second page of DescribeTopicPartitions")
    configs = configs_of(name)
    equal(configs["retention.ms"], "3600000", "retention.ms")
    equal(configs["cleanup.policy"], "compact,delete", "cleanup.policy")
    equal(configs["max.message.bytes"], "1048588", "the default of max.message.bytes")
    try:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
        raise AssertionError("a topic was created twice")
    except errors.TopicAlreadyExistsError:
        pass
    for bad, error in [
        ({"num_partitions": 0, "replication_factor": 1}, errors.InvalidPartitionsError),
        ({"num_partitions": 1, "replication_factor": 5}, errors.InvalidReplicationFactorError),
        ({"configs": {"no.such.key": "1"}}, errors.InvalidConfigurationError),
        ({"configs": {"retention.ms": "soon"}}, errors.InvalidConfigurationError),
    ]:
        try:
            admin.create_topics({checks.name("bad"): bad})
            raise AssertionError(f"accepted: {bad}")
        except error:
            pass
    try:
        admin.create_topics({"no spaces": {}})
        raise AssertionError("accepted a bad topic name")
    except errors.InvalidTopicError:
        pass
    admin.create_topics({checks.name("dry"): {"num_partitions": 2}}, validate_only=True)
    true(checks.name("dry") not in admin.list_topics(), "validate_only creates nothing")


def create_partitions():
    name = topic("grow", partitions=1)
    admin.create_partitions({name: 4})
    wait_for(lambda: len(admin.describe_topics([name])[0]["partitions"]) == 4, "4 partitions")
    send_numbers(name, 0, 8, 4)
    equal([len(part) for part in read_all(name, 4).values()], [2, 2, 2, 2], "records per partition")
    try:
        admin.create_partitions({name: 2})
        raise AssertionError("a topic was made smaller")
    except errors.InvalidPartitionsError:
        pass


def alter_configs(incremental):
    kind = "incremental" if incremental else "legacy"
    name = topic(f"alter-{kind}", retention_ms="1000000", segment_ms="700000")
    resource = ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "2000000"})
    altered = admin.alter_configs([resource], incremental=incremental)
    equal(altered["topic"][name], "OK", "alter")
    wait_for(lambda: configs_of(name)["retention.ms"] == "2000000", "the new value described")
    equal(configs_of(name)["segment.ms"], "700000", "a key that was not altered")
    resource = ConfigResource(ConfigResourceType.TOPIC, name, ["retention.ms"])
    reset = admin.reset_configs([resource], incremental=incremental)
    equal(reset["topic"][name], "OK", "reset")
    wait_for(lambda: configs_of(name)["retention.ms"] == "604800000", "the default described")
    equal(configs_of(name)["segment.ms"], "700000", "a key that was not reset")
    resource = ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "soon"})
    refused = admin.alter_configs([resource], incremental=incremental)["topic"][name]
    true("InvalidConfig" in refused or "40" in refused, f"a bad value is refused, not: {refused}")


def delete_records():
    name = topic("delete-records")
    part = TopicPartition(name, 0)
    send_numbers(name, 0, 20, 1)
    equal(admin.delete_records({part: 7})[part]["low_watermark"], 7, "low watermark")
    messages = read_all(name)[0]
    equal([m.offset for m in messages], list(range(7, 20)), "offsets left")
    equal(admin.delete_records({part: -1})[part]["low_watermark"], 20, "low watermark at -1")
    equal(read_all(name)[0], [], "nothing is left")
    p = producer()
    equal(p.send(name, value=b"next", partition=0).get(30).offset, 20, "offsets go on")
    p.close()


def describe_cluster():
    cluster = admin.describe_cluster()
    true(cluster["cluster_id"], "cluster id")
    true(len(cluster["brokers"]) >= 1, "brokers")
    ids = [broker["broker_id"] for broker in cluster["brokers"]]
    true(cluster["controller_id"] in ids, "the controller is a broker")
    name = topic("log-dirs", partitions=2)
    send_numbers(name, 0, 10, 2)
    sizes = {}
    for broker in admin.describe_log_dirs([name]):
        for log_dir in broker["log_dirs"]:
            equal(log_dir["error_code"], 0, "log dir error")
            for entry in log_dir["topics"]:
                if entry["name"] == name:
                    for part in entry["partitions"]:
                        sizes[part["partition_index"]] = part["partition_size"]
    equal(sorted(sizes), [0, 1], "partitions in log dirs")
    true(all(size > 0 for size in sizes.values()), f"sizes above 0: {sizes}")


def delete_topic():
    name = topic("doomed", partitions=2)
    send_numbers(name, 0, 10, 2)
    admin.delete_topics([name])
    made_topics.remove(name)
    wait_for(lambda: name not in admin.list_topics(), "topic gone")
    try:
        admin.delete_topics([name])
        raise AssertionError("a topic was deleted twice")
    except errors.UnknownTopicOrPartitionError:
        pass
    name = topic("doomed", partitions=1)
    equal(read_all(name)[0], [], "a topic made again under the same name is empty")


def main():
    for acks in (0, 1, "all"):
        checks.run(
            f"produce-acks-{acks}",
            lambda: produce_and_read(f"acks-{acks}", acks=acks, enable_idempotence=False),
        )
    checks.run("produce-idempotent", lambda: produce_and_read("idem", enable_idempotence=True))
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        checks.run(
            f"codec-{codec}",
            lambda: produce_and_read(f"codec-{codec}", compression_type=codec, linger_ms=50),
        )
    checks.run("order-per-key", many_in_order)
    checks.run("record-too-large", too_large)
    checks.run("large-record", large_record)
    checks.run("log-append-time", log_append_time)
    checks.run("offsets-by-time", offsets_by_time)
    checks.run("seek-pause-resume", seek_and_pause)
    checks.run("lag", lag)
    checks.run("many-partitions", many_partitions)
    checks.run("topic-deleted-and-made-again", deleted_and_made_again)
    checks.run("group-rebalance-and-resume", group_rebalance)
    checks.skip("group-consumer", "kafka-python has no consumer protocol (KIP-848)")
    checks.run("group-commit", commit_details)
    checks.run("group-static-members", static_members)
    checks.run("group-admin", group_admin)
    checks.run("topic-admin", topic_admin)
    checks.run("create-partitions", create_partitions)
    checks.run("alter-configs-incremental", alter_configs, True)
    checks.run("alter-configs-legacy", alter_configs, False)
    checks.run("delete-records", delete_records)
    checks.run("describe-cluster-and-log-dirs", describe_cluster)
    checks.run("delete-topic", delete_topic)
    if made_topics and not KEEP:
        admin.delete_topics(made_topics)
    admin.close()
    checks.exit()


main()
