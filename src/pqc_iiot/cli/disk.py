"""What `doctor` looks at on the disk: whether what is synced can be expected to stay."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from ..folder import sync_folder

_MEMORY = frozenset({"tmpfs", "ramfs"})
_ELSEWHERE = frozenset({"9p", "ceph", "cifs", "nfs", "nfs4", "smb3", "virtiofs", "vboxsf"})
"""Another machine syncs for us, and how well is its affair; as with everything on FUSE."""
_UNSAFE_OPTIONS = frozenset({"nobarrier", "barrier=0", "volatile"})
"""ext4(5), xfs(5); and for overlayfs, `volatile` leaves every fsync out."""
_OVERRIDES = ("libeatmydata",)
"""Libraries that replace fsync by nothing, if they are preloaded."""
_IMPLAUSIBLE = 10e-6
"""Seconds. A write, a journal entry and a flush take longer on any storage that keeps them:
the fastest with protected caches take some 20 microseconds."""


@dataclass(frozen=True, slots=True)
class Sync:
    """What was measured and found: the median seconds of a write with fsync, and what speaks
    against their lasting, or empty."""

    seconds: float
    doubt: str


def look_at_sync(path: Path) -> Sync:
    """Measures in a folder, and looks at what it is on. `OSError` where it cannot."""
    probe, times = path / f"doctor.{secrets.token_hex(4)}", []
    for _ in range(9):
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            start = time.perf_counter()
            os.write(fd, b"x")
            os.fsync(fd)
            times.append(time.perf_counter() - start)
        finally:
            os.close(fd)
            probe.unlink()
    sync_folder(path)
    median = sorted(times)[len(times) // 2]
    return Sync(median, _doubt(median, *mounted(path), _preloaded()))


def _doubt(seconds: float, kind: str, options: frozenset[str], preloaded: str) -> str:
    if preloaded:
        return f"{preloaded} is loaded, which leaves fsync out"
    if kind in _MEMORY:
        return f"the folder is in memory only ({kind})"
    if unsafe := options & _UNSAFE_OPTIONS:
        return f"the file system ({kind}) is mounted with {min(unsafe)}, which leaves flushes out"
    if kind in _ELSEWHERE or kind.startswith("fuse"):
        return f"the file system ({kind}) is another machine's or program's: it may answer early"
    if seconds < _IMPLAUSIBLE:
        return (
            f"write and fsync take {seconds * 1e6:.1f} us on {kind or 'this file system'}:"
            " no disk is that fast, so something answers before it has written"
        )
    return ""


def mounted(path: Path) -> tuple[str, frozenset[str]]:
    """Type and options of the file system that a path is on, or empty: proc(5), `mountinfo`."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            fields = line.split()
            if fields[2] == number:
                end = fields.index("-")
                options = [*fields[5].split(","), *fields[end + 3].split(",")]
                return fields[end + 1], frozenset(options)
    except (OSError, ValueError, IndexError):
        pass
    return "", frozenset()


def _preloaded() -> str:
    try:
        maps = Path("/proc/self/maps").read_text("utf-8", "replace")
    except OSError:
        return ""
    return next((name for name in _OVERRIDES if name in maps), "")
