"""Reading the end of a log, and what is added to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import StateError
from .record import MAX_LINE, AuditRecord
from .segments import open_newest_first

_BLOCK: Final = 64 * 1024


def tail(path: str | os.PathLike[str], n: int = 10) -> list[AuditRecord]:
    """The records in the last `n` lines, oldest first, also from files that are closed.

    Lines that are no record are left out: `verify` is what finds them. Raises `StateError`
    if the log cannot be read.
    """
    lines: list[bytes] = []
    files = open_newest_first(Path(path))
    try:
        for file in files:
            file.seek(_offset_of_last(file, n - len(lines)))
            lines = [*_complete_lines(file), *lines]
            if len(lines) >= n:
                break
    except OSError as error:
        raise _unreadable(error) from error
    finally:
        files.close()
    return [record for line in lines if (record := AuditRecord.parse(line))]


def follow(
    path: str | os.PathLike[str],
    n: int = 0,
    *,
    stop: threading.Event | None = None,
    interval: float = 0.25,
) -> Iterator[AuditRecord]:
    """The records in the last `n` lines, then each one that is added.

    Looks every `interval` seconds, until `stop` is set. Goes on with the new file when the
    log is moved away. Raises `StateError` if the log cannot be read at first.
    """
    stop = stop or threading.Event()
    file = _open(Path(path))
    try:
        file.seek(_offset_of_last(file, n))
        while True:
            for line in _complete_lines(file):
                if record := AuditRecord.parse(line):
                    yield record
            if _is_replaced(file, Path(path)):
                for line in _complete_lines(file):  # what came between the two looks
                    if record := AuditRecord.parse(line):
                        yield record
                file.close()
                file = _open(Path(path))
            elif stop.wait(interval):
                return
    finally:
        file.close()


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> StateError:
    return StateError(f"the audit log cannot be read: {error}", hint="Check the path.")


def _complete_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; stays in front of one whose end is not there yet."""
    while True:
        position = file.tell()
        line = file.readline(MAX_LINE + 1)
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) <= MAX_LINE:
            file.seek(position)
            return


def _offset_of_last(file: BinaryIO, n: int) -> int:
    """Where the last `n` complete lines begin: behind the line end number n + 1 from the end."""
    end = file.seek(0, os.SEEK_END)
    ends_left = n + 1
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        block = file.read(end - start)
        found = len(block)
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            ends_left -= 1
            if ends_left == 0:
                return start + found + 1
        end = start
    return 0


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    ours = os.fstat(file.fileno())
    try:
        found = path.stat()
    except FileNotFoundError:
        return False  # moved away, and the writer has not made the next one yet
    return not os.path.samestat(ours, found) or found.st_size < file.tell()
