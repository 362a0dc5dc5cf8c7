"""The audit floor: what happened, in a log that cannot be changed unnoticed.

`AuditLog` writes events of the catalogue (`EVENTS`) as chained lines of JSON; `tail` and
`follow` read them as `AuditRecord`s; `verify` checks the chain. `record.py` has the exact
form of a line and what the chain proves. Decisions are made elsewhere, never here.
"""

from __future__ import annotations

from .catalogue import BY_REASON, EVENTS, FIELDS, Event, Field, Severity
from .log import AuditLog, AuditStats
from .read import follow, tail
from .record import AuditRecord
from .verify import Problem, ProblemKind, VerifyReport, verify

__all__ = [
    "BY_REASON",
    "EVENTS",
    "FIELDS",
    "AuditLog",
    "AuditRecord",
    "AuditStats",
    "Event",
    "Field",
    "Problem",
    "ProblemKind",
    "Severity",
    "VerifyReport",
    "follow",
    "tail",
    "verify",
]
