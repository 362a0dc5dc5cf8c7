"""The state folder of one device: who may enter, who owns it, and how files get there.

Folder 0700 and files 0600, owned by the user that runs us; one process at a time; a file
is replaced as a whole and durably, or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from .errors import InvalidInputError, StateError, StateLockedError, UnsafePermissionsError

_LOCK = "lock"


class StateFolder:
    """A state folder, locked for this process until `close`; `check` it before use."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path)
        if create:
            self._create()
        self._lock: int | None = self._take_lock()

    def _create(self) -> None:
        if self.path.is_dir() and any(entry.name != _LOCK for entry in self.path.iterdir()):
            raise InvalidInputError(
                f"{self.path} is not empty: a device is never made over another",
                hint="choose another folder, or move this one away",
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as cause:
            raise StateError(f"{self.path} cannot be made: {cause.strerror}") from cause

    def check(self) -> None:
        """Raises `UnsafePermissionsError` where others can read or write anything."""
        problems = permission_problems(self.path)
        if problems:
            path, problem = problems[0]
            raise UnsafePermissionsError(
                f"{path}: {problem}",
                hint=f"chmod 700 {self.path} && chmod -R go= {self.path}",
            )

    def _take_lock(self) -> int:
        try:
            fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise _no_folder(self.path) from None
        except OSError as cause:
            raise StateError(f"{self.path} cannot be locked: {cause.strerror}") from cause
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise StateLockedError(
                f"process {owner or 'unknown'} owns the state folder {self.path}",
                hint="stop it first, or use its own commands: one process at a time",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a file of at most `limit` bytes; None where there is none."""
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise StateError(f"{self.path / name} cannot be read: {cause.strerror}") from cause
        if len(data) > limit:
            raise StateError(f"{self.path / name} is longer than {limit} bytes")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file durably: written beside, synced, renamed, the folder synced."""
        beside = self.path / f"{name}.new"
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            beside.replace(self.path / name)
            sync_folder(self.path)
        except OSError as cause:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise StateError(
                f"{self.path / name} cannot be written: {cause.strerror}",
                hint="check free space and permissions",
            ) from cause

    def close(self) -> None:
        """Gives the folder free; idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sync_folder(path: Path) -> None:
    """Makes renames and new names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def permission_problems(path: Path) -> list[tuple[Path, str]]:
    """What is wrong with the folder's and its files' owners and modes."""
    try:
        folder = path.lstat()
        entries = [(path, folder), *((entry, entry.lstat()) for entry in sorted(path.iterdir()))]
    except FileNotFoundError:
        raise _no_folder(path) from None
    except OSError as cause:
        raise StateError(f"{path} cannot be read: {cause.strerror}") from cause
    problems = []
    for entry, info in entries:
        if entry == path and not stat.S_ISDIR(info.st_mode):
            problems.append((entry, "is not a folder"))
        elif stat.S_ISLNK(info.st_mode):
            problems.append((entry, "is a symbolic link"))
        elif info.st_uid != os.geteuid():
            problems.append((entry, "belongs to another user"))
        elif info.st_mode & 0o077:
            problems.append((entry, f"others have access (mode {info.st_mode & 0o777:o})"))
    return problems


def _no_folder(path: Path) -> StateError:
    return StateError(
        f"there is no state folder {path}", hint=f"make one: pqc-iiot --state {path} init NAME"
    )
