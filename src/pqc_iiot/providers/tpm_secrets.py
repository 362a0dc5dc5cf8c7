"""Secrets on their way to and from a TPM: in native buffers, wiped after use.

They are never Python objects: a buffer is filled by the kernel or by the TPM, used where it
is, and moved into the core's locked memory or overwritten.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpm2_pytss.types import TPM2B_AUTH, TPM2B_SENSITIVE_CREATE, ffi

from ..errors import InvalidInputError
from .passphrase import open_private

AUTH_SIZE = 32
"""No longer than the digest of the objects' Names (Part 1, 19.6.4.3): SHA-256."""
KEK_SIZE = 32


class Auth:
    """An authorisation value in native memory."""

    def __init__(self) -> None:
        self.native = TPM2B_AUTH()

    def __len__(self) -> int:
        return int(self.native._cdata.size)

    def take(self, source: memoryview) -> None:
        """Copies 1 to 32 bytes from a native buffer, which stays as it is."""
        auth = self.native._cdata
        view(auth.buffer, AUTH_SIZE)[: len(source)] = source
        auth.size = len(source)

    def read(self, path: Path, what: str) -> None:
        """Reads a file that only its owner can read, less the line ending.

        `InvalidInputError` for an empty, too long or unreadable one,
        `UnsafePermissionsError` where others can read it.
        """
        with native_buffer(AUTH_SIZE + 3) as buffer, open_private(path, what) as fd:
            length = 0
            while length < len(buffer) and (count := os.readv(fd, [buffer[length:]])):
                length += count
            for ending in (ord("\n"), ord("\r")):
                if length and buffer[length - 1] == ending:
                    length -= 1
            if not 0 < length <= AUTH_SIZE:
                fault = "is empty" if not length else f"is longer than {AUTH_SIZE} bytes"
                raise InvalidInputError(
                    f"the {what} {path} {fault}", hint="it holds one line and nothing else"
                )
            self.take(buffer[:length])

    def wipe(self) -> None:
        """Overwrites it; its length is 0 then."""
        auth = self.native._cdata
        view(auth.buffer, AUTH_SIZE)[:] = bytes(AUTH_SIZE)
        auth.size = 0


def view(array: Any, length: int) -> memoryview:
    """The first bytes of a native array, writable, where they are."""
    return memoryview(ffi.buffer(array, length))


@contextlib.contextmanager
def native_buffer(length: int) -> Iterator[memoryview]:
    """A native buffer, overwritten afterwards."""
    owner = ffi.new("uint8_t[]", length)
    buffer = view(owner, length)
    try:
        yield buffer
    finally:
        buffer[:] = bytes(length)


def fill_random(buffer: memoryview) -> None:
    """From the kernel straight into a native buffer."""
    fd = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(buffer):
            done += os.readv(fd, [buffer[done:]])
    finally:
        os.close(fd)


@contextlib.contextmanager
def sensitive(auth: Auth, data: memoryview | None = None) -> Iterator[Any]:
    """What a TPM gets to create an object: its authorisation and, to seal, its content."""
    made = TPM2B_SENSITIVE_CREATE()
    inner = made._cdata.sensitive
    try:
        view(inner.userAuth.buffer, AUTH_SIZE)[:] = view(auth.native._cdata.buffer, AUTH_SIZE)
        inner.userAuth.size = len(auth)
        if data is not None:
            view(inner.data.buffer, len(data))[:] = data
            inner.data.size = len(data)
        yield made
    finally:
        view(inner.userAuth.buffer, AUTH_SIZE)[:] = bytes(AUTH_SIZE)
        if data is not None:
            view(inner.data.buffer, len(data))[:] = bytes(len(data))
