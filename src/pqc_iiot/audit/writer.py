"""The thread behind a log: chains events, writes them, makes them durable, has them signed, and
counts what it could not write."""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections import Counter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from ..errors import StateError
from .catalogue import EVENTS, Severity, Value
from .file import Entry, LogFile, make_entry
from .head import Head
from .limit import Limiter
from .notary import Notary
from .record import NO_HASH
from .segments import Retention

_logger = logging.getLogger("pqc_iiot.audit")

_BATCH: Final = 1024  # records per write at most
_SYNC_URGENT: Final = 0.05  # seconds from one fsync to the next while urgent events come
_SYNC_LAZY: Final = 1.0  # the same, and for the head file, while other events come
_RETRY_FIRST, _RETRY_LAST = 0.1, 5.0  # seconds between attempts while the disk fails

_URGENT: Final = frozenset(
    event.name for event in EVENTS.values() if event.severity >= Severity.HIGH
)


class SignRequest(threading.Event):
    """A barrier that wants a checkpoint of everything in front of it."""


class Writer:
    """Writes what is `put`, in that order, until `end`. Barriers, which are events, are set
    once everything in front of them is on disk.

    `limiter`, if there is one, is asked when to record what it kept out. Opening raises as
    `LogFile` does, but for a disk that fails: that is tried again.
    """

    def __init__(
        self,
        path: Path,
        device: str,
        capacity: int,
        limiter: Limiter | None,
        retention: Retention,
    ) -> None:
        self._path, self._device, self._capacity = path, device, capacity
        self._limiter, self._retention = limiter, retention
        self.notary = Notary(path)
        self.accepting = True
        self.written = self.dropped = self.failed_writes = 0
        self.last_error = ""
        self._durable = threading.Condition()
        self._queue: SimpleQueue[Entry | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()  # re-entrant: a signal handler may emit too
        self._drops: Counter[str] = Counter()  # by event, not yet recorded
        self._outage = 0  # failed attempts, not yet recorded
        self._sync_due = self._head_due = math.inf  # on the monotonic clock
        self._synced = self._head_written = -math.inf
        self._settles = True  # the last attempt to make it durable worked
        self._closing = threading.Event()
        self._last_item: threading.Event | None = None
        self._file: LogFile | None = None
        try:
            self._file = self._open_file()
        except OSError as error:
            self._note_failure(error)
        self.wake()  # to record the opening
        self._thread = threading.Thread(target=self._run, name="pqc-iiot-audit", daemon=True)
        self._thread.start()

    # For callers, in any thread

    def put(self, entry: Entry) -> None:
        """Takes an event, or drops and counts it where too many wait. Never blocks."""
        if self.accepting and self._queue.qsize() < self._capacity:
            self._queue.put(entry)
        else:
            self._drop(entry[1].name, 1)

    def wake(self) -> None:
        """Has the thread look at what is due."""
        self._queue.put(threading.Event())

    def wait(self, barrier: threading.Event, timeout: float) -> bool:
        """Waits until everything put before is on disk; False after `timeout` seconds."""
        if not self.accepting:
            return False
        self._queue.put(barrier)
        return barrier.wait(timeout)

    def durable(self, beyond: int, timeout: float, unless: threading.Event | None) -> Head:
        """See `AuditLog`."""
        with self._durable:
            self._durable.wait_for(
                lambda: self._head().seq > beyond or (unless is not None and unless.is_set()),
                timeout,
            )
            return self._head()

    def notify(self) -> None:
        """Lets those that wait in `durable` look again."""
        with self._durable:
            self._durable.notify_all()

    def end(self) -> None:
        """Takes no more; what waits is written. A disk that fails gets one more attempt."""
        self.accepting = False
        self._last_item = threading.Event()
        self._closing.set()
        self._queue.put(self._last_item)

    def join(self, timeout: float) -> bool:
        """Waits for the end; whether it came within `timeout` seconds and nothing was lost."""
        self._thread.join(timeout)
        return not (self._thread.is_alive() or self.dropped)

    def abandon(self) -> None:
        """In a forked child: the log is the parent's. Its locks may be held for ever."""
        self.accepting = False
        self._limiter = None
        self._lock = threading.RLock()
        self._queue = SimpleQueue()
        if self._file is not None:
            self._file.close()  # the file's lock must end with the parent

    @property
    def waiting(self) -> int:
        """Events that wait to be written."""
        return self._queue.qsize()

    @property
    def failing(self) -> str:
        """See `AuditLog`."""
        return self.last_error if self._outage or not self._settles else ""

    def _drop(self, event: str, count: int) -> None:
        with self._lock:
            self._drops[event] += count
            self.dropped += count
        if self.accepting and self._queue.empty():
            self.wake()  # the thread drained it meanwhile

    # The thread

    def _open_file(self) -> LogFile:
        return LogFile(self._path, self._device, self._retention)

    def _head(self) -> Head:
        return self._file.durable if self._file is not None else Head("", 0, NO_HASH)

    def _run(self) -> None:
        barrier = None
        while barrier is None or barrier is not self._last_item:
            batch, barrier = self._take()
            if self._store(batch):
                self.written += len(batch)
            else:
                for _, event, _, _ in batch:
                    self._drop(event.name, 1)
            self._report_losses()
            self._report_suppressed(final=barrier is self._last_item and barrier is not None)
            if self._settle(everything=barrier is not None):
                self._notarise(barrier)
                if barrier is not None:
                    barrier.set()
        self.notary.close()
        if self._file is not None:
            self._file.close()

    def _take(self) -> tuple[list[Entry], threading.Event | None]:
        """What waits in the queue, up to the first barrier; waits for it until a sync is due."""
        due = min(self._sync_due, self._head_due, self.notary.due)
        if self._limiter is not None:
            due = min(due, self._limiter.report_due)
        timeout = None if due == math.inf else max(0.0, due - time.monotonic())
        batch: list[Entry] = []
        try:
            item = self._queue.get(timeout=timeout)
            while isinstance(item, tuple):
                batch.append(item)
                if len(batch) == _BATCH:
                    return batch, None
                item = self._queue.get_nowait()
        except Empty:
            return batch, None
        return batch, item

    def _store(self, batch: list[Entry]) -> bool:
        """Chain and write entries, as often as it takes; False if they are lost."""
        chained = False
        delay = _RETRY_FIRST
        while True:
            last_attempt = self._closing.is_set()
            try:
                if self._file is None:
                    self._file = self._open_file()
                elif self._file.reopen_if_replaced() and chained:
                    return False
                if not chained:
                    self._file.close_if_full()
                    self._file.append(batch)
                    chained = True
                if self._file.write():
                    self._schedule(batch)
                return True
            except (OSError, StateError) as error:
                self._note_failure(error)
                if last_attempt:
                    return False
                self._closing.wait(delay)
                delay = min(2 * delay, _RETRY_LAST)

    def _note_failure(self, error: OSError | StateError) -> None:
        if not self._outage:
            _logger.error("audit log %s cannot be written, will try again: %s", self._path, error)
        self._outage += 1
        self._count_failure(error)

    def _count_failure(self, error: OSError | StateError) -> None:
        self.failed_writes += 1
        if isinstance(error, OSError):
            self.last_error = errno.errorcode.get(error.errno or 0, type(error).__name__)
        else:
            self.last_error = error.code

    def _report_losses(self) -> None:
        """Record what could not be recorded before, now that writing works."""
        while self._outage or self._drops:
            with self._lock:
                drops, self._drops = self._drops, Counter()
            outage, self._outage = self._outage, 0
            own = [
                make_entry("events_dropped", {"dropped": name, "count": count})
                for name, count in drops.items()
            ]
            if outage:
                detail: dict[str, Value] = {"count": outage, "error": self.last_error}
                own.append(make_entry("audit_recovered", detail))
            if self._store(own):
                _logger.warning(
                    "audit log %s: %d events dropped, %d failed attempts to write",
                    self._path,
                    drops.total(),
                    outage,
                )
                continue
            with self._lock:
                self._drops.update(drops)
            self._outage += outage
            if self._closing.is_set():
                return

    def _report_suppressed(self, *, final: bool) -> None:
        """Record what the limiter kept out since the last time, if that is due."""
        if self._limiter is None or (not final and time.monotonic() < self._limiter.report_due):
            return
        rows = self._limiter.take_report()
        self._store(
            [
                (
                    time.time_ns(),
                    EVENTS["events_suppressed"],
                    row.peer,
                    {"suppressed": row.event, "count": row.count, "peers": row.peers},
                )
                for row in rows
            ]
        )

    def _schedule(self, batch: list[Entry]) -> None:
        """Say when what was just written must be durable at the latest."""
        self._head_due = min(self._head_due, self._head_written + _SYNC_LAZY)
        if not _URGENT.isdisjoint([event.name for _, event, _, _ in batch]):
            self._sync_due = min(self._sync_due, self._synced + _SYNC_URGENT)
        self.notary.note(batch)

    def _settle(self, everything: bool) -> bool:
        """Make durable what is due; False if the disk fails."""
        now = time.monotonic()
        if self._file is None:
            return False
        try:
            if now >= self._head_due or (everything and self._head_due < math.inf):
                self._file.write_head()
                self._synced = self._head_written = now
                self._sync_due = self._head_due = math.inf
                self.notify()
            elif now >= self._sync_due:
                self._file.sync()
                self._synced, self._sync_due = now, math.inf
        except OSError as error:
            if self._settles:
                _logger.error("audit log %s: cannot make it durable: %s", self._path, error)
            self._settles = False
            self._count_failure(error)
            self._sync_due, self._head_due = math.inf, now + _RETRY_LAST
            return False
        self._settles = True
        return True

    def _notarise(self, barrier: threading.Event | None) -> None:
        """Let the tree grow, and be signed if that is due."""
        if self._file is not None:
            closing = barrier is not None and barrier is self._last_item
            asked = isinstance(barrier, SignRequest)
            self._store(self.notary.settle(self._file, closing=closing, asked=asked))
