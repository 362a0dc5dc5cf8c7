"""Reading the end of a log, and following it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from os import truncate
from pathlib import Path

import pytest

from pqc_iiot.audit import AuditLog, AuditRecord, follow, tail
from pqc_iiot.errors import StateError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    with AuditLog(path) as log:
        yield log


def sequences(records: list[AuditRecord]) -> list[int]:
    return [record.seq for record in records]


def test_tail_gives_the_last_records(path: Path, log: AuditLog) -> None:
    for _ in range(5000):  # several blocks
        log.emit("refused_duplicate", context="x" * 100)
    assert log.flush()
    for n in (0, 1, 2, 700, 5001):
        assert sequences(tail(path, n)) == list(range(5001 - n + 1, 5002))
    assert len(tail(path, 100_000)) == 5001


@pytest.mark.parametrize("garbage", [b"torn", b"a\n\nb\n", b"x" * 100_000, b"x" * 100_000 + b"\n"])
def test_tail_leaves_out_what_is_no_record(path: Path, garbage: bytes) -> None:
    with AuditLog(path) as log:
        log.emit("started")
    with path.open("ab") as file:
        file.write(garbage)
    assert sequences(tail(path, 100)) == [1, 2]


def test_a_log_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        tail(tmp_path / "missing.log")
    with pytest.raises(StateError):
        next(follow(tmp_path / "missing.log"))


def test_follow_gives_what_comes(path: Path, log: AuditLog) -> None:
    stop = threading.Event()
    log.emit("started")
    log.flush()
    records = follow(path, 1, stop=stop, interval=0.001)
    assert next(records).event == "started"
    log.emit("stopped")
    assert next(records).event == "stopped"
    stop.set()
    assert list(records) == []


def test_follow_waits_for_the_end_of_a_line(path: Path, log: AuditLog) -> None:
    log.flush()
    line = path.read_bytes()
    copy = path.with_name("copy.log")
    copy.write_bytes(line[:50])
    stop = threading.Event()
    stop.set()
    assert list(follow(copy, 5, stop=stop)) == []
    found = follow(copy, 5, interval=0.001)
    timer = threading.Timer(0.01, copy.write_bytes, [line])
    timer.start()
    assert next(found).seq == 1
    timer.join()


@pytest.mark.parametrize(
    "change",
    [lambda path: path.rename(path.with_name("audit.log.1")), lambda path: truncate(path, 0)],
)
def test_follow_goes_on_in_the_new_file(
    path: Path, log: AuditLog, change: Callable[[Path], None]
) -> None:
    for _ in range(5):
        log.emit("started")
    log.flush()
    records = follow(path, 1, interval=0.001)
    assert next(records).event == "started"
    change(path)
    log.emit("stopped")
    assert [next(records).event, next(records).event] == ["audit_rotated", "stopped"]


def test_opening_is_recorded_without_further_events(path: Path, log: AuditLog) -> None:
    give_up = threading.Event()
    timer = threading.Timer(10, give_up.set)
    timer.start()
    assert next(follow(path, 1, stop=give_up, interval=0.001)).event == "audit_opened"
    timer.cancel()
