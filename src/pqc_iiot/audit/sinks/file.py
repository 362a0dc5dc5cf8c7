"""A file that rotates by size and age; what is closed is read-only (0400) and bounded.

Nothing is written twice: the last line on disk says how far the file is. A line that a
power cut tore is taken back before the file goes on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from ..record import AuditRecord
from ..segments import close_file, closed_files, keep_closed, last_seq_of
from .base import Sink
from .config import SinkConfig

# The first of these in a line is the record's own `seq`, in every format.
_SEQ: Final = re.compile(rb'(?:"seq"|"sequence"):([0-9]{1,19})|externalId=([0-9]{1,19})')
_LOOK_BACK: Final = 128 * 1024  # more than a line in any format has
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class RotatingFile(Sink):
    """Options: `max_bytes` and `max_age` (seconds) of a file, `keep` (closed files)."""

    def __init__(self, config: SinkConfig) -> None:
        super().__init__(config)
        self._path = Path(unquote(config.parts.path))
        self._max_bytes = config.number("max_bytes", 16 * 1024 * 1024)
        self._max_age = config.number("max_age", 24 * 3600)
        self._keep = config.number("keep", 15)
        self._fd = -1
        self._opened = 0.0  # on the monotonic clock: the age counts from the opening
        self._last_seq = 0

    def delivered(self) -> int:
        """See `Sink`."""
        self._open()
        if self._last_seq:
            return self._last_seq
        closed = closed_files(self._path)
        return last_seq_of(closed[-1]) if closed else 0

    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """See `Sink`."""
        self._open()
        for record in records:
            line = self.format(record).encode() + b"\n"
            if self._is_full(len(line)):
                self._close_file()
                self._open()
            self._write(line)
            self._last_seq = record.seq
        os.fsync(self._fd)
        return 0

    def close(self) -> None:
        """See `Sink`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:
            self.close()  # opening it again finds out what is there
            raise

    def _is_full(self, length: int) -> bool:
        if not self._last_seq:
            return False
        size = os.fstat(self._fd).st_size
        age = time.monotonic() - self._opened
        return size + length > self._max_bytes or age >= self._max_age

    def _close_file(self) -> None:
        os.fsync(self._fd)
        if close_file(self._path, self._last_seq):
            self.close()
            keep_closed(self._path, self._keep)

    def _has_its_name(self) -> bool:
        """Whether nobody has moved or removed the file: nobody would find what goes there."""
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        if self._fd >= 0 and self._has_its_name():
            return
        self.close()
        self._fd = os.open(self._path, _FLAGS, 0o600)
        self._opened = time.monotonic()
        size = os.fstat(self._fd).st_size
        start = max(0, size - _LOOK_BACK)
        end = os.pread(self._fd, _LOOK_BACK, start)
        whole = end.rfind(b"\n") + 1
        os.ftruncate(self._fd, start + whole)
        line = end[:whole].rstrip(b"\n").rpartition(b"\n")[2]
        found = _SEQ.search(line)
        self._last_seq = int(found[1] or found[2]) if found else 0
