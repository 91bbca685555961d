"""Transactions through confluent-kafka (librdkafka), a part of smoke_confluent.py.

librdkafka speaks the first protocol of transactions (before KIP-890): partitions are added by name,
and the producer's epoch changes only with a new instance. Readers are part of each check: what
read_committed shows and what read_uncommitted shows, offset by offset where markers lie between.
"""

import random
import threading
import time

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Producer,
    TopicPartition,
)

from checks import equal, true, wait_for

COMMITTED, ALL = "read_committed", "read_uncommitted"


class Transactions:
    def __init__(self, bootstrap, checks, topic):
        """`topic(what, partitions, **configs)` makes a topic and returns its name."""
        self.bootstrap = bootstrap
        self.checks = checks
        self.topic = topic

    def run(self):
        for name, check in [
            ("txn-commit-and-abort", self.commit_and_abort),
            ("txn-all-or-nothing", self.all_or_nothing),
            ("txn-empty", self.empty),
            ("txn-large", self.large),
            ("txn-open-one-holds-back", self.open_one_holds_back),
            ("txn-read-from-the-middle", self.read_from_the_middle),
            ("txn-unstable-offsets", self.unstable_offsets),
            ("txn-zombie-is-fenced", self.zombie_is_fenced),
            ("txn-left-by-a-dead-instance", self.left_by_a_dead_instance),
            ("txn-timeout", self.timeout),
            ("txn-goes-on-after-abortable-error", self.goes_on_after_abortable_error),
            ("txn-many-producers", self.many_producers),
            ("txn-consume-transform-produce", self.consume_transform_produce),
        ]:
            self.checks.run(name, check)

    # --- Tools -----------------------------------------------------------------------------------

    def producer(self, what, **config):
        """A producer that has initialised its transactions, so that an older one is fenced."""
        config = {key.replace("_", "."): value for key, value in config.items()}
        p = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": self.checks.name(what),
                "transaction.timeout.ms": 60_000,
                "message.max.bytes": 2_000_000,
                **config,
            }
        )
        p.init_transactions(30)
        return p

    def consumer(self, group, isolation, **config):
        config = {key.replace("_", "."): value for key, value in config.items()}
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": isolation,
                **config,
            }
        )

    def read(self, name, isolation, partitions=1, start=OFFSET_BEGINNING):
        """What a reader sees: by partition, (offset, value) up to the end that it is told."""
        c = self.consumer(self.checks.name("unused"), isolation, enable_partition_eof=True,
                          fetch_wait_max_ms=50)
        try:
            ends = {
                p: c.get_watermark_offsets(TopicPartition(name, p), 30)[1]
                for p in range(partitions)
            }
            c.assign([TopicPartition(name, p, start) for p in range(partitions)])
            found = {p: [] for p in range(partitions)}
            left = {p for p, end in ends.items() if end > 0}
            deadline = time.monotonic() + 60
            while left:
                true(time.monotonic() < deadline, f"{name}: partitions {left} not read in 60 s")
                message = c.poll(0.5)
                if message is None:
                    continue
                p = message.partition()
                if not message.error():
                    # Another reader's end is not this one's: past it is another transaction.
                    if message.offset() < ends[p]:
                        found[p].append((message.offset(), message.value().decode()))
                elif message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                # The end of what is there now; the last records may be aborted, or markers.
                if message.error() and message.offset() >= ends[p]:
                    left.discard(p)
            return found
        finally:
            c.close()

    def values(self, name, isolation, partitions=1):
        found = self.read(name, isolation, partitions)
        return {p: [value for _, value in records] for p, records in found.items()}

    def ends(self, name, partition=0):
        """(last stable offset, high watermark)."""
        ends = []
        for isolation in COMMITTED, ALL:
            c = self.consumer(self.checks.name("unused"), isolation)
            ends.append(c.get_watermark_offsets(TopicPartition(name, partition), 30)[1])
            c.close()
        return tuple(ends)

    def stable(self, name, partitions=1):
        """Markers are written after a commit has been answered; waits for them."""
        for p in range(partitions):
            ends = lambda: self.ends(name, p)
            wait_for(lambda: len(set(ends())) == 1, f"nothing open in {name}-{p}", 60)

    def committed(self, group, *parts, isolation=COMMITTED, seconds=30):
        c = self.consumer(group, isolation)
        try:
            return [at.offset for at in c.committed(list(parts), seconds)]
        finally:
            c.close()

    def metadata(self, group):
        """What send_offsets_to_transaction is given for a group without members."""
        c = self.consumer(group, COMMITTED)
        metadata = c.consumer_group_metadata()
        return c, metadata

    # --- Checks ----------------------------------------------------------------------------------

    def commit_and_abort(self):
        name = self.topic("txn-commit")
        p = self.producer("txn-commit")
        want = []
        place = 0
        for turn, commit in enumerate([True, False, True, False, False, True]):
            p.begin_transaction()
            values = [f"{turn}-{i}" for i in range(5)]
            for value in values:
                p.produce(name, value, partition=0)
            equal(p.flush(30), 0, "records still in the producer's queue")
            equal(self.ends(name), (place, place + 5), "last stable and last offset, while open")
            equal(self.read(name, COMMITTED)[0], want, "read_committed, while open")
            equal(len(self.read(name, ALL)[0]), 5 * turn + 5, "read_uncommitted, while open")
            if commit:
                p.commit_transaction(30)
                want += [(place + i, value) for i, value in enumerate(values)]
            else:
                p.abort_transaction(30)
            self.stable(name)
            place += 6  # and the marker
            equal(self.ends(name), (place, place), f"ends after transaction {turn}")
            equal(self.read(name, COMMITTED)[0], want, f"read_committed after {turn}")
        everything = [f"{turn}-{i}" for turn in range(6) for i in range(5)]
        equal(self.values(name, ALL)[0], everything, "read_uncommitted")

    def all_or_nothing(self):
        one, two = self.topic("txn-one", 3), self.topic("txn-two", 2)
        group = self.checks.name("txn-whole")
        parts = [TopicPartition(one, 0), TopicPartition(two, 1)]
        p = self.producer("txn-whole")
        c, metadata = self.metadata(group)
        for turn, commit in enumerate([False, True, False, True]):
            before = self.committed(group, *parts)
            p.begin_transaction()
            for name, partitions in (one, 3), (two, 2):
                for i in range(12):
                    p.produce(name, f"{turn}-{i}", partition=i % partitions)
            offsets = [TopicPartition(part.topic, part.partition, 10 + turn) for part in parts]
            p.send_offsets_to_transaction(offsets, metadata, 30)
            if commit:
                p.commit_transaction(30)
            else:
                abort(p)
            self.stable(one, 3)
            self.stable(two, 2)
            want = [10 + turn] * 2 if commit else before
            equal(self.committed(group, *parts), want, f"committed offsets after {turn}")
        c.close()
        equal(before, [11, 11], "offsets of the second transaction, before the last")
        for name, partitions in (one, 3), (two, 2):
            got = self.values(name, COMMITTED, partitions)
            want = {
                p: [f"{turn}-{i}" for turn in (1, 3) for i in range(p, 12, partitions)]
                for p in range(partitions)
            }
            equal(got, want, f"records of {name}")

    def empty(self):
        name = self.topic("txn-empty")
        p = self.producer("txn-empty")
        for _ in range(3):
            p.begin_transaction()
            p.commit_transaction(30)
            p.begin_transaction()
            p.abort_transaction(30)
        p.begin_transaction()
        p.produce(name, "0", partition=0)
        p.commit_transaction(30)
        self.stable(name)
        equal(self.ends(name), (2, 2), "one record and its marker, of seven transactions")
        equal(self.read(name, COMMITTED)[0], [(0, "0")], "records")

    def large(self):
        name = self.topic("txn-large", 4)
        p = self.producer("txn-large", linger_ms=20, compression_codec="lz4")
        filler = "x" * 150
        for commit in False, True:
            p.begin_transaction()
            for i in range(40_000):
                while True:
                    try:
                        p.produce(name, f"{commit}-{i}-{filler}", partition=i % 4)
                        break
                    except BufferError:
                        p.poll(0.1)
            equal(p.flush(60), 0, "records still in the producer's queue")
            equal([self.ends(name, part)[0] for part in range(4)].count(0), 4 if not commit else 0,
                  "partitions of which nothing is stable yet")
            if commit:
                p.commit_transaction(60)
            else:
                p.abort_transaction(60)
            self.stable(name, 4)
        got = self.values(name, COMMITTED, 4)
        for part, values in got.items():
            want = [f"True-{i}-{filler}" for i in range(part, 40_000, 4)]
            true(values == want, f"partition {part}: {len(values)} records, the committed ones")

    def open_one_holds_back(self):
        name = self.topic("txn-open")
        first, second = self.producer("txn-open-1"), self.producer("txn-open-2")
        first.begin_transaction()
        first.produce(name, "first", partition=0)
        first.flush(30)
        second.begin_transaction()
        second.produce(name, "second", partition=0)
        second.commit_transaction(30)
        plain = Producer({"bootstrap.servers": self.bootstrap})
        plain.produce(name, "plain", partition=0)
        equal(plain.flush(30), 0, "the plain record is acknowledged")
        wait_for(lambda: self.ends(name) == (0, 4), "what is behind an open one is not stable")
        equal(self.read(name, COMMITTED)[0], [], "read_committed, while the first is open")
        equal(self.values(name, ALL)[0], ["first", "second", "plain"], "read_uncommitted")
        first.abort_transaction(30)
        self.stable(name)
        equal(self.values(name, COMMITTED)[0], ["second", "plain"], "once the first is aborted")

    def read_from_the_middle(self):
        name = self.topic("txn-middle")
        p = self.producer("txn-middle", linger_ms=100)
        for commit in True, False, True:
            p.begin_transaction()
            for i in range(10):
                p.produce(name, f"{commit}-{i}", partition=0)
            p.flush(30)
            (p.commit_transaction if commit else p.abort_transaction)(30)
            self.stable(name)
        # 0-9, marker at 10, aborted 11-20, marker at 21, 22-31, marker at 32.
        everything = [*range(10), *range(22, 32)]
        for start in [0, 5, 9, 10, 11, 15, 20, 21, 22, 27, 31, 32]:
            got = [offset for offset, _ in self.read(name, COMMITTED, start=start)[0]]
            want = [offset for offset in everything if offset >= start]
            equal(got, want, f"read from {start}")

    def unstable_offsets(self):
        name, group = self.topic("txn-unstable"), self.checks.name("txn-unstable")
        part = TopicPartition(name, 0)
        p = self.producer("txn-unstable")
        c, metadata = self.metadata(group)
        for commit, want in (True, 7), (False, 7):
            before = self.committed(group, part)
            p.begin_transaction()
            at = TopicPartition(name, 0, 7 if commit else 9)
            p.send_offsets_to_transaction([at], metadata, 30)
            equal(self.committed(group, part, isolation=ALL), before, "offset, not minding")
            try:
                got = self.committed(group, part, seconds=2)
                raise AssertionError(f"a stable offset while one is pending: {got}")
            except KafkaException as error:
                timed_out = error.args[0].code()
                equal(timed_out, KafkaError._TIMED_OUT, "why there is no stable offset")
            (p.commit_transaction if commit else p.abort_transaction)(30)
            equal(self.committed(group, part), [want], "offset afterwards")
        c.close()

    def zombie_is_fenced(self):
        name, group = self.topic("txn-zombie"), self.checks.name("txn-zombie")
        zombie = self.producer("txn-zombie")
        c, metadata = self.metadata(group)
        zombie.begin_transaction()
        zombie.produce(name, "zombie", partition=0)
        zombie.send_offsets_to_transaction([TopicPartition(name, 0, 5)], metadata, 30)
        equal(zombie.flush(30), 0, "the zombie's first record is acknowledged")
        heir = self.producer("txn-zombie")
        heir.begin_transaction()
        heir.produce(name, "heir", partition=0)
        for what, call in [
            ("a record", lambda: (zombie.produce(name, "late", partition=0), zombie.flush(10))),
            ("a commit", lambda: zombie.commit_transaction(30)),
        ]:
            try:
                call()
            except KafkaException as error:
                true(error.args[0].fatal(), f"{what} of the zombie fails for good: {error}")
                equal(error.args[0].code(), KafkaError._FENCED, f"why {what} failed")
            else:
                true(what != "a commit", "the zombie's commit was accepted")
        heir.commit_transaction(30)
        self.stable(name)
        equal(self.values(name, COMMITTED)[0], ["heir"], "read_committed")
        equal(self.committed(group, TopicPartition(name, 0)), [OFFSET_INVALID], "its offset")
        heir.begin_transaction()
        heir.produce(name, "again", partition=0)
        heir.commit_transaction(30)
        self.stable(name)
        equal(self.values(name, COMMITTED)[0], ["heir", "again"], "the heir goes on")
        c.close()

    def left_by_a_dead_instance(self):
        name = self.topic("txn-dead", 2)
        dead = self.producer("txn-dead")
        dead.begin_transaction()
        for p in range(2):
            dead.produce(name, "dead", partition=p)
        dead.flush(30)
        equal([self.ends(name, p)[0] for p in range(2)], [0, 0], "stable offsets, while open")
        # Nothing of it is closed. Its timeout is a minute: it is the new instance that aborts.
        began = time.monotonic()
        self.producer("txn-dead")
        self.stable(name, 2)
        true(time.monotonic() - began < 30, "a new instance ends what an old one has left open")
        equal(self.values(name, COMMITTED, 2), {0: [], 1: []}, "read_committed")

    def timeout(self):
        name = self.topic("txn-timeout")
        late = self.producer("txn-timeout", transaction_timeout_ms=2000)
        late.begin_transaction()
        late.produce(name, "late", partition=0)
        equal(late.flush(30), 0, "records still in the producer's queue")
        self.stable(name)
        equal(self.values(name, ALL)[0], ["late"], "read_uncommitted")
        try:
            late.commit_transaction(30)
        except KafkaException as error:
            true(not error.args[0].retriable(), f"a late commit is no use trying again: {error}")
        else:
            raise AssertionError("a commit after the timeout was accepted")
        equal(self.values(name, COMMITTED)[0], [], "read_committed after the late commit")
        p = self.producer("txn-timeout")
        p.begin_transaction()
        p.produce(name, "in time", partition=0)
        p.commit_transaction(30)
        self.stable(name)
        equal(self.values(name, COMMITTED)[0], ["in time"], "read_committed")

    def goes_on_after_abortable_error(self):
        name = self.topic("txn-small", 2, max_message_bytes="10000")
        p = self.producer("txn-small")
        attempts = 0
        for turn in range(3):
            p.begin_transaction()
            p.produce(name, f"doomed {turn}", partition=1)
            p.produce(name, "x" * 20_000, partition=0)
            try:
                p.commit_transaction(30)
            except KafkaException as error:
                true(error.args[0].txn_requires_abort(), f"it wants an abort: {error}")
            else:
                raise AssertionError("a transaction with a refused record was committed")
            p.abort_transaction(30)
            # The refused record leaves a gap in the sequence, which librdkafka may only find in the
            # next transaction; that one then wants an abort as well.
            while not self._committed_well(p, name, f"well {turn}"):
                attempts += 1
                true(attempts < 10, "the producer goes on")
        self.stable(name, 2)
        want = [f"well {turn}" for turn in range(3)]
        equal(self.values(name, COMMITTED, 2), {0: want, 1: want}, "read_committed")

    @staticmethod
    def _committed_well(p, name, value):
        p.begin_transaction()
        try:
            p.produce(name, value, partition=0)
            p.produce(name, value, partition=1)
            p.commit_transaction(30)
            return True
        except KafkaException as error:
            true(error.args[0].txn_requires_abort(), f"it wants an abort: {error}")
            p.abort_transaction(30)
            return False

    def many_producers(self):
        """Interleaved transactions of many producers: each reader sees the committed, whole."""
        name, count, turns = self.topic("txn-many", 3), 8, 15
        committed, errors = [[] for _ in range(count)], []

        def work(number):
            choice = random.Random(number)
            try:
                p = self.producer(f"txn-many-{number}")
                for turn in range(turns):
                    p.begin_transaction()
                    values = [f"{number}-{turn}-{i}" for i in range(choice.randint(1, 40))]
                    for i, value in enumerate(values):
                        p.produce(name, value, partition=i % 3)
                        if choice.random() < 0.1:
                            p.flush(30)
                    if choice.random() < 0.6:
                        p.commit_transaction(30)
                        committed[number] += values
                    else:
                        abort(p)
            except Exception as error:  # handed to the check's own thread
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        if errors:
            raise errors[0]
        self.stable(name, 3)
        got = self.values(name, COMMITTED, 3)
        values = [value for part in got.values() for value in part]
        equal(len(values), len(set(values)), "records that are there once")
        equal(sorted(values), sorted(sum(committed, [])), "records of committed transactions")
        for part, records in got.items():
            for number in range(count):
                mine = [value for value in records if value.startswith(f"{number}-")]
                sent = [v for v in committed[number] if int(v.rsplit("-", 1)[1]) % 3 == part]
                equal(mine, sent, f"order of producer {number} in partition {part}")

    # --- Consume, transform, produce -------------------------------------------------------------

    def consume_transform_produce(self):
        source, sink = self.topic("txn-source", 4), self.topic("txn-sink", 4)
        group, total = self.checks.name("txn-loop"), 800
        feeder = Producer({"bootstrap.servers": self.bootstrap})
        for i in range(total):
            feeder.produce(source, str(i), partition=i % 4)
        equal(feeder.flush(30), 0, "the input is acknowledged")
        parts = [TopicPartition(source, p) for p in range(4)]
        workers = [_Worker(self, group, source, sink, 1)]
        wait_for(lambda: workers[0].transactions >= 3, "the first worker has begun")
        # A second member: partitions move from a worker to another between transactions.
        workers.append(_Worker(self, group, source, sink, 2))
        done = [total // 4] * 4
        wait_for(
            lambda: [w.check() for w in workers]
            and self.committed(group, *parts, isolation=ALL) == done,
            "everything is processed",
            60,
        )
        for worker in workers:
            worker.stop()
        self.stable(sink, 4)
        equal(self.committed(group, *parts), done, "committed offsets")
        got = self.values(sink, COMMITTED, 4)
        for part, values in got.items():
            want = [f"{i * 2}" for i in range(part, total, 4)]
            equal(values, want, f"output in partition {part}")
        true(sum(worker.aborted for worker in workers) > 0, "some transactions were aborted")
        everything = self.values(sink, ALL, 4).values()
        true(sum(map(len, everything)) > total, "and have left records behind")


def abort(p):
    """Aborts what was sent. What librdkafka has not sent yet it throws away with its sequence numbers,
    so that its next transaction fails; that is a check of its own."""
    p.flush(30)
    p.abort_transaction(30)


class _Worker:
    """Doubles numbers from a topic to another, with its offsets in the same transactions."""

    def __init__(self, checks, group, source, sink, number):
        self.transactions, self.aborted, self.error = 0, 0, None
        self._checks, self._sink, self._number = checks, sink, number
        self._stopping = False
        self._consumer = checks.consumer(group, COMMITTED, session_timeout_ms=10_000)
        self._read = []
        self._consumer.subscribe([source], on_revoke=self._revoked)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _revoked(self, _consumer, _partitions):
        # Whoever is assigned next begins at what is committed, and reads these again.
        self._read.clear()

    def _work(self):
        choice = random.Random(self._number)
        try:
            p = self._checks.producer(f"txn-loop-{self._number}")
            while not self._stopping:
                if self._poll(choice.randint(1, 30)):
                    self._one_transaction(p, choice.random() < 0.25)
        except Exception as error:  # handed to the check's own thread
            self.error = error
        finally:
            self._consumer.close()

    def _poll(self, count):
        """Whether there is anything to process."""
        self._read.clear()
        for _ in range(count):
            message = self._consumer.poll(0.1)
            if message is None:
                break
            if message.error():
                raise KafkaException(message.error())
            self._read.append(message)
        return bool(self._read)

    def _one_transaction(self, p, abort):
        ends = {}
        p.begin_transaction()
        for message in self._read:
            value = str(int(message.value()) * 2)
            p.produce(self._sink, value, partition=message.partition())
            ends[message.partition()] = message.offset() + 1
        positions = [TopicPartition(message.topic(), part, end) for part, end in ends.items()]
        try:
            p.send_offsets_to_transaction(positions, self._consumer.consumer_group_metadata(), 30)
            if not abort:
                p.commit_transaction(30)
                self.transactions += 1
                return
            p.flush(30)
        except KafkaException as error:
            # A rebalance came first: the offsets are of a generation that is over.
            if not error.args[0].txn_requires_abort():
                raise
        p.abort_transaction(30)
        self.aborted += 1
        self._rewind()

    def _rewind(self):
        """Back to what is committed: what was read in vain is read again."""
        for at in self._consumer.committed(self._consumer.assignment(), 30):
            at.offset = max(at.offset, 0)
            try:
                self._consumer.seek(at)
            except KafkaException as error:
                # It was revoked meanwhile; its new owner begins at what is committed.
                if error.args[0].code() != KafkaError._STATE:
                    raise

    def check(self):
        if self.error:
            raise self.error
        return True

    def stop(self):
        self._stopping = True
        self._thread.join(30)
        true(not self._thread.is_alive(), "a worker stops")
        self.check()
