"""`AuditLog`: takes events from any thread at once and writes them in the background."""

from __future__ import annotations

import atexit
import errno
import logging
import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final

from ..errors import PqcIiotError, StateError
from .catalogue import BY_REASON, EVENTS, FIELDS, Event, Severity, Value
from .checkpoint import Checkpoint, NoteKey, Signer
from .file import Entry, LogFile, make_entry
from .head import Head
from .limit import WIRE_DRIVEN, Limiter
from .notary import Notary
from .record import MAX_TEXT, NO_HASH, clean_text, is_fingerprint
from .segments import Retention

_logger = logging.getLogger("pqc_iiot.audit")

_BATCH: Final = 1024  # records per write at most
_SYNC_URGENT: Final = 0.05  # seconds from one fsync to the next while urgent events come
_SYNC_LAZY: Final = 1.0  # the same, and for the head file, while other events come
_RETRY_FIRST, _RETRY_LAST = 0.1, 5.0  # seconds between attempts while the disk fails

_FOR_CALLERS: Final = {
    name: event for name, event in EVENTS.items() if not event.id.startswith("PQC-6")
}
_TYPES: Final = {
    event.name: {field: FIELDS[field].type for field in event.fields} for event in EVENTS.values()
}
_URGENT: Final = frozenset(
    event.name for event in EVENTS.values() if event.severity >= Severity.HIGH
)


@dataclass(frozen=True, slots=True)
class AuditStats:
    """What became of the events given to a log.

    `written`, `dropped`, `suppressed` (by the limit) and `queue_depth` (waiting) add up to
    the events given to it but for those being written; the log's records about itself do
    not count. `failed_writes` counts attempts, `last_error` names the last one's error
    (such as ENOSPC) or is "".
    """

    written: int
    dropped: int
    failed_writes: int
    last_error: str
    queue_depth: int
    suppressed: int = 0


class _SignRequest(threading.Event):
    """A barrier that wants a checkpoint of everything in front of it."""


