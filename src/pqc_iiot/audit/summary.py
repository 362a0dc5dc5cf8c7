"""What a log says in numbers: one pass, in bounded memory whoever wrote its names."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from .catalogue import Severity
from .record import AuditRecord
from .search import TRUSTING

OTHERS: Final = "others"
"""Counts what there was no room for."""

_MAX_KEYS: Final = 10_000
_MAX_LISTED: Final = 500
_TRUST: Final = {
    "peer_pending": "waits",
    "peer_pending_dropped": "forgotten",
    "peer_added": "approved",
    "peer_approved": "approved",
    "peer_pinned": "pinned, unchecked",
    "peer_rotated": "trusted",
    "peer_revoked": "revoked",
}
_KEYS: Final = ("key_made", "key_loaded", "key_rotated")
SUPPRESSED: Final = "suppressed"
"""Beside the severities: refusals that were only counted."""


@dataclass(slots=True)
class PeerSummary:
    """A fingerprint: the name under which it was trusted last (or the one it claims), what it
    is now, and how many of its frames and bundles were refused."""

    name: str = ""
    state: str = ""
    since: str = ""
    refused: int = 0


@dataclass(slots=True)
class Summary:
    """Counts of the records given to `add`, and what they say of keys and peers.

    `hours` are by the time's first 13 characters ("2026-02-03T04"); `refusals` are those of
    kind 4 by hour and then by severity's label, with those that were only counted under
    `SUPPRESSED`. `peers` and `key_sets` are by fingerprint, `notable` are the last records
    of severity high and above.
    """

    records: int = 0
    first: AuditRecord | None = None
    last: AuditRecord | None = None
    events: Counter[str] = field(default_factory=Counter)
    severities: Counter[str] = field(default_factory=Counter)
    by_peer: Counter[str] = field(default_factory=Counter)
    hours: Counter[str] = field(default_factory=Counter)
    refusals: dict[str, Counter[str]] = field(default_factory=dict)
    peers: dict[str, PeerSummary] = field(default_factory=dict)
    key_sets: dict[str, AuditRecord] = field(default_factory=dict)
    notable: deque[AuditRecord] = field(default_factory=lambda: deque(maxlen=_MAX_LISTED))

    def add_all(self, records: Iterable[AuditRecord]) -> Summary:
        """Takes records in order; returns itself."""
        for record in records:
            self.add(record)
        return self

    def add(self, record: AuditRecord) -> None:
        """Takes one record into all numbers."""
        self.note(record)
        self.records += 1
        self.first = self.first or record
        self.last = record
        hour = record.time[:13]
        _count(self.events, record.event)
        self.severities[record.severity.label] += 1
        _count(self.hours, hour)
        if record.peer:
            _count(self.by_peer, record.peer)
        if record.severity >= Severity.HIGH:
            self.notable.append(record)
        if record.id.startswith("PQC-4"):
            self._add_refusals(hour, record.severity.label, 1)
            if record.peer in self.peers:
                self.peers[record.peer].refused += 1
        elif str(record.detail.get("suppressed", "")).startswith("refused_"):
            count = record.detail.get("count", 0)
            self._add_refusals(hour, SUPPRESSED, count if isinstance(count, int) else 0)

    def note(self, record: AuditRecord) -> None:
        """Takes what a record from before says of keys and peers, and counts nothing."""
        if record.event in _KEYS:
            own = str(record.detail.get("fingerprint", ""))
            if own in self.key_sets or len(self.key_sets) < _MAX_LISTED:
                self.key_sets[own] = record
        elif record.event in _TRUST and record.peer:
            if record.peer not in self.peers and len(self.peers) >= _MAX_KEYS:
                return
            peer = self.peers.setdefault(record.peer, PeerSummary())
            if record.event in TRUSTING or not peer.name:
                peer.name = str(record.detail.get("name", ""))
            peer.state, peer.since = _TRUST[record.event], record.time

    def _add_refusals(self, hour: str, kind: str, count: int) -> None:
        if hour not in self.refusals and len(self.refusals) >= _MAX_KEYS:
            hour = max(self.refusals)
        self.refusals.setdefault(hour, Counter())[kind] += count


def _count(counter: Counter[str], key: str) -> None:
    counter[key if key in counter or len(counter) < _MAX_KEYS else OTHERS] += 1
