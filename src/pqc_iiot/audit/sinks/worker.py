"""Brings the log to one sink, in a thread of its own, through outages of any length."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..head import Head
from ..log import AuditLog
from .base import Sink, error_name, error_text
from .spool import Cursor, LogReader

_logger = logging.getLogger("pqc_iiot.audit.sinks")

_RETRY_FIRST, _RETRY_LAST = 0.5, 60.0  # seconds between attempts
_REPORT: Final = 60.0  # seconds between two events about the same sink
_LOOK: Final = 1.0  # seconds until records that are not there are looked for again


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How a sink does. `delivered` is the `seq` that it has come to, `waiting` how many
    records are behind that, `lost` how many it will never get, `failures` how many attempts
    failed in a row, `error` why the last one did ("" if it did not), `idle` the seconds
    since the last success (-1: none yet)."""

    name: str
    url: str
    format: str
    delivered: int
    waiting: int
    lost: int
    failures: int
    error: str
    idle: float


class Worker:
    """One sink's thread. `log` is where the records come from and where outages are noted."""

    def __init__(self, sink: Sink, log: AuditLog, path: Path, cursor: Path) -> None:
        self._sink = sink
        self._log = log
        self._reader = LogReader(path)
        self._cursor_path = cursor
        self._cursor = Cursor.read(cursor)
        self._failures = 0
        self._error = ""
        self._last_success: float | None = None
        self._unreported_failures = self._unreported_losses = 0
        self._failure_noted = False
        self._report_due = 0.0
        self._closing = threading.Event()
        self._changed = threading.Condition()
        name = f"pqc-iiot-sink-{self._sink.config.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def status(self) -> SinkStatus:
        """How the sink does now."""
        config, last = self._sink.config, self._last_success
        head, delivered = self._log.durable(), self._delivered()
        return SinkStatus(
            name=config.name,
            url=config.url,
            format=config.format,
            delivered=delivered,
            waiting=max(0, head.seq - delivered),
            lost=self._cursor.lost,
            failures=self._failures,
            error=self._error,
            idle=-1.0 if last is None else time.monotonic() - last,
        )

    def wait(self, seq: int, timeout: float) -> bool:
        """Whether the sink has got everything up to `seq`, within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._delivered() >= seq, timeout)

    def stop(self) -> None:
        """Ask the thread to end: it tries once more to deliver what waits."""
        self._closing.set()
        self._log.wake()

    def join(self, timeout: float) -> bool:
        """Wait for the end; False if it has not come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _delivered(self) -> int:
        cursor = self._cursor
        return cursor.seq if cursor.log == self._log.durable().log else 0

    # Everything below runs in the thread.

    def _run(self) -> None:
        self._resume()
        while True:
            closing = self._closing.is_set()
            head = self._log.durable(self._delivered(), 3600.0, self._closing)
            if head.log and head.log != self._cursor.log:
                self._reader.close()
                self._cursor = Cursor(head.log)  # another log: from its start
            if head.seq > self._cursor.seq and self._attempt(head):
                continue
            if closing:
                break
            if self._failures:
                self._closing.wait(self._delay())
        self._reader.close()
        self._sink.close()

    def _resume(self) -> None:
        """Skip what the sink itself knows to have, if that is of this log."""
        try:
            own = self._sink.delivered()
        except OSError:
            return  # the first attempt will say why
        head = self._log.durable(0, _LOOK, self._closing)
        if head.log == self._cursor.log and self._cursor.seq < own <= head.seq:
            self._cursor = replace(self._cursor, seq=own)

    def _attempt(self, head: Head) -> bool:
        cursor = self._cursor
        try:
            records = self._reader.read(cursor.seq, head.seq, self._sink.batch)
            if not records:  # moved away: the next record tells how many
                self._closing.wait(_LOOK)
                return False
            refused = self._sink.deliver(records)
        except OSError as error:
            self._note_failure(error)
            return False
        seq = records[-1].seq
        # A sink that is new begins with what the log still has.
        begin = cursor.seq or records[0].seq - 1
        lost = seq - begin - len(records) + refused
        self._cursor = Cursor(cursor.log, seq, cursor.lost + lost)
        self._note_success(lost)
        return True

    def _note_failure(self, error: OSError) -> None:
        self._reader.close()
        self._failures += 1
        self._unreported_failures += 1
        self._error = error_text(error)
        if not self._failure_noted and time.monotonic() >= self._report_due:
            name = self._sink.config.name
            _logger.warning("audit sink %s: %s; will try again", name, self._error)
            self._log.note("sink_failed", sink=name, error=error_name(error))
            self._failure_noted = True

    def _note_success(self, lost: int) -> None:
        self._failures, self._error, self._last_success = 0, "", time.monotonic()
        self._unreported_losses += lost
        try:
            self._cursor.write(self._cursor_path)
        except OSError as error:  # it goes on: a restart would repeat some records
            _logger.warning("audit sink: %s cannot be written: %s", self._cursor_path, error)
        self._report()
        with self._changed:
            self._changed.notify_all()

    def _report(self) -> None:
        """Note a recovery, and what was lost, but not again and again: a note is a record
        too, and would be the reason for the next one."""
        now, lost = time.monotonic(), self._unreported_losses
        if not self._failure_noted and (not lost or now < self._report_due):
            return
        sink = self._sink.config.name
        if self._failure_noted:
            self._log.note("sink_recovered", sink=sink, count=self._unreported_failures, lost=lost)
        else:
            self._log.note("sink_lost", sink=sink, lost=lost)
        self._failure_noted = False
        self._unreported_failures = self._unreported_losses = 0
        self._report_due = now + _REPORT

    def _delay(self) -> float:
        """Back-off with jitter, so that a fleet does not come back all at once."""
        longest = min(_RETRY_LAST, _RETRY_FIRST * 2.0 ** min(self._failures - 1, 10))
        return max(self._sink.pause, longest * (0.5 + secrets.randbelow(512) / 1024))
