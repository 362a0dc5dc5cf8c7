"""An append-only log beside the store, for what changes with every message.

A commit is one write and one fsync of one encrypted record, instead of the pages that a
database would touch. Records live in segments, files of their own. Each is encrypted under
its segment's key and bound to the one before; the first of a segment binds it to the end of
the segment before. The store knows which segments there are, and where a clean end was.

So after a crash the log ends with its last whole record, and whatever else is missing,
altered, moved or added is noticed. Only the end of the segment that was written to last,
cut off by somebody after an unclean end, looks like a crash (docs/durability.md).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .. import cose
from .._core import Secret
from ..errors import AuthenticationError, InvalidInputError, StateError, StateTamperedError
from ..folder import sync_folder
from . import META, Row, Store

PREFIX = "journal-"
"""What the names of segments begin with, followed by their number."""
_EVERY = 1 << 64
_ONES = 0xFFFFFFFF
_ROW = b"journal"
_MAGIC = b"PQJ1"
_SALT, _TAG = 16, 16
_LENGTH = struct.Struct(">II")
"""A record's length, and its complement: half of it may be on disk."""
_HEADER = len(_MAGIC) + 8 + _SALT + _TAG
_START = bytes(_TAG)


@dataclass(frozen=True, slots=True)
class JournalStats:
    """Since it was opened: records written, their fsyncs (of files and of the folder), and
    bytes."""

    commits: int
    fsyncs: int
    written: int


class _Extent(NamedTuple):
    """The first and the last segment, and the last record's tag after a clean end."""

    first: int
    last: int
    end: bytes


class _Segment(NamedTuple):
    """A segment as it was found: its whole records, each with its tag."""

    number: int
    previous: bytes
    records: list[tuple[bytes, bytes]]
    size: int

    def until(self, tag: bytes) -> Iterator[bytes]:
        """The records up to the one with this tag."""
        for record, own in self.records:
            yield record
            if own == tag:
                return
        raise _tampered(f"segment {self.number} does not end where the next one begins")


