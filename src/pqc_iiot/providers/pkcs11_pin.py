"""Where a token's PIN comes from: the URI's file, a systemd credential, or a terminal.

It is read when the token is about to be told, into one buffer that is wiped right after:
it is never an argument, an environment variable, a log line, or kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from ..errors import InvalidInputError, ProviderError
from .passphrase import find_credential, has_terminal, open_private, silent_terminal
from .pkcs11_calls import wipe

CREDENTIAL = "pqc-iiot-pin"
"""Name of the systemd credential (`LoadCredential=`, systemd.exec(5))."""

MAX_LENGTH = 255
"""In bytes; tokens have shorter limits of their own."""

Pin = tuple[bytearray, int]
"""A buffer, and how many of its bytes are the PIN."""
PinSource = Callable[[], AbstractContextManager[Pin]]
"""Reads the PIN for the time of a `with` block."""


def pin_source(pin_file: Path | None, token: str) -> PinSource:
    """The file if there is one, else the credential, else the terminal.

    Using it raises `InvalidInputError` for an empty, too long or unreadable PIN,
    `UnsafePermissionsError` where others can read the file, and `ProviderError` where there
    is nobody to ask.
    """

    @contextlib.contextmanager
    def source() -> Iterator[Pin]:
        buffer = bytearray(MAX_LENGTH + 2)  # a longer one and its line ending would show
        try:
            yield buffer, _read(pin_file or find_credential(CREDENTIAL), token, buffer)
        finally:
            wipe(buffer)

    return source


def _read(file: Path | None, token: str, buffer: bytearray) -> int:
    if file is not None:
        with open_private(file, "PIN file") as fd:
            return _fill(fd, buffer, f"the PIN file {file}")
    if not has_terminal():
        raise ProviderError(
            "the token wants a PIN and none was given",
            hint=f"add pin-file=/full/path to the URI, or give the service the credential"
            f" {CREDENTIAL} (LoadCredential=)",
        )
    with silent_terminal() as tty:
        os.write(tty, f"PIN of {token}: ".encode())
        try:
            return _fill(tty, buffer, "the PIN that was typed", line=True)
        finally:
            os.write(tty, b"\n")


def _fill(fd: int, buffer: bytearray, what: str, *, line: bool = False) -> int:
    """The PIN's length, without one line ending."""
    length = 0
    view = memoryview(buffer)
    try:
        while length < len(buffer) and (count := os.readv(fd, [view[length:]])):
            length += count
            if line and buffer[length - 1] == ord("\n"):
                break
    except OSError as cause:
        raise InvalidInputError(
            f"{what} cannot be read: {cause.strerror}",
            hint="name a file that the user of this program can read",
        ) from cause
    for ending in (ord("\n"), ord("\r")):
        if length and buffer[length - 1] == ending:
            length -= 1
    if not 0 < length <= MAX_LENGTH:
        fault = "is empty" if not length else f"is longer than {MAX_LENGTH} bytes"
        raise InvalidInputError(f"{what} {fault}", hint="it holds the PIN and nothing else")
    return length
