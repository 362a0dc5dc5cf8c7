"""The audit floor: what happened, in a log that cannot be changed unnoticed.

`AuditLog` writes events of the catalogue (`EVENTS`) as chained lines of JSON; `tail` and
`follow` read them as `AuditRecord`s; `verify` checks the chain. `record.py` has the exact
form of a line and what the chain proves. Decisions are made elsewhere, never here.
"""

from __future__ import annotations

from pqc_iiot.audit.catalogue import BY_REASON, EVENTS, FIELDS, Event, Field, Severity
from pqc_iiot.audit.log import AuditLog, AuditStats
from pqc_iiot.audit.read import follow, tail
from pqc_iiot.audit.record import AuditRecord
from pqc_iiot.audit.verify import Problem, ProblemKind, VerifyReport, verify

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