class Journal:
    """The records of one device; `replay` them before anything is written. Not
    thread-safe: whoever owns it takes turns."""

    def __init__(self, folder: Path | None, key: Secret, store: Store) -> None:
        """`folder` None keeps nothing, for a store that keeps nothing either."""
        self._folder, self._key, self._store = folder, key, store
        self._extent = self._load_extent()
        self._fd: int | None = None
        self._segment_key = key
        self._number, self._end = self._extent.last, self._extent.end or _START
        self._commits = self._fsyncs = self._written = 0
        self.length = 0
        """Bytes in the segment that is being written to."""
        self.size = 0
        """Bytes in all segments."""

    def _load_extent(self) -> _Extent:
        row = self._store.get(META, _ROW)
        if row is None:
            return _Extent(1, 0, b"")
        match cose.loads(row.value, 64, "the journal's extent", StateTamperedError):
            case [int(first), int(last), bytes(end)]:
                return _Extent(first, last, end)
        raise StateTamperedError("the journal's extent has another shape")

    # Reading

    def replay(self) -> Iterator[bytes]:
        """Every record since the last snapshot, in order.

        `StateTamperedError` where something is missing or altered and no crash explains it.
        """
        if self._folder is None:
            return
        # Without a row there never was a journal, but perhaps a crash while it was made.
        self._remove(self._extent.first if self._extent.last else _EVERY)
        before: _Segment | None = None
        for number in itertools.count(self._extent.first):
            segment = self._load(number)
            if segment is None:
                break
            if before is not None:
                self._check_end(before, segment.previous)
                yield from before.until(segment.previous)
            before = segment
            self.size += segment.size
        if before is not None:
            self._number, (_, self._end) = before.number, before.records[-1]
            self._check_end(before, self._end)
            yield from (record for record, _ in before.records)

    def _check_end(self, segment: _Segment, end: bytes) -> None:
        if segment.number == self._extent.last and self._extent.end not in (b"", end):
            raise _tampered("its end is missing")

    def _load(self, number: int) -> _Segment | None:
        """None where there is none, or only what a crash has left of making it."""
        try:
            data = self._path(number).read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as cause:
            raise _failed("read", cause) from cause
        expected = _MAGIC + number.to_bytes(8, "big")
        salt_at = len(expected)
        previous = data[salt_at + _SALT : _HEADER]
        records: list[tuple[bytes, bytes]] = []
        if len(data) > _HEADER and data.startswith(expected):
            key = self._derive(data[salt_at : salt_at + _SALT])
            records = list(_records(data, key, number))
        if records:
            return _Segment(number, previous, records, len(data))
        if number <= self._extent.last:
            raise _tampered(f"segment {number} is missing or damaged")
        return None

    def _derive(self, salt: bytes) -> Secret:
        # A key of its own for each opening and segment: no nonce can meet another one's,
        # not even after a copy of the folder was put back.
        return self._key.derive(b"segment" + salt)

    @property
    def segments(self) -> int:
        """How many there are."""
        return self._number + 1 - self._extent.first

    @property
    def begins(self) -> bool:
        """Whether the next record begins a segment: none was written to since this was
        opened, or a write has failed."""
        return self._fd is None

    # Writing

    def append(self, data: bytes) -> None:
        """One more record, durable when it returns. `StateError` where it is not: then it
        may or may not be found after a crash, and is not found otherwise."""
        if self._folder is None:
            self._commits += 1
        elif self._fd is None:
            self._begin(data, lambda: None)
        else:
            self._write(self._fd, b"", data)

    def checkpoint(self, write: Callable[[], None], snapshot: bytes | None) -> None:
        """Goes on in a new segment, in one transaction of the store with what `write` puts
        there. `snapshot` is its first record and replaces every record before; without one
        they are all kept. `StateError` where that cannot be; then nothing has changed."""
        self._begin(snapshot or b"", write, replaces=snapshot is not None)

    def close(self, write: Callable[[], None], *, empty: bool) -> None:
        """A clean end, in one transaction of the store with what `write` puts there; with
        `empty` no record is needed any more. Idempotent."""
        self._give_up()
        first = self._number + 1 if empty else self._extent.first
        extent = _Extent(first, self._number, self._end)
        if self._number and extent != self._extent:
            self._store_extent(extent, write)

    def _begin(self, data: bytes, write: Callable[[], None], *, replaces: bool = False) -> None:
        """A new segment with its first record; it counts once the store knows it."""
        self._give_up()
        before = self._number, self._end, self.length, self.size
        try:
            # After a failure the number is used again: nobody has relied on what was there.
            self._number += 1
            if self._folder is not None:
                self._make(self._folder, data)
            first = self._number if replaces else self._extent.first
            self._store_extent(_Extent(first, self._number, b""), write)
        except BaseException:
            self._give_up()
            self._number, self._end, self.length, self.size = before
            raise

    def _make(self, folder: Path, data: bytes) -> None:
        path, salt = self._path(self._number), os.urandom(_SALT)
        header = _MAGIC + self._number.to_bytes(8, "big") + salt + self._end
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._segment_key, self.length = self._derive(salt), 0
        try:
            path.unlink(missing_ok=True)
            self._fd = os.open(path, flags, 0o600)
            self._write(self._fd, header, data)
            sync_folder(folder)
        except OSError as cause:
            raise _failed("made", cause) from cause
        self._fsyncs += 1

    def _store_extent(self, extent: _Extent, write: Callable[[], None]) -> None:
        with self._store.transaction():
            write()
            if self._folder is not None:
                self._store.put(META, Row(_ROW, cose.dumps(list(extent))))
        self._extent = extent
        if self._folder is not None:
            self._remove(extent.first)

    def _write(self, fd: int, header: bytes, data: bytes) -> None:
        sealed = self._segment_key.encrypt(header or self._end, data)
        length = _LENGTH.pack(len(sealed), len(sealed) ^ _ONES)
        whole = b"".join((header, length, sealed))
        try:
            if not os.fstat(fd).st_nlink:  # it could be written, and nobody would find it
                raise FileNotFoundError(errno.ENOENT, "it was removed while the device was running")
            view = memoryview(whole)
            while view:
                view = view[os.write(fd, view) :]
            os.fdatasync(fd)
        except OSError as cause:
            # What is on disk now is unknown, also after a failed fsync: never appended to
            # again. The next segment will say where this one has ended.
            self._give_up()
            raise _failed("written", cause) from cause
        self._end = sealed[-_TAG:]
        self._commits += 1
        self._fsyncs += 1
        self._written += len(whole)
        self.length += len(whole)
        self.size += len(whole)

    def _give_up(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def _remove(self, below: int) -> None:
        assert self._folder is not None
        # One that stays is removed the next time.
        with contextlib.suppress(OSError):
            for path in segments(self._folder):
                if int(path.name.removeprefix(PREFIX)) < below:
                    size = path.stat().st_size
                    path.unlink()
                    self.size = max(0, self.size - size)

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{PREFIX}{number:010}"

    def stats(self) -> JournalStats:
        """What was written since it was opened."""
        return JournalStats(self._commits, self._fsyncs, self._written)

    def abandon(self) -> None:
        """In a forked child: the parent goes on writing."""
        self._give_up()


def segments(folder: Path) -> list[Path]:
    """The segments in a state folder, without those that were set aside."""
    return sorted(
        path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()
    )


def _records(data: bytes, key: Secret, number: int) -> Iterator[tuple[bytes, bytes]]:
    """The whole records of a segment, in order, each with its tag."""
    at, bound = _HEADER, data[:_HEADER]
    while at + _LENGTH.size <= len(data):
        length, complement = _LENGTH.unpack_from(data, at)
        start = at + _LENGTH.size
        end = start + length
        if length ^ complement != _ONES or end > len(data):
            return  # torn
        try:
            record = key.decrypt(bound, data[start:end])
        except (AuthenticationError, InvalidInputError):
            # Each record was durable before the next was begun: only the last can be torn.
            if end < len(data):
                raise _tampered(f"segment {number} is damaged in the middle") from None
            return
        at, bound = end, data[end - _TAG : end]
        yield record, bound


def _failed(what: str, cause: OSError) -> StateError:
    return StateError(
        f"the journal cannot be {what}: {cause.strerror}",
        hint="check free space and permissions of the state folder",
    )


def _tampered(what: str) -> StateTamperedError:
    return StateTamperedError(
        f"the journal was changed from outside: {what}",
        hint="find out who can write to the state folder, then: pqc-iiot recover",
    )
