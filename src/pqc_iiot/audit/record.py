r"""One audit record: a line of JSON in one exact form, chained to the line before it.

    {"v":1,"seq":7,"time":"2026-02-03T04:05:06.789Z","id":"PQC-4007",
     "event":"refused_replay","severity":"high","reason":"replay","device":"press-4",
     "peer":"<64 hex>","detail":{"last_sequence":41,"sequence":40},"prev":"<64 hex>"}

(on one line, ended by "\n"). Keys stand in this order, those of `detail` in that of
their code points; `reason`, `device`, `peer` and `detail` are left out when empty. There
is no white space between tokens, and every character outside printable ASCII is escaped,
so that a record can never break out of its line. `seq` counts from 1 without a gap.
`prev` is the hash of the line before, and 64 zeros in record 1.

The hash of a line, without its "\n", is the Merkle tree's leaf hash of RFC 9162, section
2.1.1: SHA-256(0x00 || line). So the chain's links are the leaves of a tree over the log.

What the chain proves: record n fixes every byte of the records before it, so that whoever
holds `prev` of record n, or its hash, notices any edit, removal, insertion or reordering
up to there. Record 1 holds a random log id, so no two logs share a hash. What it cannot
prove alone: it has no key, so whoever can write the file can cut off its end, or write all
of it anew with a chain that fits. Only a hash that someone else keeps, or a signature
over one, shows that; the head file (`head.py`) shows the first, if it is an accident.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quote
from typing import Final

from .catalogue import Severity, Value

NO_HASH: Final = "0" * 64
"""What record 1 carries as `prev`."""

MAX_TEXT: Final = 256
"""Characters that a text from a caller may have in a record; longer ones are cut."""

MAX_LINE: Final = 32 * 1024
"""Bytes in a line at most. Longer lines were not written by this package."""

_SEVERITIES: Final = {severity.label: severity for severity in Severity}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z").fullmatch
is_fingerprint = re.compile(r"[0-9a-f]{64}").fullmatch
"""Match for 64 lower-case hex digits: a fingerprint or a hash."""


def leaf_hash(line: bytes) -> str:
    """64 hex digits: the hash of a line without its end (RFC 9162, section 2.1.1)."""
    return sha256(b"\0" + line).hexdigest()


def clean_text(text: str) -> str:
    """`text` with at most `MAX_TEXT` characters, each of which strict parsers accept.

    A text that is cut ends in U+2026; lone surrogates become "?".
    """
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "\u2026"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def encode_constant(id: str, event: str, severity: str, reason: str, device: str) -> str:  # noqa: A002
    """The part of a line that is the same in all records of one event on one device."""
    return (
        f'"id":{quote(id)},"event":{quote(event)},"severity":{quote(severity)}'
        + (f',"reason":{quote(reason)}' if reason else "")
        + (f',"device":{quote(device)}' if device else "")
    )


def encode_line(
    seq: int,
    time: str,
    constant: str,
    peer: str,
    detail: Mapping[str, Value],
    *,
    prev: str,
) -> bytes:
    """The line, without its end. `constant` comes from `encode_constant`."""
    if peer:
        constant += f',"peer":{quote(peer)}'
    if detail:
        members = ",".join(
            [f"{quote(name)}:{_encode_value(detail[name])}" for name in sorted(detail)]
        )
        constant += f',"detail":{{{members}}}'
    return f'{{"v":1,"seq":{seq},"time":"{time}",{constant},"prev":"{prev}"}}'.encode("ascii")


def _encode_value(value: Value) -> str:
    if type(value) is str:
        return quote(value)
    return str(value) if type(value) is int else ("true" if value else "false")


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One record of an audit log, as read from its line.

    The attributes are named as the keys in the line. `time` is UTC as
    "YYYY-MM-DDThh:mm:ss.mmmZ" and sorts as text; `peer` is a fingerprint (64 hex digits);
    `reason`, `device` and `peer` are "" where the record has none. Names and texts in
    `detail` may hold any character: escape them for a terminal.
    """

    seq: int
    time: str
    id: str
    event: str
    severity: Severity
    reason: str
    device: str
    peer: str
    detail: Mapping[str, Value]
    prev: str

    @classmethod
    def parse(cls, line: bytes) -> AuditRecord | None:
        """The record in `line` (without its end), or None if it is none, to the byte.

        Events, reasons and fields need not be in this version's catalogue.
        """
        if len(line) > MAX_LINE:
            return None
        try:
            members = json.loads(line)
            record = cls(
                seq=members["seq"],
                time=members["time"],
                id=members["id"],
                event=members["event"],
                severity=_SEVERITIES[members["severity"]],
                reason=members.get("reason", ""),
                device=members.get("device", ""),
                peer=members.get("peer", ""),
                detail=members.get("detail", {}),
                prev=members["prev"],
            )
            return record if record._is_well_formed() and record.encode() == line else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def encode(self) -> bytes:
        """The record's line, without its end."""
        constant = encode_constant(
            self.id, self.event, self.severity.label, self.reason, self.device
        )
        return encode_line(self.seq, self.time, constant, self.peer, self.detail, prev=self.prev)

    def _is_well_formed(self) -> bool:
        return (
            type(self.seq) is int
            and 0 < self.seq < 2**63
            and _TIME(self.time) is not None
            and is_fingerprint(self.prev) is not None
            and (not self.peer or is_fingerprint(self.peer) is not None)
            and all(type(value) in (str, int, bool) for value in self.detail.values())
        )
