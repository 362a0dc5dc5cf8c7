"""Known peers under a flood: 50,000 forged frames a second at one node, half of them packets,
half of them handshake messages, on a real log.

One core does everything. The node opens packets of known peers as fast as it can, and takes
forged frames in at their pace, in the batches in which a network brings them. Each round
measures the peers' rate without and with the flood, one right after the other. Seconds are of
processor time, the log's thread included, so that other work on the machine does not count.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from pqc_iiot import Node, _core
from pqc_iiot.bench import Row, row
from pqc_iiot.session import Send, frames
from pqc_iiot.session.frames import Kind

FLOOD, BATCH, TOPIC = 50_000, 128, "plant/line1/temperature"
PROVIDER = "software:insecure-plaintext-keys"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def measure_flood(_: Path | None = None, seconds: float = 1.0, rounds: int = 7) -> list[Row]:
    """The ratio of the rates, and what memory grew by."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            Node.create(folder / "plc", name="plc", provider=PROVIDER) as plc,
            Node.create(folder / "sensor", name="sensor", provider=PROVIDER) as sensor,
        ):
            plc.peers.add_approved(sensor.bundle)
            sensor.peers.add_approved(plc.bundle)
            return _rows(plc, sensor, seconds, rounds)


def _rows(plc: Node, sensor: Node, seconds: float, rounds: int) -> list[Row]:
    now = time.monotonic()
    sensor.sessions.send(now, b"", to="plc", context=TOPIC)
    _exchange(plc, sensor, now)
    sealed = sensor.sessions.seal(now, bytes(64), to="plc", context=TOPIC)
    assert sealed is not None
    packets, handshakes = _forged(plc, sensor, sealed[0])
    ratios, rates, grown = [], [], []
    _rate(plc, sensor, seconds, (packets, handshakes), FLOOD)
    for _ in range(rounds):
        alone, _ = _rate(plc, sensor, seconds, (packets, handshakes), 0)
        before = resident()
        under, sent = _rate(plc, sensor, seconds, (packets, handshakes), FLOOD)
        grown.append((resident() - before) / 1024)
        if sent < 0.95 * FLOOD * seconds:
            raise RuntimeError(f"{sent} forged frames instead of {FLOOD * seconds:.0f}")
        ratios.append(under / alone)
        rates.append(under)
    return [
        row(f"packets of known peers under {FLOOD:,} forged frames a second", rates, "1/s"),
        row("  … against the rate without them", ratios, "x", (">=", 0.9)),
        row("  … memory grown meanwhile", grown, "KiB", ("<=", 1024)),
    ]


def _exchange(plc: Node, sensor: Node, now: float) -> None:
    moving = True
    while moving:
        moving = False
        for node, to in ((plc, sensor), (sensor, plc)):
            for each in node.sessions.take():
                if isinstance(each, Send):
                    moving = True
                    to.sessions.receive(now, each.frame, each.context)


def _forged(plc: Node, sensor: Node, packet: bytes) -> tuple[list[bytes], list[bytes]]:
    """Packets of no session and in the session's name; handshakes of strangers, in the
    peer's name, and in the middle of one."""
    message_1 = _core.HandshakeInitiator(
        plc.bundle.suite.edhoc,
        b"evil",
        frames.credential(sensor.bundle),
        frames.credential(plc.bundle),
    ).message_1
    packets = [b"\1" + os.urandom(len(packet) - 1) for _ in range(2048)]
    # In the session's name: at its place, in the steps to come, too far ahead.
    for number in (b"\x03\xff\xff", b"\x00\x7f\xff", b"\x00\xbf\xff", b"\x0f\x00\x00"):
        forged = packet[:5] + number
        packets += [forged + os.urandom(len(packet) - 8) for _ in range(512)]
    begin = Kind.MESSAGE_1
    handshakes = [frames.make(begin, os.urandom(8), message_1) for _ in range(1024)]
    handshakes += [frames.make(begin, sensor.bundle.kid, message_1)] * 1024
    handshakes += [bytes((3 + n % 3,)) + os.urandom(700) for n in range(1024)]
    random.shuffle(packets)
    random.shuffle(handshakes)
    return packets, handshakes


def _rate(
    plc: Node,
    sensor: Node,
    seconds: float,
    forged: tuple[list[bytes], list[bytes]],
    flood: int,
) -> tuple[float, int]:
    """Packets of the known peer opened a second, and forged frames taken in."""
    packets, handshakes = (cycle(each) for each in forged)
    topics = [TOPIC] * BATCH
    payload = bytes(64)
    opened = sent = 0
    spent = 0.0
    begin = time.process_time()
    while (elapsed := time.process_time() - begin - spent) < seconds:
        # The sensor's work is not the node's: its time does not count.
        at = time.process_time()
        now = time.monotonic()
        made: list[bytes] = []
        while len(made) < BATCH:
            sealed = sensor.sessions.seal_at_ease(now, payload, "plc", TOPIC)
            sealed = sealed or sensor.sessions.seal(now, payload, to="plc", context=TOPIC)
            if sealed is None:
                sensor.sessions.want(now, to="plc")
                _exchange(plc, sensor, now)
                continue
            made.append(sealed[0])
        spent += time.process_time() - at
        opened += sum(
            isinstance(each, tuple) for each in plc.sessions.receive_many(now, topics, made)
        )
        due = int(elapsed * flood) - sent
        while due >= BATCH:
            plc.sessions.receive_many(now, topics, list(islice(packets, BATCH // 2)) * 2)
            due -= BATCH
            sent += BATCH
            if due >= BATCH:
                plc.sessions.receive_inbox(now, list(islice(handshakes, BATCH)))
                due -= BATCH
                sent += BATCH
        at = time.process_time()
        plc.sessions.tick(now)
        sensor.sessions.tick(now)
        _exchange(plc, sensor, now)
        spent += time.process_time() - at
    return opened / seconds, sent
