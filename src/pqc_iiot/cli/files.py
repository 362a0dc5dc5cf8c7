"""Files and pipes: bounded input, and output that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import InvalidInputError
from . import output

STDIO = Path("-")
"""Stands for standard input or output."""


def read_input(source: Path, limit: int) -> bytes:
    """All of a file or of standard input; `InvalidInputError` beyond `limit` bytes."""
    try:
        if source == STDIO:
            if sys.stdin.isatty():
                output.say("", "reading from the terminal; Ctrl-D ends it")
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with source.open("rb") as file:
                data = file.read(limit + 1)
    except OSError as cause:
        raise InvalidInputError(f"{source} cannot be read: {cause.strerror}") from cause
    if len(data) > limit:
        raise InvalidInputError(f"{source} is longer than {limit} bytes")
    return data


def keep_off_terminal(target: Path, force: bool) -> None:
    """Refuses to write binary data to a terminal, unless forced."""
    if target == STDIO and sys.stdout.isatty() and not force:
        raise InvalidInputError(
            "binary data would go to the terminal", hint="name a file, use a pipe, or give --force"
        )


@contextlib.contextmanager
def writing(target: Path, *, mode: int = 0o666) -> Iterator[Callable[[bytes], None]]:
    """Opens `target` first and gives the function that writes it, once.

    A regular file appears with all of its content, durably, when the context is left, and
    not at all if it is left by an exception. `InvalidInputError` where it cannot be.
    """
    if target == STDIO:
        yield output.write_bytes
        return
    beside: Path | None = None
    with _blaming(target):
        final = target.resolve()
        if final.exists() and not stat.S_ISREG(final.stat().st_mode):
            fd = os.open(final, os.O_WRONLY | os.O_CLOEXEC)  # a device or a pipe
        else:
            beside = final.with_name(f".{final.name[:200]}.{secrets.token_hex(4)}")
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def write(data: bytes) -> None:
        view = memoryview(data)
        with _blaming(target):
            while view:
                view = view[os.write(fd, view) :]

    try:
        yield write
        if beside:
            with _blaming(target):
                os.fsync(fd)
                beside.replace(final)
                beside = None
    finally:
        os.close(fd)
        if beside:
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _blaming(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as cause:  # RuntimeError: links that lead to themselves
        reason = getattr(cause, "strerror", None) or cause
        raise InvalidInputError(f"{target} cannot be written: {reason}") from cause
