"""Where a passphrase comes from: a file, a systemd credential, or a terminal.

It goes from a file descriptor straight into the core's locked memory: it is never a Python
object, an argument or an environment variable.
"""

from __future__ import annotations

import contextlib
import os
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

from .._core import Secret
from ..errors import InvalidInputError, UnsafePermissionsError
from .base import PassphraseSource

CREDENTIAL = "pqc-iiot-passphrase"
"""Name of the systemd credential (`LoadCredential=`, systemd.exec(5))."""

BACKUP_CREDENTIAL = "pqc-iiot-backup-passphrase"
"""The same for the passphrase of backups."""

MIN_LENGTH = 8


def from_file(path: str | os.PathLike[str]) -> PassphraseSource:
    """The first 1024 bytes of a file that only its owner can read, less the line ending.

    `UnsafePermissionsError` where others can read it.
    """

    def source(new: bool) -> Secret:
        with open_private(path, "passphrase file") as fd:
            return _long_enough(Secret.read_fd(fd), new)

    return source


@contextlib.contextmanager
def open_private(path: str | os.PathLike[str], what: str) -> Iterator[int]:
    """A descriptor for reading a file that only its owner can read.

    `InvalidInputError` where it cannot be opened, `UnsafePermissionsError` where others can
    read it; `what` is what they call it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as cause:
        raise InvalidInputError(
            f"the {what} {os.fspath(path)} cannot be read: {cause.strerror}",
            hint="name a file that the user of this program can read",
        ) from cause
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise UnsafePermissionsError(
                f"others can read the {what} {os.fspath(path)}",
                hint=f"chmod 600 {os.fspath(path)}",
            )
        yield fd
    finally:
        os.close(fd)


def from_credential(name: str = CREDENTIAL) -> PassphraseSource | None:
    """systemd's credential of this name, where the service has been given one."""
    path = find_credential(name)
    return None if path is None else from_file(path)


def find_credential(name: str) -> Path | None:
    """The file of a systemd credential, where the service has been given it."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return path if folder and (path := Path(folder, name)).exists() else None


def from_prompt(of: str = "") -> PassphraseSource | None:
    """Asks at the terminal, without echo and twice for a new one; None without one. `of`
    names what the passphrase is for, where there is more than one."""
    if not has_terminal():
        return None

    def source(new: bool) -> Secret:
        with silent_terminal() as tty:
            what = f"passphrase of {of}: " if of else "passphrase: "
            first = _ask(tty, f"New {what}" if new else what.capitalize())
            if new:
                _long_enough(first, new)
                again = _ask(tty, "The same again: ")
                # Compared by their MACs: neither is ever readable here.
                if not again.verify_mac(b"same", first.mac(b"same")):
                    raise InvalidInputError("the two passphrases differ")
            return first

    return source


def default_source(name: str = CREDENTIAL, of: str = "") -> PassphraseSource | None:
    """A systemd credential if there is one, else the terminal, else None."""
    return from_credential(name) or from_prompt(of)


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def silent_terminal() -> Iterator[int]:
    """A descriptor for the terminal, which shows nothing of what is typed meanwhile."""
    tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    before = termios.tcgetattr(tty)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(tty, termios.TCSAFLUSH, silent)
        yield tty
    finally:
        termios.tcsetattr(tty, termios.TCSAFLUSH, before)
        os.close(tty)


def _ask(tty: int, prompt: str) -> Secret:
    os.write(tty, prompt.encode())
    try:
        return Secret.read_fd(tty, line=True)
    except InvalidInputError as cause:
        raise InvalidInputError("no passphrase was typed") from cause
    finally:
        os.write(tty, b"\n")


def _long_enough(secret: Secret, new: bool) -> Secret:
    if new and len(secret) < MIN_LENGTH:
        raise InvalidInputError(
            f"a new passphrase has at least {MIN_LENGTH} characters",
            hint="several random words are easy to type and hard to guess",
        )
    return secret
