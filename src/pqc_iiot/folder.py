"""The state folder of one device: who may enter, who owns it, and how files get there.

Folder 0700 and files 0600, owned by the user that runs us; one process at a time; a file
is replaced as a whole and durably, or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from pathlib import Path

from .errors import InvalidInputError, StateError, StateLockedError, UnsafePermissionsError

LOCK_FILE = "lock"
_NO_DEVICE = re.compile(rf"{LOCK_FILE}|identity\.new|audit\..*")
"""What a creation leaves behind that failed before there were keys; it may be repeated."""


class StateFolder:
    """A state folder, safe to enter and locked for this process until `close`.

    `StateError` where it is missing, `UnsafePermissionsError` where others can read or
    write anything in it, `StateLockedError` where a process owns it already; with
    `create`, `InvalidInputError` where something is in it.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        if create:
            self._create()
        check_permissions(self.path)
        self._lock = self._take_lock()
        try:
            if create:  # Again: another process may have made a device in the meantime.
                self._require_empty()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(PermissionError):  # Entering it is all that it takes.
                sync_folder(self.path.parent)
        except OSError as cause:
            raise StateError(f"{self.path} cannot be made: {cause.strerror}") from cause
        self._require_empty()

    def _require_empty(self) -> None:
        try:
            found = [entry.name for entry in self.path.iterdir()]
        except OSError as cause:
            raise StateError(f"{self.path} cannot be read: {cause.strerror}") from cause
        if not all(map(_NO_DEVICE.fullmatch, found)):
            raise InvalidInputError(
                f"{self.path} is not empty: a device is never made over another",
                hint="choose another folder, or move this one away",
            )

    def _take_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(self.path / LOCK_FILE, flags, 0o600)
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
        with contextlib.suppress(OSError):  # The disk may be full; this only informs.
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
            raise StateError(
                f"{self.path / name} is longer than {limit} bytes",
                hint="put it back from a backup, or make new keys with: pqc-iiot recover",
            )
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file durably: written beside, synced, renamed, the folder synced."""
        beside = self.path / f"{name}.new"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(beside, flags, 0o600)
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

    def set_aside(self, name: str, suffix: str = "") -> None:
        """Renames the file `name` + `suffix`, if there is one, to `name` + `.old` + `suffix`."""
        path = self.path / f"{name}{suffix}"
        try:
            if path.exists():
                path.replace(self.path / f"{name}.old{suffix}")
        except OSError as cause:
            raise StateError(f"{path} cannot be put aside: {cause.strerror}") from cause

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


def check_permissions(path: Path) -> None:
    """Raises `UnsafePermissionsError` where others can read or write anything in there."""
    for entry, problem, repair in permission_problems(path):
        raise UnsafePermissionsError(f"{entry}: {problem}", hint=repair)


def permission_problems(path: Path) -> list[tuple[Path, str, str]]:
    """What is wrong with a state folder and its files, and what repairs it: in owner, kind
    and mode. `StateError` where there is no such folder."""
    try:
        folder = path.lstat()
        if not stat.S_ISDIR(folder.st_mode):
            return [(path, "is not a folder itself", "name the folder that it leads to")]
        entries = [(path, folder)]
        for entry in sorted(path.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # The owner replaces files meanwhile.
                entries.append((entry, entry.lstat()))
    except FileNotFoundError:
        raise _no_folder(path) from None
    except OSError as cause:
        raise StateError(f"{path} cannot be read: {cause.strerror}") from cause
    problems = []
    for entry, info in entries:
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            # A link may lead anywhere, and a pipe would make us wait for ever.
            problems.append((entry, "is neither a file nor a folder", f"rm {entry}"))
        elif info.st_uid != os.geteuid():
            repair = f"run as its owner, or: chown -R {os.geteuid()} {path}"
            problems.append((entry, "belongs to another user", repair))
        elif info.st_mode & 0o077:
            problem = f"others have access (mode {info.st_mode & 0o777:o})"
            problems.append((entry, problem, f"chmod -R go= {path}"))
    return problems


def _no_folder(path: Path) -> StateError:
    return StateError(
        f"there is no state folder {path}", hint=f"make one: pqc-iiot --state {path} init NAME"
    )
