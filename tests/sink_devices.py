"""Logs with sinks at work, for tests; and what came to a sink that is a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pqc_iiot.audit import AuditLog
from pqc_iiot.audit.segments import Retention, log_files
from pqc_iiot.audit.sinks import AuditSettings, SinkConfig, Sinks, worker

PEER = "0123456789abcdef" * 4


class Device:
    """A log with sinks at work, as a device has it."""

    def __init__(
        self, folder: Path, *configs: SinkConfig, retention: Retention | None = None
    ) -> None:
        self.folder = folder
        self.path = folder / "audit.log"
        self.log = AuditLog(self.path, device="press-4", retention=retention)
        settings = AuditSettings(configs, heartbeat=0)
        self.sinks = Sinks(settings, self.log, self.path, folder)

    def emit(self, count: int) -> None:
        for sequence in range(count):
            self.log.emit("refused_replay", peer=PEER, sequence=sequence, context="line1/temp")
            if sequence % 500 == 499:
                assert self.log.flush()
        assert self.log.flush()

    def delivered(self, name: str) -> int:
        assert self.log.flush()
        seq = self.log.durable().seq
        assert self.sinks.wait(name, seq, 60), self.sinks.status()
        return seq

    def status(self, name: str) -> worker.SinkStatus:
        (found,) = [status for status in self.sinks.status() if status.name == name]
        return found


@pytest.fixture
def open_devices() -> Iterator[list[Device]]:
    devices: list[Device] = []
    yield devices
    for device in devices:
        device.log.close()


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RETRY_FIRST", 0.02)
    monkeypatch.setattr(worker, "_RETRY_LAST", 0.1)
    monkeypatch.setattr(worker, "_REPORT", 0.0)


def file_sink(folder: Path, options: str = "", **more: str) -> SinkConfig:
    (folder / "out").mkdir(exist_ok=True)
    return SinkConfig("file", f"file://{folder}/out/siem.log{options}", **more)


def file_seqs(folder: Path) -> list[int]:
    written = b"".join(file.read_bytes() for file in log_files(folder / "out/siem.log"))
    return [json.loads(line)["seq"] for line in written.split(b"\n")[:-1]]  # the whole ones
