"""Finding records: one pass over all files of a log, in constant memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from ..errors import InvalidInputError, StateError
from .catalogue import EVENTS, Severity
from .record import MAX_LINE, AuditRecord
from .segments import open_oldest_first

TRUSTING: Final = frozenset({"peer_added", "peer_approved", "peer_pinned", "peer_rotated"})
"""Events after which a fingerprint has a name that this device gave it."""

_MAX_KEY_SETS: Final = 1024
_AGO = re.compile(r"([0-9]{1,6})([smhd])").fullmatch
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DIGITS = re.compile(r"[0-9a-f]{8,64}").fullmatch


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for; empty is everything.

    `begin` and `end` are times as `moment` makes them, `begin` included, `end` not. `events`
    are ids or names; `peer` is a fingerprint, at least its first 8 hex digits, or a name:
    also of what is known of the fingerprints that this device once trusted under it.
    `severity` is the least one, `reason` the `code` of an error.
    """

    begin: str = ""
    end: str = ""
    events: frozenset[str] = field(default_factory=frozenset)
    peer: str = ""
    severity: Severity = Severity.INFORMATIONAL
    reason: str = ""

    def __post_init__(self) -> None:
        known = EVENTS.keys() | {event.id for event in EVENTS.values()}
        if unknown := self.events - known:
            raise InvalidInputError(
                f"there is no event {min(unknown)!r}", hint="docs/audit.md has them all"
            )


def search(path: str | os.PathLike[str], query: Query) -> Iterator[AuditRecord]:
    """The records that match, oldest first. `StateError` if the log cannot be read."""
    digits = query.peer if _DIGITS(query.peer) else ""
    named: set[str] = set()
    for record in read_all(path):
        by_name = query.peer != "" and record.detail.get("name") == query.peer
        if by_name and record.event in TRUSTING and len(named) < _MAX_KEY_SETS:
            named.add(record.peer)
        if (
            query.severity <= record.severity
            and query.begin <= record.time
            and (not query.end or record.time < query.end)
            and (not query.events or record.event in query.events or record.id in query.events)
            and (not query.reason or record.reason == query.reason)
            and (
                not query.peer
                or by_name
                or record.peer in named
                or (digits and record.peer.startswith(digits))
            )
        ):
            yield record


def read_all(path: str | os.PathLike[str]) -> Iterator[AuditRecord]:
    """Every record of a log, oldest first; lines that are no record are left out. Raises
    `StateError` if it cannot be read."""
    try:
        for file in open_oldest_first(Path(path)):
            while line := file.readline(MAX_LINE + 1):
                if record := AuditRecord.parse(line.removesuffix(b"\n")):
                    yield record
    except OSError as error:
        raise StateError(f"the audit log cannot be read: {error}", hint="check the path") from error


def moment(text: str, now: datetime | None = None) -> str:
    """A time as records have it, of "2026-02-03", "2026-02-03T04:05" (UTC, unless an offset
    is given) or how long ago: "90s", "15m", "24h", "7d". `InvalidInputError` for others."""
    try:
        if ago := _AGO(text):
            now = now or datetime.now(timezone.utc)
            found = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            found = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text))
            if found.tzinfo is None:
                found = found.replace(tzinfo=timezone.utc)
        found = found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"{text[:40]!r} is no time", hint="such as 2026-02-03, 2026-02-03T04:05 or 24h"
        ) from None
    return f"{found:%Y-%m-%dT%H:%M:%S}.{found.microsecond // 1000:03d}Z".rjust(24, "0")
