"""Sinks of every kind: their cursors in the log, outages, and bounds."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pqc_iiot import errors
from pqc_iiot.audit import AuditLog, AuditRecord, tail, verify
from pqc_iiot.audit.limit import Limiter
from pqc_iiot.audit.segments import Retention, closed_files, log_files
from pqc_iiot.audit.sinks import AuditSettings, SinkConfig, Sinks, cursor_file, worker
from pqc_iiot.audit.sinks.journal import Journal
from pqc_iiot.audit.sinks.spool import Cursor, LogReader
from receivers import wait_until
from sink_devices import PEER, Device, file_seqs, file_sink, open_devices, short_delays

__all__ = ["open_devices", "short_delays"]


# The cursor and the log


def test_a_sink_that_comes_later_gets_what_the_log_still_has(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    with AuditLog(tmp_path / "audit.log", retention=Retention(4096, 2)) as log:
        for sequence in range(200):
            log.emit("refused_replay", sequence=sequence)
            if sequence % 8 == 7:
                log.flush()
    first = tail(tmp_path / "audit.log", 1000)[0].seq
    assert first > 1
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(first, last + 1))
    assert device.status("file").lost == 0


def test_what_leaves_the_log_in_an_outage_is_counted(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    config = file_sink(tmp_path)
    retention = Retention(8192, 2)
    device = Device(tmp_path, config, retention=retention)
    device.emit(10)
    before = device.delivered("file")
    (tmp_path / "out").rename(tmp_path / "away")
    device.log.emit("refused_replay", sequence=1)
    device.log.close()
    device = Device(tmp_path, config, retention=retention)
    open_devices.append(device)
    (tmp_path / "away").rename(tmp_path / "out")
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))  # nothing had left it yet

    (tmp_path / "out").rename(tmp_path / "away")
    for _ in range(100):
        device.emit(8)
    spool = sum(file.stat().st_size for file in log_files(device.path))
    assert spool < 3 * (8192 + 1024 * 8)
    kept_from = tail(device.path, 10_000)[0].seq
    assert kept_from > last
    (tmp_path / "away").rename(tmp_path / "out")
    end = device.delivered("file")
    lost = device.status("file").lost
    assert lost > 0
    found = file_seqs(tmp_path)
    assert len(found) + lost == end
    assert found == sorted(set(found))
    assert device.log.flush()
    (recovered,) = [
        record
        for record in tail(device.path, 10_000)
        if record.event == "sink_recovered" and record.detail["lost"]
    ]
    assert recovered.detail["lost"] == lost
    assert before < end


def test_another_log_is_delivered_from_its_start(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    config = file_sink(tmp_path)
    device = Device(tmp_path, config)
    device.emit(30)
    device.log.close()
    for file in tmp_path.glob("audit.*"):
        file.unlink() if file.is_file() else None
    (tmp_path / "out/siem.log").unlink()
    open_devices.append(device := Device(tmp_path, config))
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"log":1,"seq":2,"lost":3}', b"\xff" * 5000])
def test_a_damaged_cursor_repeats_and_loses_nothing(tmp_path: Path, junk: bytes) -> None:
    cursor_file(tmp_path, "file").write_bytes(junk)
    assert Cursor.read(cursor_file(tmp_path, "file")) == Cursor()


def test_the_reader_follows_the_log_through_its_files(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    reader = LogReader(path)
    found: list[int] = []
    with AuditLog(path, retention=Retention(4096, 1000)) as log:
        for sequence in range(600):
            log.emit("refused_replay", sequence=sequence)
            if sequence % 7 == 6:
                assert log.flush()
                upto = log.durable().seq
                while not found or found[-1] < upto:
                    records = reader.read(found[-1] if found else 0, upto, 5)
                    assert records
                    found += [record.seq for record in records]
    reader.close()
    assert len(closed_files(path)) > 20
    assert found == list(range(1, found[-1] + 1))


def test_nothing_leaves_before_it_is_on_disk(tmp_path: Path, open_devices: list[Device]) -> None:
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    for _ in range(200):
        device.emit(3)
        seqs = file_seqs(tmp_path)
        assert not seqs or seqs[-1] <= device.log.durable().seq


# All at once


def test_all_sinks_fail_at_once_and_nobody_waits(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    dead = (
        "syslog+tcp://127.0.0.1:1", "syslog+udp://127.0.0.1:1", "otlp+http://127.0.0.1:1",
        "journal:/nowhere", "file:///nowhere/at/all",
    )  # fmt: skip
    configs = [SinkConfig(f"dead-{i}", url) for i, url in enumerate(dead)]
    open_devices.append(device := Device(tmp_path, *configs, retention=Retention(65536, 3)))
    for _ in range(20):
        device.emit(250)
    wait_until(lambda: all(s.failures > 2 for s in device.sinks.status()), "all have failed")
    assert device.log.stats().dropped == 0
    assert sum(file.stat().st_size for file in log_files(device.path)) < 4 * 65536 + 500_000
    events = Counter(record.event for record in tail(device.path, 10_000))
    assert events["sink_failed"] <= len(dead)
    assert verify(device.path).ok
    assert device.log.close(60)


def test_a_slow_sink_holds_up_no_other(tmp_path: Path, open_devices: list[Device]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes, and never answers
        url = f"syslog+tcp://127.0.0.1:{silent.getsockname()[1]}"
        open_devices.append(
            device := Device(tmp_path, SinkConfig("slow", url), file_sink(tmp_path))
        )
        device.emit(100)
        last = device.delivered("file")
        assert file_seqs(tmp_path) == list(range(1, last + 1))
        assert device.status("slow").delivered == 0


def test_back_off_grows_and_has_jitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    one = worker.Worker.__new__(worker.Worker)
    one._sink = Journal(SinkConfig("journal", "journal:/nowhere"))
    for failures, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (10_000, 60.0)):
        one._failures = failures
        delays = {one._delay() for _ in range(50)}
        assert len(delays) > 10
        assert all(longest / 2 <= delay <= longest for delay in delays)
    one._sink.pause = 120.0
    assert one._delay() == 120.0


def test_a_fork_leaves_the_sinks_to_its_parent(tmp_path: Path, open_devices: list[Device]) -> None:
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    device.emit(10)
    child = os.fork()
    if not child:
        device.log.emit("stopped")
        device.log.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    device.emit(10)
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))


def test_the_heartbeat_tells_the_clocks_state(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    settings = AuditSettings((file_sink(tmp_path),), heartbeat=1)
    sinks = Sinks(replace(settings, heartbeat=0.05), log, tmp_path / "audit.log", tmp_path)  # type: ignore[arg-type]

    def beats() -> list[AuditRecord]:
        found = tail(tmp_path / "audit.log", 100)
        return [record for record in found if record.event == "audit_heartbeat"]

    wait_until(lambda: len(beats()) > 2, "the heart beats")
    log.close()
    assert sinks.status()[0].waiting <= 1
    assert beats()[0].detail["clock"] in ("synchronised", "unsynchronised", "unknown")
    assert int(beats()[0].detail["clock_error"]) >= 0


# A flood


def test_a_flood_holds_its_bounds_with_sinks_at_work(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, limiter=Limiter(), retention=Retention(65536, 2))
    config = file_sink(tmp_path, "?max_bytes=65536&keep=2")
    sinks = Sinks(AuditSettings((config,), heartbeat=0), log, path, tmp_path)
    slowest = 0.0
    for number in range(100_000):
        start = time.perf_counter()
        log.emit_error(errors.InvalidFrameError("junk"), length=number, context="x" * 200)
        slowest = max(slowest, time.perf_counter() - start)
    log.emit("peer_revoked", peer=PEER)
    log.close()
    assert slowest < 5.0  # it never waits for a disk or a network; this is no measurement
    assert log.stats().dropped == 0
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.log")) < 400_000
    events = Counter(record.event for record in tail(path, 100_000))
    assert events["peer_revoked"] == 1
    counted = sum(
        int(record.detail["count"])
        for record in tail(path, 100_000)
        if record.event == "events_suppressed"
    )
    assert counted + events["refused_invalid_frame"] == 100_000
    assert sinks.status()[0].lost == 0
