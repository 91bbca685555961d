"""The frame that the Python smoke scripts share: one printed line per check, and the records.

Every check prints exactly one line, which `cargo xtask test` counts:

    ok NAME
    FAIL NAME: why
    skip NAME: reason

It deliberately knows no Kafka client. A check that fails does not stop those after it, so each
check has to make what it needs; names carry a random part so that one broker can be used for ever.
"""

import os
import random
import sys
import time
import traceback
import uuid

ONLY = os.environ.get("ONCELOG_SMOKE_ONLY", "")  # only checks with this in their name
RUN = uuid.uuid4().hex[:8]


class Skip(Exception):
    """Raised by a check that cannot run here; the message is the reason."""


class Checks:
    def __init__(self, client):
        self.client = client
        self.failed = 0

    def name(self, what):
        """A topic or group name that no earlier run has used."""
        return f"smoke-{self.client}-{RUN}-{what}"

    def run(self, name, check, *args):
        if ONLY not in name:
            return
        started = time.monotonic()
        try:
            check(*args)
        except Skip as reason:
            print(f"skip {name}: {reason}", flush=True)
        except Exception as error:  # any failure of the client is this check's failure
            self.failed += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {name}: {why} (at {frame.name}:{frame.lineno})", flush=True)
        else:
            print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)

    def skip(self, name, reason):
        print(f"skip {name}: {reason}", flush=True)

    def exit(self):
        sys.stdout.flush()
        sys.exit(1 if self.failed else 0)


def equal(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: got {shorten(got)}, want {shorten(want)}")


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def shorten(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


def wait_for(condition, what, seconds=30):
    """Polls `condition` until it holds; its last answer is returned."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def awkward_records():
    """Records as (key, value, headers, timestamp in ms): each shape that codecs get wrong."""
    base = 1_700_000_000_000
    noise = random.Random(7).randbytes(900_000)  # does not compress
    shapes = [
        (b"key", b"value", []),
        (None, b"no key", []),
        (b"tombstone", None, []),
        (b"", b"", []),
        (None, None, []),
        (b"headers", b"v", [("h", b"1"), ("other", b"\x00\xff"), ("h", b"2"), ("h", b"1")]),
        (b"empty header", b"v", [("", b""), ("k", b"")]),
        ("schlüssel ✓".encode(), bytes(range(256)), [("ключ", "значение".encode())]),
        (b"large", noise, [("size", b"900000")]),
        (b"zeros", bytes(300_000), []),
        (b"last", b"end", []),
    ]
    return [(k, v, h, base + i * 1000) for i, (k, v, h) in enumerate(shapes)]
