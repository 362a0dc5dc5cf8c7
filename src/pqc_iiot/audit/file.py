"""The writer's end of a log file: recovery at opening, appending to the chain, the head.

Nothing here waits or retries, and every failure of the disk is an `OSError`: `log.py`
decides what to do about it. What was appended stays in memory until it is written. A file
that has reached its size is closed and kept beside the log (`segments.py`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from ..errors import StateError, StateLockedError, UnsafePermissionsError
from .catalogue import EVENTS, Event, Value
from .head import Head
from .record import (
    MAX_LINE,
    NO_HASH,
    AuditRecord,
    encode_constant,
    encode_line,
    leaf_hash,
)
from .segments import Retention, close_file, closed_name, keep_closed

Entry: TypeAlias = tuple[int, Event, str, Mapping[str, Value]]
"""What becomes a record: nanoseconds since 1970, event, peer's fingerprint or "", detail."""

# O_NONBLOCK so that a FIFO under the log's name is refused and not waited for.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRONG_PATH: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP))
_BLOCK: Final = 64 * 1024
_LOOK_BACK: Final = 16 * 1024 * 1024  # bytes searched for the last record behind a torn tail


def make_entry(event: str, detail: Mapping[str, Value]) -> Entry:
    """An entry of the log about itself, at the present time."""
    return time.time_ns(), EVENTS[event], "", detail


class Tree(Protocol):
    """What grows with the log."""

    def extend(self, leaves: bytes) -> None:
        """Takes the leaf hashes of records as they are appended, 32 bytes each."""


