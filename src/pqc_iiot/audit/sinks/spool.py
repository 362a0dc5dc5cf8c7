"""A sink's spool: the log itself, and a cursor that says how far the sink has come.

The log is on disk, in order, chained and bounded by its retention. So nothing has to be
stored a second time: an outage of any length costs no memory and no disk of its own, and
what a sink misses for ever is what had left the log before it came back.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ..record import MAX_LINE, AuditRecord
from ..segments import closed_files, last_seq_of, seq_of

_MAX_CURSOR = 1024


@dataclass(frozen=True, slots=True)
class Cursor:
    """`log` is the id of the log that `seq` counts in; `lost` counts records of it that the
    sink will never get."""

    log: str = ""
    seq: int = 0
    lost: int = 0

    @classmethod
    def read(cls, path: Path) -> Cursor:
        """The cursor in a file; the start of the log where there is none that is usable."""
        try:
            with path.open("rb") as file:
                members = json.loads(file.read(_MAX_CURSOR))
            cursor = cls(members["log"], members["seq"], members["lost"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return cls()
        fits = type(cursor.log) is str and type(cursor.seq) is int and type(cursor.lost) is int
        return cursor if fits and cursor.seq >= 0 else cls()

    def write(self, path: Path) -> None:
        """Replace the file durably. Raises `OSError`."""
        fresh = path.with_name(path.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(json.dumps({"v": 1, **asdict(self)}) + "\n")
            file.flush()
            os.fsync(fd)
        fresh.replace(path)


class LogReader:
    """Reads a log forwards across its files, while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._last = 0  # `seq` of the last record in the open file, 0 for the live one

    def read(self, after: int, upto: int, limit: int) -> list[AuditRecord]:
        """At most `limit` records with `after` < `seq` <= `upto`, in order, without those
        that the log does not have any more. Raises `OSError`."""
        records: list[AuditRecord] = []
        seq = after
        if self._file is None:
            self._go_on(seq)
        while self._file is not None:
            for record in self._records(self._file, seq, upto):
                records.append(record)
                seq = record.seq
                if len(records) == limit or seq == upto:
                    return records
            if not self._is_exhausted(self._file) or not self._go_on(max(seq, self._last)):
                break
        return records

    def close(self) -> None:
        """Close the file that is open. The next `read` may begin anywhere."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _records(self, file: BinaryIO, after: int, upto: int) -> Iterator[AuditRecord]:
        while True:
            position = file.tell()
            line = file.readline(MAX_LINE + 1)
            if not line.endswith(b"\n"):
                if len(line) <= MAX_LINE:
                    file.seek(position)
                    return
                continue
            seq = seq_of(line)
            if seq > upto:
                file.seek(position)
                return
            if seq > after and (record := AuditRecord.parse(line[:-1])) is not None:
                after = seq
                yield record

    def _go_on(self, after: int) -> bool:
        """Open the file with the first record behind `after`; False if there is none yet."""
        live: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):  # closed, and the next is not made yet
            live = self._path.open("rb")  # first, so that it cannot be closed unseen
        for closed in closed_files(self._path):
            if last_seq_of(closed) > after:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    self._take(closed.open("rb"), last_seq_of(closed))
                    if live is not None:
                        live.close()
                    return True
        if live is not None:
            self._take(live, 0)
        return live is not None

    def _take(self, file: BinaryIO, last: int) -> None:
        self.close()
        self._file, self._last = file, last

    def _is_exhausted(self, file: BinaryIO) -> bool:
        """Whether nothing will be added to a file that was read to its end."""
        if self._last:
            return True
        ours = os.fstat(file.fileno())
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(ours, found) or found.st_size < file.tell()
