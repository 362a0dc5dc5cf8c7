"""The file of a log's checkpoints (`audit.checkpoints` for `audit.log`), append-only.

Notes stand one after the other, each ended by an empty line. A checkpoint that is
countersigned later is added again, with all its signatures. A note that was cut short by
a loss of power was never shown to anyone; the writer drops it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import InvalidFrameError, StateError
from .checkpoint import MAX_CHECKPOINT, Checkpoint

_SIGNATURE: Final = "— ".encode()
_END: Final = 1 << 20  # bytes that hold the newest checkpoints with all their signatures


def checkpoints_path(log: Path) -> Path:
    """The file of the checkpoints that belong to a log file."""
    return log.with_suffix(".checkpoints")


def read_checkpoints(log: Path) -> Iterator[Checkpoint]:
    """Every checkpoint as it stands there, oldest first; none without a file.

    `StateError` where something else stands there, but for a note cut short at the end.
    """
    note: list[bytes] = []
    length = 0
    try:
        with checkpoints_path(log).open("rb") as file:
            while line := file.readline(MAX_CHECKPOINT):
                length += len(line)
                if length > MAX_CHECKPOINT:
                    raise InvalidFrameError("a note is too long")
                if line != b"\n" or not (note and note[-1].startswith(_SIGNATURE)):
                    note.append(line)
                    continue
                yield Checkpoint.parse(b"".join(note))
                note, length = [], 0
    except FileNotFoundError:
        return
    except (OSError, InvalidFrameError) as cause:
        raise _damaged(checkpoints_path(log), cause) from cause


def last_checkpoint(log: Path, above: int = 0) -> Checkpoint | None:
    """The newest checkpoint, with the cosignatures that it got; None if there is none of
    more than `above` records. Errors as `read_checkpoints`."""
    newest: Checkpoint | None = None
    for checkpoint in _read_end(log):
        if newest is None or checkpoint.size > newest.size:
            newest = checkpoint
        elif checkpoint.text == newest.text:
            newest = newest.merged(checkpoint.lines)
    return newest if newest is not None and newest.size > above else None


class CheckpointWriter:
    """Adds to the file. Opening it drops a note that was cut short; every method raises
    `OSError` where the disk fails."""

    def __init__(self, log: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(checkpoints_path(log), flags, 0o600)
        self._size = os.fstat(self._fd).st_size
        data = os.pread(self._fd, _END, max(0, self._size - _END))
        self._size -= len(data) - _end_of_notes(data)
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)

    def append(self, checkpoint: Checkpoint) -> None:
        """Adds a checkpoint, durably and whole or not at all."""
        data = checkpoint.encode() + b"\n"
        try:
            if os.write(self._fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_end(log: Path) -> Iterator[Checkpoint]:
    path = checkpoints_path(log)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            data = file.read(_END)
        blocks = data[: _end_of_notes(data)].split(b"\n\n")[:-1]
        if size > _END:  # begin behind the first note that is seen to end
            while blocks and not blocks.pop(0).startswith(_SIGNATURE):
                pass
        for text, lines in zip(blocks[::2], blocks[1::2], strict=True):
            yield Checkpoint.parse(text + b"\n\n" + lines + b"\n")
    except FileNotFoundError:
        return
    except (OSError, ValueError, InvalidFrameError) as cause:
        raise _damaged(path, cause) from cause


def _end_of_notes(data: bytes) -> int:
    """Behind the last complete note."""
    end = data.rfind(b"\n\n")
    while end >= 0:
        before = data.rfind(b"\n\n", 0, end)
        if data.startswith(_SIGNATURE, before + 2 if before >= 0 else 0):
            return end + 2
        end = before
    return 0


def _damaged(path: Path, cause: Exception) -> StateError:
    return StateError(
        f"{path} is no file of checkpoints: {cause}", hint="put it back from a backup"
    )