class LogFile:
    """One log file, locked and open for appending. `tree`, if set, grows with it.

    `LogFile(path, device, retention)` opens or creates the file (0600) and finds the end of
    its chain by reading its tail only. `durable` is the head that was written last. Raises
    `StateError` if the folder is missing or the path is no regular file,
    `UnsafePermissionsError` if others can write it, `StateLockedError` if another process
    writes it, `OSError` if the disk fails.
    """

    def __init__(self, path: Path, device: str, retention: Retention) -> None:
        self._path = path
        self._device = device
        self._retention = retention
        self.durable = Head("", 0, NO_HASH)
        self._constants: dict[str, str] = {}
        self._second = -1
        self._stamp = ""
        self._end = Head("", 0, NO_HASH)  # of the chain, with what is not written yet
        self._unwritten = b""
        self._size = 0
        self._fd = -1
        self.tree: Tree | None = None
        self._open()

    @property
    def end(self) -> Head:
        """The end of the chain, with what is not written yet."""
        return self._end

    def append(self, entries: Iterable[Entry]) -> None:
        """Chain entries behind the last record, in memory."""
        seq, prev = self._end.seq, self._end.hash
        lines, hashes = [self._unwritten], []
        for nanoseconds, event, peer, detail in entries:
            second, fraction = divmod(nanoseconds, 1_000_000_000)
            if second != self._second:
                self._second = second
                self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            seq += 1
            line = encode_line(
                seq,
                f"{self._stamp}.{fraction // 1_000_000:03d}Z",
                self._constants.get(event.name) or self._constant(event),
                peer,
                detail,
                prev=prev,
            )
            prev = leaf_hash(line)
            hashes.append(prev)
            lines += line, b"\n"
        self._unwritten = b"".join(lines)
        if self.tree is not None:
            self.tree.extend(bytes.fromhex("".join(hashes)))
        self._end = Head(self._end.log, seq, prev)

    def write(self) -> bool:
        """Write what was appended; False if that is nothing.

        After an error, call again to go on where it stopped.
        """
        if not self._unwritten:
            return False
        while self._unwritten:
            count = os.write(self._fd, self._unwritten)
            self._unwritten = self._unwritten[count:]
            self._size += count
        return True

    def sync(self) -> None:
        """Make durable what was written."""
        if self._fd < 0:  # it could not be opened again
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.fdatasync(self._fd)

    def write_head(self) -> None:
        """Make durable what was written, then let the head file say so."""
        self.sync()
        if not self._unwritten:
            self._end.write(self._path)
            self.durable = self._end

    def reopen_if_replaced(self) -> bool:
        """Follow the log's name if another program moved, removed or changed the file.

        Otherwise records would go on into a file that nobody finds. Returns whether it
        did; what was not written then is lost and leaves a gap. Raises as the constructor.
        """
        try:
            found, ours = self._path.lstat(), os.fstat(self._fd)
            if os.path.samestat(found, ours) and found.st_size == self._size:
                return False
        except OSError:
            pass  # the name or the descriptor is gone
        self.close()
        self._open()
        return True

    def close_if_full(self) -> None:
        """Put a full file aside and go on in a new one, as if it had been moved away."""
        if self._size < self._retention.file_bytes:
            return
        self.write()
        self.write_head()
        if not close_file(self._path, self._end.seq):
            return
        closed = closed_name(self._path, self._end.seq)
        notes = [
            make_entry(
                "audit_expired",
                {"path": file.name, "count": last - first + 1, "last_sequence": last},
            )
            for file, first, last in keep_closed(self._path, self._retention.closed_files)
        ]
        self.close()
        self._open(closed.name)
        self.append(notes)

    def close(self) -> None:
        """Close the file and give up the lock. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, closed: str = "") -> None:
        try:
            self._fd = os.open(self._path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno not in _WRONG_PATH:
                raise
            raise StateError(
                f"no audit log can be at {self._path}: {error.strerror}",
                hint="Name a regular file, no link, in a folder that exists.",
            ) from error
        try:
            self._check()
            self._recover(closed)
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise StateError(f"{self._path} is no regular file", hint="Move it away.")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnsafePermissionsError(
                f"others can write the audit log {self._path}", hint=f"chmod 600 {self._path}"
            )
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateLockedError(
                f"another process writes the audit log {self._path}", hint="Stop it first."
            ) from error

    def _recover(self, closed: str) -> None:
        """Find the end of the chain, and note what is wrong with the file.

        The chain goes on from the end that was known (to this object, or else to the head
        file) unless only the file knows a later one. So records that are gone leave a gap
        that verification finds ever after, and no sequence is used twice.
        """
        size = os.fstat(self._fd).st_size
        found, found_size = _find_end(self._fd, size)
        live = self._end.seq > 0
        try:
            known = self._end if live else Head.read(self._path)
            problem = "missing" if known is None and found.seq else ""
        except StateError:
            known, problem = None, "unreadable"
        if known is not None and size:
            problem = _compare(known, found, live)
        end = known if known is not None and (live or known.seq >= found.seq) else found
        log = (known.log if known else found.log) or os.urandom(16).hex()

        rotated = live or (known is not None and not size)
        about: dict[str, Value] = {"log": log}
        if closed:
            about["path"] = closed
        notes = [make_entry("audit_rotated" if rotated else "audit_opened", about)]
        if found_size < size:
            torn = _measure(self._fd, found_size, size)
            notes.insert(0, make_entry("audit_torn_tail", {"log": log, **torn}))
        if problem:
            known_seq = known.seq if known else 0
            detail: dict[str, Value] = {
                "problem": problem,
                "head_sequence": known_seq,
                "last_sequence": found.seq,
            }
            notes.append(make_entry("audit_head_mismatch", detail))
        unfinished = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        if not size:
            _sync_folder(self._path.parent)

        self._size = size
        self._end = Head(log, end.seq, end.hash)
        self._unwritten = b"\n" if unfinished else b""
        self.append(notes)

    def _constant(self, event: Event) -> str:
        constant = encode_constant(
            event.id, event.name, event.severity.label, event.reason, self._device
        )
        self._constants[event.name] = constant
        return constant


def _compare(known: Head, found: Head, live: bool) -> str:
    """The `problem` of `audit_head_mismatch`, or "" if the file ends as it should."""
    if found.log and found.log != known.log:
        return "other_log"
    if found.seq < known.seq:
        return "ahead"
    if found.seq == known.seq:
        return "" if found.hash == known.hash else "differs"
    return "differs" if live else ""  # the head file may lag, this object never does


def _find_end(fd: int, size: int) -> tuple[Head, int]:
    """The last record of a file and the offset behind its line end.

    Sequence 0 and offset 0 stand for no record within `_LOOK_BACK` bytes of the end.
    """
    first = AuditRecord.parse(os.pread(fd, MAX_LINE, 0).partition(b"\n")[0])
    log = str(first.detail.get("log", "")) if first else ""
    span = 0
    while span < min(size, _LOOK_BACK):
        span = min(size, _LOOK_BACK, 8 * span or _BLOCK)
        start = end = size
        for line in reversed(os.pread(fd, span, size - span).split(b"\n")):
            start, end = start - len(line), start
            record = AuditRecord.parse(line)
            if record is not None and (start == 0 or start > size - span):
                return Head(log, record.seq, leaf_hash(line)), min(end + 1, size)
            start -= 1
    return Head(log, 0, NO_HASH), 0


def _measure(fd: int, start: int, end: int) -> dict[str, Value]:
    """Length and SHA-256 of the bytes from `start` to `end`, without a last line end."""
    if os.pread(fd, 1, end - 1) == b"\n":
        end -= 1
    digest = sha256()
    for offset in range(start, end, _BLOCK):
        digest.update(os.pread(fd, min(_BLOCK, end - offset), offset))
    return {"length": end - start, "sha256": digest.hexdigest()}


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
