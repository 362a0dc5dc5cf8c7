"""`AuditLog`: takes events from any thread at once; `writer.py` writes them in the background."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from ..errors import PqcIiotError
from .catalogue import BY_REASON, EVENTS, FIELDS, Event, Value
from .checkpoint import Checkpoint, NoteKey, Signer
from .head import Head
from .limit import WIRE_DRIVEN, Limiter
from .record import MAX_TEXT, clean_text, is_fingerprint
from .segments import Retention
from .writer import SignRequest, Writer

_FOR_CALLERS: Final = {
    name: event for name, event in EVENTS.items() if not event.id.startswith("PQC-6")
}
_TYPES: Final = {
    event.name: {field: FIELDS[field].type for field in event.fields} for event in EVENTS.values()
}


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
        self._limiter = limiter
        self._writer = Writer(
            self._path, clean_text(device), capacity, limiter, retention or Retention()
        )
        self.before_close: Callable[[], object] | None = None
        """Called by `close` once everything emitted before is on disk: ends the sinks."""
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
        return self._writer.durable(beyond, timeout, unless)

    def wake(self) -> None:
        """Let those that wait in `durable` look at their `unless`."""
        self._writer.notify()

    def sign_with(self, signer: Signer, known: Sequence[NoteKey] = ()) -> None:
        """From now on sign checkpoints of the log's tree with this key: some time after a
        record, after many, and at the end. `known` are the keys before it."""
        self._writer.notary.signer = signer, tuple(known)
        self._writer.wake()

    def checkpoint(self, timeout: float = 5.0) -> Checkpoint | None:
        """A checkpoint of everything emitted before, signed now if need be; None if there is
        none within `timeout` seconds, or no key to sign it."""
        writer = self._writer
        return writer.notary.last if writer.wait(SignRequest(), timeout) else None

    def add_cosigned(self, checkpoint: Checkpoint, timeout: float = 5.0) -> bool:
        """Store a checkpoint of this log that witnesses have signed, too; False if it is not
        on disk within `timeout` seconds. The caller has verified it."""
        self._writer.notary.cosigned.append(checkpoint)
        return self.flush(timeout)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every event emitted before is on disk; False after `timeout` seconds."""
        return self._writer.wait(threading.Event(), timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Take no more events, write those that wait, and close the file.

        Waits `timeout` seconds at most; a disk that fails gets one more attempt. Returns
        whether every event was written. May be called again; runs at exit by itself.
        """
        if self._writer.accepting:
            before, self.before_close = self.before_close, None
            if before is not None:
                self.flush(timeout)
                before()
            self._writer.end()
            atexit.unregister(self.close)
        return self._writer.join(timeout)

    @property
    def failing(self) -> str:
        """The name of the last error (such as ENOSPC) while records cannot be written or made
        durable, else empty. It takes an event to notice."""
        return self._writer.failing

    def stats(self) -> AuditStats:
        """Counters since this object was made."""
        writer = self._writer
        return AuditStats(
            written=writer.written,
            dropped=writer.dropped,
            failed_writes=writer.failed_writes,
            last_error=writer.last_error,
            queue_depth=writer.waiting,
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

    # Inside

    def _is_suppressed(self, event: Event, peer: str, times: int = 1) -> bool:
        """Whether the limit keeps the event out, and with it the rest of `times`."""
        limiter = self._limiter
        if limiter is None or event.name not in WIRE_DRIVEN:
            return False
        count = limiter.count_refused(event.name, peer, times)
        if 0 < count <= times:
            self._writer.wake()  # it has to report this, later
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
        self._writer.put((time.time_ns(), event, peer, fields))

    def _abandon(self) -> None:
        self._limiter = self.before_close = None
        self._writer.abandon()
        atexit.unregister(self.close)


_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def _abandon_all() -> None:
    for log in list(_logs):
        log._abandon()


os.register_at_fork(after_in_child=_abandon_all)
