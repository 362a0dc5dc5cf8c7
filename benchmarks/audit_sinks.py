"""What refusals cost: the event of one of them, and a flood of them beside the main job."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from unittest import mock

from pqc_iiot.audit import AuditLog
from pqc_iiot.audit.limit import Limiter
from pqc_iiot.audit.sinks import AuditSettings, SinkConfig, Sinks
from pqc_iiot.bench import BATCH, CONTEXT, PAYLOAD, Row, pair, row, timed
from pqc_iiot.errors import ReplayError
from pqc_iiot.message import Incoming
from pqc_iiot.node import Node

FLOOD = 1_000_000
"""Refusals in a minute."""
PER_MICROSECOND = FLOOD / 60e6


def measure_sinks(folder: Path, rounds: int = 40) -> list[Row]:
    """The cost of a refusal's event on the caller, and a flood of refusals: what it leaves
    of the main job, and what it leaves behind."""
    return [
        *_measure_event(folder / "event", rounds),
        *_measure_main_job(folder / "job", 4 * rounds),
        *_measure_remains(folder / "remains"),
    ]


def _measure_event(folder: Path, rounds: int) -> list[Row]:
    """Refused replays with their events and without, in turns; recorded ones, for what the
    limit keeps out costs less."""
    recorded: list[float] = []
    suppressed: list[float] = []
    with pair(folder) as (sender, receiver):
        replays = _frames(sender, BATCH + 1)
        receiver.open_many(replays[BATCH:])

        def open_all() -> float:
            cost = timed(lambda: receiver.open_many(replays[:BATCH]), 1) / BATCH
            receiver.audit.flush()
            return cost

        for _ in range(rounds):
            with mock.patch.object(Node, "_refused", _nothing):
                without = open_all()
            with mock.patch.object(receiver.audit, "_limiter", None):
                recorded.append(open_all() - without)
            suppressed.append(open_all() - without)
    return [
        row("event of one refused frame, on the caller", recorded, "µs", ("<=", 15)),
        row("  … beyond the limit", suppressed, "µs"),
    ]


def _measure_main_job(folder: Path, rounds: int) -> list[Row]:
    """Valid frames alone, and with as many junk frames and replays between them as a flood
    would bring in the time that the bar allows; in turns. In processor time of the whole
    process, log and sinks included: on one core that is the rate, whatever else runs."""
    ratio: list[float] = []
    with pair(folder) as (sender, receiver), _sinks(receiver.audit, folder / "b"):
        frames = _frames(sender, BATCH)
        receiver.open_many(frames)
        junk = [Incoming(bytes(200), CONTEXT)] * (BATCH - 1)
        attack = [each for both in zip(junk, frames[:-1], strict=True) for each in both] * 16
        for _ in range(rounds):
            frames = _frames(sender, 2 * BATCH)
            alone = _cpu(receiver, frames[:BATCH])
            batch = _mixed(frames[BATCH:], attack[: round(PER_MICROSECOND * alone / 0.9)])
            ratio.append(alone / _cpu(receiver, batch))
    return [row("main job in a flood of 1,000,000 refusals a minute", ratio, "x", (">=", 0.9))]


def _measure_remains(folder: Path) -> list[Row]:
    """A whole flood, as fast as it goes: disk and memory."""
    folder.mkdir()
    log = AuditLog(folder / "audit.log", device="receiver", limiter=Limiter())
    errors = [ReplayError("old", peer=f"{peer:064x}") for peer in range(5000)]
    with log, _sinks(log, folder):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(FLOOD):
            log.emit_error(errors[number % 5000], sequence=number, context=CONTEXT)
        log.flush()
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        dropped = log.stats().dropped
    return [
        row("1,000,000 refusals: log and sinks on disk", [size / 1e6], "MB", ("<=", 16)),
        row("  … memory more", [more / 1024], "MiB", ("<=", 16)),
        row("  … events dropped", [float(dropped)], "", ("<=", 0)),
    ]


def _mixed(frames: list[Incoming], others: list[Incoming]) -> list[Incoming]:
    """Both lists in one, each in its order and evenly spread."""
    tagged = [(i / len(frames), frame) for i, frame in enumerate(frames)]
    tagged += [(i / len(others), frame) for i, frame in enumerate(others)]
    return [frame for _, frame in sorted(tagged, key=itemgetter(0))]


def _cpu(receiver: Node, batch: list[Incoming]) -> float:
    """Microseconds of processor time to open frames."""
    start = time.process_time_ns()
    receiver.open_many(batch)
    return (time.process_time_ns() - start) / 1000


def _nothing(*_: object) -> None:
    """In the place of a refusal's event."""


def _frames(sender: Node, count: int) -> list[Incoming]:
    return [
        Incoming(sender.seal(PAYLOAD, to="receiver", context=CONTEXT), CONTEXT)
        for _ in range(count)
    ]


@contextmanager
def _sinks(log: AuditLog, folder: Path) -> Iterator[None]:
    """A file, and a server that is not there."""
    logging.getLogger("pqc_iiot").addHandler(logging.NullHandler())
    settings = AuditSettings(
        (
            SinkConfig("file", f"file://{folder}/siem.out", format="ocsf"),
            SinkConfig("dead", "syslog+tcp://127.0.0.1:1"),
        )
    )
    sinks = Sinks(settings, log, folder / "audit.log", folder)
    try:
        yield
    finally:
        sinks.close()