class AuditLog:
    """The audit log of one device: `emit` costs the caller microseconds and never waits.

    `path` is the log file, created with mode 0600 in a folder that must exist; the head
    file stands beside it. `device` is this device's name, in every record. `capacity` is
    how many events may wait; what does not fit is dropped, counted and, as soon as there
    is room, recorded as `events_dropped`.

    Opening raises `StateError`, `UnsafePermissionsError` or `StateLockedError` (one process
    writes a log). A disk that fails raises nothing, then or later: writing is tried again
    with back-off, `stats()` and the log of `logging` tell.

    Events of severity high and above are on disk at once (but not more often than every
    50 ms), others within about a second. After a fork the child's log takes nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "",
        capacity: int = 8192,
        limiter: Limiter | None = None,
        retention: Retention | None = None,
    ) -> None:
        self._path = Path(path)
        self._device = clean_text(device)
        self._capacity = capacity
        self._limiter = limiter
        self._retention = retention or Retention()
        self._notary = Notary(self._path)
        self._durable = threading.Condition()
        self.before_close: Callable[[], object] | None = None
        """Called by `close` once everything emitted before is on disk: ends the sinks."""
        self._queue: SimpleQueue[Entry | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()  # re-entrant: a signal handler may emit too
        self._drops: Counter[str] = Counter()  # by event, not yet recorded
        self._written = self._dropped = self._failed_writes = 0
        self._last_error = ""
        self._outage = 0  # failed attempts, not yet recorded
        self._sync_due = self._head_due = math.inf  # on the monotonic clock
        self._synced = self._head_written = -math.inf
        self._settles = True  # the last attempt to make it durable worked
        self._accepting = True
        self._closing = threading.Event()
        self._last_item: threading.Event | None = None
        self._file: LogFile | None = None
        try:
            self._file = self._open_file()
        except OSError as error:
            self._note_failure(error)
        self._queue.put(threading.Event())  # lets the writer record the opening
        self._thread = threading.Thread(target=self._run, name="pqc-iiot-audit", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        _logs.add(self)

    def emit(self, event: str, /, *, peer: str = "", **fields: Value) -> None:
        """Record one event of the catalogue, by its name; kind 6 is for the log itself.

        `peer` is the fingerprint of the peer concerned (64 hex digits) or "". Texts longer
        than 256 characters are cut. Raises `ValueError` for what is a mistake in the
        calling code: an event, field or type that is not in the catalogue (bytes never
        are), an integer beyond 64 bits, a `peer` that is no fingerprint.
        """
        row = _FOR_CALLERS.get(event)
        if row is None:
            raise ValueError(f"no event {event!r} for callers in the audit catalogue")
        if not self._is_suppressed(row, peer):
            self._put(row, peer, fields)

    def note(self, event: str, /, **fields: Value) -> None:
        """Record an event of kind 6: for the rooms of the audit floor. Otherwise as `emit`."""
        self._put(EVENTS[event], "", fields)

    def emit_error(
        self,
        error: PqcIiotError,
        details: Callable[[], Mapping[str, Value]] | None = None,
        times: int = 1,
        /,
        *,
        peer: str = "",
        **fields: Value,
    ) -> None:
        """Record the event that stands for an error, found by the error's `code`; `times`
        of them, if it happened so often.

        `peer` is the error's own unless given. The caller passes what it knows: fields that
        this event does not have are left out. `details` gives more of them, and is called
        only where the limit lets the event pass, so that a flood costs little. An error
        that is no security event (such as a `TransportError`) leaves none. Raises as `emit`
        does.
        """
        row = BY_REASON.get(error.code)
        if row is None:
            return
        passed = 0
        while passed < times and not self._is_suppressed(row, peer or error.peer, times - passed):
            passed += 1
        if not passed:
            return
        if details is not None:
            fields = {**fields, **details()}
        if unknown := fields.keys() - FIELDS.keys():
            raise ValueError(f"no field {min(unknown)!r} in the audit catalogue")
        known = {name: value for name, value in fields.items() if name in row.fields}
        for _ in range(passed):
            self._put(row, peer or error.peer, known)

    def durable(
        self, beyond: int = -1, timeout: float = 0.0, unless: threading.Event | None = None
    ) -> Head:
        """The last record that is on disk for good, as the head file names it; waits until
        its `seq` is above `beyond`, `timeout` seconds at most. Sequence 0 is none yet.
        `unless` ends the waiting when it is set and `wake` is called."""
        with self._durable:
            self._durable.wait_for(
                lambda: self._head().seq > beyond or (unless is not None and unless.is_set()),
                timeout,
            )
            return self._head()

    def wake(self) -> None:
        """Let those that wait in `durable` look at their `unless`."""
        with self._durable:
            self._durable.notify_all()

    def sign_with(self, signer: Signer, known: Sequence[NoteKey] = ()) -> None:
        """From now on sign checkpoints of the log's tree with this key: some time after a
        record, after many, and at the end. `known` are the keys before it."""
        self._notary.signer = signer, tuple(known)
        self._queue.put(threading.Event())  # wakes the writer

    def checkpoint(self, timeout: float = 5.0) -> Checkpoint | None:
        """A checkpoint of everything emitted before, signed now if need be; None if there is
        none within `timeout` seconds, or no key to sign it."""
        return self._notary.last if self._wait(_SignRequest(), timeout) else None

    def add_cosigned(self, checkpoint: Checkpoint, timeout: float = 5.0) -> bool:
        """Store a checkpoint of this log that witnesses have signed, too; False if it is not
        on disk within `timeout` seconds. The caller has verified it."""
        self._notary.cosigned.append(checkpoint)
        return self.flush(timeout)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every event emitted before is on disk; False after `timeout` seconds."""
        return self._wait(threading.Event(), timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Take no more events, write those that wait, and close the file.

        Waits `timeout` seconds at most; a disk that fails gets one more attempt. Returns
        whether every event was written. May be called again; runs at exit by itself.
        """
        if self._accepting:
            before, self.before_close = self.before_close, None
            if before is not None:
                self.flush(timeout)
                before()
            self._accepting = False
            self._last_item = threading.Event()
            self._closing.set()
            self._queue.put(self._last_item)
            atexit.unregister(self.close)
        self._thread.join(timeout)
        return not (self._thread.is_alive() or self._dropped)

    @property
    def failing(self) -> str:
        """The name of the last error (such as ENOSPC) while records cannot be written or made
        durable, else empty. It takes an event to notice."""
        return self._last_error if self._outage or not self._settles else ""

    def stats(self) -> AuditStats:
        """Counters since this object was made."""
        return AuditStats(
            written=self._written,
            dropped=self._dropped,
            failed_writes=self._failed_writes,
            last_error=self._last_error,
            queue_depth=self._queue.qsize(),
            suppressed=self._limiter.total if self._limiter else 0,
        )

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The caller's side.

    def _wait(self, barrier: threading.Event, timeout: float) -> bool:
        if not self._accepting:
            return False
        self._queue.put(barrier)
        return barrier.wait(timeout)

    def _is_suppressed(self, event: Event, peer: str, times: int = 1) -> bool:
        """Whether the limit keeps the event out, and with it the rest of `times`."""
        limiter = self._limiter
        if limiter is None or event.name not in WIRE_DRIVEN:
            return False
        count = limiter.count_refused(event.name, peer, times)
        if 0 < count <= times:
            self._queue.put(threading.Event())  # the writer has to report it, later
        return count > 0

    def _put(self, event: Event, peer: str, fields: dict[str, Value]) -> None:
        types = _TYPES[event.name]
        for name, value in fields.items():
            kind = type(value)
            if types.get(name) is not kind:
                raise ValueError(f"{event.name} takes no field {name!r} of type {kind.__name__}")
            if isinstance(value, str):
                if len(value) > MAX_TEXT or not value.isascii():
                    fields[name] = clean_text(value)
            elif value.bit_length() > 64:
                raise ValueError(f"{event.name}: {name!r} is beyond 64 bits")
        if peer and not is_fingerprint(peer):
            raise ValueError(f"{event.name}: peer is no fingerprint")
        if self._accepting and self._queue.qsize() < self._capacity:
            self._queue.put((time.time_ns(), event, peer, fields))
        else:
            self._drop(event.name, 1)

    def _drop(self, event: str, count: int) -> None:
        with self._lock:
            self._drops[event] += count
            self._dropped += count
        if self._accepting and self._queue.empty():
            self._queue.put(threading.Event())  # the writer drained it meanwhile: wake it

    # The writer's side: everything below runs in its thread.

    def _open_file(self) -> LogFile:
        return LogFile(self._path, self._device, self._retention)

    def _head(self) -> Head:
        return self._file.durable if self._file is not None else Head("", 0, NO_HASH)

    def _run(self) -> None:
        barrier = None
        while barrier is None or barrier is not self._last_item:
            batch, barrier = self._take()
            if self._store(batch):
                self._written += len(batch)
            else:
                for _, event, _, _ in batch:
                    self._drop(event.name, 1)
            self._report_losses()
            self._report_suppressed(final=barrier is self._last_item and barrier is not None)
            if self._settle(everything=barrier is not None):
                self._notarise(barrier)
                if barrier is not None:
                    barrier.set()
        self._notary.close()
        if self._file is not None:
            self._file.close()

    def _take(self) -> tuple[list[Entry], threading.Event | None]:
        """What waits in the queue, up to the first barrier; waits for it until a sync is due."""
        due = min(self._sync_due, self._head_due, self._notary.due)
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
        self._failed_writes += 1
        if isinstance(error, OSError):
            self._last_error = errno.errorcode.get(error.errno or 0, type(error).__name__)
        else:
            self._last_error = error.code

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
                detail: dict[str, Value] = {"count": outage, "error": self._last_error}
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
        self._notary.note(batch)

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
                self.wake()
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
            asked = isinstance(barrier, _SignRequest)
            self._store(self._notary.settle(self._file, closing=closing, asked=asked))

    def _abandon(self) -> None:
        """In a forked child: the log is the parent's. Its locks may be held for ever."""
        self._accepting = False
        self._limiter = self.before_close = None
        self._lock = threading.RLock()
        self._queue = SimpleQueue()
        if self._file is not None:
            self._file.close()  # the file's lock must end with the parent
        atexit.unregister(self.close)


_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def _abandon_all() -> None:
    for log in list(_logs):
        log._abandon()


os.register_at_fork(after_in_child=_abandon_all)
