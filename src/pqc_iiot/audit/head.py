"""The head file: where the log ends, kept beside the log (`audit.head` for `audit.log`).

The writer replaces it atomically when it closes the log, and about once a second while it
writes, always after the records it covers are on disk. So it may lag behind the log and is
never ahead of it. It has no key: it shows that the end of a log was lost or restored from
a backup, not that somebody cut both files alike.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import StateError
from .record import is_fingerprint

_MAX_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a log: `log` its id (32 hex digits), `seq`, `hash` (64 hex digits)."""

    log: str
    seq: int
    hash: str

    @classmethod
    def read(cls, log_path: Path) -> Head | None:
        """The head of the log at `log_path`; None if there is no head file.

        Raises `StateError` if the head file cannot be read or is none.
        """
        path = head_path(log_path)
        try:
            with path.open("rb") as file:
                members = json.loads(file.read(_MAX_BYTES))
            head = cls(log=members["log"], seq=members["seq"], hash=members["hash"])
            if _is_well_formed(head):
                return head
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        raise StateError(
            f"{path} is no head of an audit log", hint="Verify the log, then remove this file."
        )

    def write(self, log_path: Path) -> None:
        """Replace the head file, durable before it is visible. Raises `OSError`."""
        path = head_path(log_path)
        fresh = path.with_name(path.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(json.dumps({"v": 1, **asdict(self)}) + "\n")
            file.flush()
            os.fsync(fd)
        fresh.replace(path)


def head_path(log_path: Path) -> Path:
    """The head file that belongs to a log file."""
    return log_path.with_suffix(".head")


def _is_well_formed(head: Head) -> bool:
    return (
        type(head.log) is str
        and type(head.seq) is int
        and 0 < head.seq < 2**63
        and is_fingerprint(head.hash) is not None
    )
