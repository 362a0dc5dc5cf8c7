"""A log in several files: the live one, and closed ones beside it, read-only and bounded.

When `audit.log` has reached its size it becomes `audit-<last seq, 20 digits>.log` with
mode 0400, and the chain goes on in a new `audit.log`. The oldest closed files are removed
so that disks stay bounded. Files of the sinks are closed in the same way.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from .record import MAX_LINE

_SEQ: Final = re.compile(rb'\{"v":1,"seq":([0-9]{1,19}),')
_READ_ONLY: Final = 0o400


@dataclass(frozen=True, slots=True)
class Retention:
    """How large a file grows (bytes) and how many closed ones are kept (at least 1)."""

    file_bytes: int = 16 * 1024 * 1024
    closed_files: int = 15


def log_files(path: str | os.PathLike[str]) -> list[Path]:
    """Every file of a log, the oldest first, the live one last (if it is there)."""
    live = Path(path)
    return closed_files(live) + ([live] if live.exists() else [])


def closed_files(live: Path) -> list[Path]:
    """The closed files of a log, the oldest first."""
    name = re.compile(rf"{re.escape(live.stem)}-[0-9]{{20}}{re.escape(live.suffix)}").fullmatch
    if not live.parent.is_dir():
        return []
    return sorted(file for file in live.parent.iterdir() if name(file.name))


def open_newest_first(live: Path) -> Generator[BinaryIO, None, None]:
    """Every file of a log, open, the live one first; each is closed when the next is asked
    for. None is left out or comes twice when a file is closed or removed meanwhile. Raises
    `OSError` where there is no file at all.
    """
    yield from _open_all(live, newest_first=True)


def open_oldest_first(live: Path) -> Generator[BinaryIO, None, None]:
    """The same in the other order."""
    yield from _open_all(live, newest_first=False)


def _open_all(live: Path, *, newest_first: bool) -> Generator[BinaryIO, None, None]:
    try:
        last = live.open("rb")  # before the closed ones are looked for
    except FileNotFoundError:
        if not closed_files(live):
            raise
        last = None  # the writer has not made the next one yet
    with last or contextlib.nullcontext():
        line = last.readline(MAX_LINE) if last is not None else b""
        if last is not None:
            last.seek(0)
        beyond = seq_of(line) or 2**63
        # Those that were closed since stay out, unless there was nothing in the live one.
        closed = [path for path in closed_files(live) if last_seq_of(path) < beyond]
        files: list[Path | BinaryIO] = [*closed]
        if last is not None and (line or not closed):
            files.append(last)
        for file in reversed(files) if newest_first else files:
            if isinstance(file, Path):
                with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:
                    yield opened
            else:
                yield file


def closed_name(live: Path, last_seq: int) -> Path:
    """What a file is called once it is closed behind the record `last_seq`."""
    return live.with_name(f"{live.stem}-{last_seq:020d}{live.suffix}")


def last_seq_of(closed: Path) -> int:
    """The `seq` of the last record in a closed file, by its name."""
    return int(closed.stem[-20:])


def close_file(live: Path, last_seq: int) -> bool:
    """Give the live file its closed name; False where a file has that name.

    The caller has synced it, and calls `keep_closed` next. Raises `OSError`.
    """
    closed = closed_name(live, last_seq)
    if closed.exists():
        return False  # never over another; the next record asks for another name
    live.rename(closed)
    return True


def keep_closed(live: Path, keep: int) -> list[tuple[Path, int, int]]:
    """Make closed files read-only (0400), and remove the oldest beyond `keep`; of each one
    removed its path and its first and last `seq` (the first is 0 if unknown)."""
    closed = closed_files(live)
    removed = []
    for file in closed[: max(0, len(closed) - keep)]:
        removed.append((file, first_seq_of(file), last_seq_of(file)))
        file.unlink()
    for file in closed[len(removed) :]:
        if file.stat().st_mode & 0o777 != _READ_ONLY:
            file.chmod(_READ_ONLY)
    return removed


def first_seq_of(file: Path) -> int:
    """The `seq` of the first record in a file of the log, 0 if there is none."""
    with file.open("rb") as stream:
        return seq_of(stream.readline(MAX_LINE))


def seq_of(line: bytes) -> int:
    """The `seq` that a line begins with, 0 if it is no record."""
    found = _SEQ.match(line)
    return int(found[1]) if found else 0
