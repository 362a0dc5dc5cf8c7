"""Sinks: where the records of the log go besides the log, several at once.

Each sink has a thread that reads the log forwards from a durable cursor (`spool.py`),
writes the records in the sink's format, and delivers them. A sink that fails is tried
again with back-off for as long as it takes; it holds up neither the device nor another
sink. What left the log meanwhile is counted and noted in the log.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..clock import clock_state
from ..log import AuditLog
from .base import Sink
from .config import MAX_SETTINGS, SETTINGS_FILE, AuditSettings, SinkConfig
from .worker import SinkStatus, Worker

__all__ = [
    "MAX_SETTINGS",
    "SETTINGS_FILE",
    "AuditSettings",
    "Sink",
    "SinkConfig",
    "SinkStatus",
    "Sinks",
    "cursor_file",
    "make_sink",
]

CLOSE_TIMEOUT: Final = 3.0
"""Seconds that sinks get to deliver what waits when the device stops."""


def make_sink(config: SinkConfig) -> Sink:
    """The sink that a configuration describes."""
    match config.scheme:
        case "file":
            from .file import RotatingFile

            return RotatingFile(config)
        case "journal":
            from .journal import Journal

            return Journal(config)
        case "otlp+http" | "otlp+https":
            from .otlp import Otlp

            return Otlp(config)
    from . import syslog

    by_scheme: dict[str, Callable[[SinkConfig], Sink]] = {
        "syslog+udp": syslog.SyslogUdp,
        "syslog+tcp": syslog.SyslogTcp,
        "syslog+tls": syslog.SyslogTls,
    }
    return by_scheme[config.scheme](config)


def cursor_file(folder: Path, name: str) -> Path:
    """Where a sink keeps how far it has come."""
    return folder / f"sink-{name}.cursor"


class Sinks:
    """Every sink of a device, at work until `close`; and the heartbeat.

    `folder` is where the cursors are kept, `path` the log file that `log` writes. Closing
    the log closes the sinks first.
    """

    def __init__(self, settings: AuditSettings, log: AuditLog, path: Path, folder: Path) -> None:
        self._log = log
        self._workers = [
            Worker(make_sink(config), log, path, cursor_file(folder, config.name))
            for config in settings.sinks
        ]
        self._closing = threading.Event()
        log.before_close = self.close
        self._heart = threading.Thread(
            target=self._beat, args=(settings.heartbeat,), name="pqc-iiot-beat", daemon=True
        )
        if settings.heartbeat and self._workers:
            self._heart.start()

    def status(self) -> tuple[SinkStatus, ...]:
        """How each sink does now."""
        return tuple(worker.status() for worker in self._workers)

    def wait(self, name: str, seq: int, timeout: float) -> bool:
        """Whether a sink has got the log up to `seq`, within `timeout` seconds."""
        (worker,) = (each for each in self._workers if each.status().name == name)
        return worker.wait(seq, timeout)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Deliver what is on disk and end; whether all has ended within `timeout` seconds.

        What was not delivered stays in the log, for the next start.
        """
        self._closing.set()
        if self._heart.is_alive():
            self._heart.join(timeout)
        for worker in self._workers:
            worker.stop()
        end = time.monotonic() + timeout
        ended = [worker.join(max(0.0, end - time.monotonic())) for worker in self._workers]
        return all(ended)

    def _beat(self, interval: float) -> None:
        while not self._closing.wait(interval):
            self._log.note("audit_heartbeat", **dataclasses.asdict(clock_state()))
