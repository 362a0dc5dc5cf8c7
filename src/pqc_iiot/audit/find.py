"""Finding records by number: in a log, and in what was moved away from it.

A log is sorted by `seq`, so a record is found by halving: some thirty short reads in
gigabytes. The log's closed files are searched too, and files beside it whose names begin
with the log's, where other programs leave what they rotate. Nothing found here is believed
because of where it was found; whoever asks compares hashes.
"""

from __future__ import annotations

import os
import re
from binascii import hexlify
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .merkle import leaf_hash
from .record import MAX_LINE
from .segments import closed_files, last_seq_of

_BLOCK: Final = 4096
_SEQ = re.compile(rb'\n(\{"v":1,"seq":([0-9]{1,19}),)').search


def find_line(log: Path, seq: int) -> bytes | None:
    """The line of record `seq`, without its end; None if it is nowhere."""
    return next(find_lines(log, seq, seq + 1), None)


def find_lines(log: Path, first: int, end: int) -> Iterator[bytes]:
    """The lines of the records from `first` to before `end`, as far as they are there
    without a gap."""
    found = True
    while first < end and found:
        found = False
        for path in _files(log, first):
            for line in _lines_of(path, first, end):
                yield line
                first += 1
                found = True


def find_leaves(log: Path, begin: int, end: int, previous: bytes = b"") -> bytes | None:
    """The leaf hashes with these indexes (record `seq` has index `seq` - 1), of records that
    follow each other, and the one with the hash `previous` if that is given; None if a record
    is missing or does not follow."""
    hashes = []
    for line in find_lines(log, begin + 1, end + 1):
        if previous and not line.endswith(b'"prev":"%b"}' % hexlify(previous)):
            return None
        previous = leaf_hash(line)
        hashes.append(previous)
    return b"".join(hashes) if len(hashes) == end - begin else None


def _files(log: Path, seq: int) -> Iterator[Path]:
    yield log
    yield from (path for path in closed_files(log) if last_seq_of(path) >= seq)
    yield from sorted(log.parent.glob(f"{log.name}?*"))


def _lines_of(path: Path, first: int, end: int) -> Iterator[bytes]:
    if path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(_offset(file.fileno(), first))
        while first < end and (line := file.readline(MAX_LINE + 1)).endswith(b"\n"):
            match = _SEQ(b"\n" + line)
            if match is None:
                continue  # a torn tail's bytes are no record
            if int(match[2]) != first:
                return
            yield line[:-1]
            first += 1


def _offset(fd: int, seq: int) -> int:
    """Where the first record begins whose number is `seq` or higher."""
    size = os.fstat(fd).st_size
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        begin, found = _next_record(fd, middle, size)
        if found is None or found >= seq:
            high = middle
        else:
            low = begin + 1
    return _next_record(fd, low, size)[0]


def _next_record(fd: int, offset: int, size: int) -> tuple[int, int | None]:
    """Where the first record at or behind `offset` begins, and its number; the end if
    there is none."""
    # With the line end in front of it; in front of the first one there is none.
    start, data = max(0, offset - 1), b"" if offset else b"\n"
    behind = start - len(data)
    block = _BLOCK
    while piece := os.pread(fd, block, behind + len(data)):
        data += piece
        if match := _SEQ(data):
            return behind + match.start(1), int(match[2])
        block *= 2
    return size, None
