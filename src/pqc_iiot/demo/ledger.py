"""Last scene: the controller's audit log is verified, and so are two forged copies of it."""

from __future__ import annotations

from pathlib import Path

from ..audit import verify
from .report import LogCheck, Scene, Step

TITLE = "The audit log"

_REPLAY = b'"event":"refused_replay","severity":"high"'
"""What an intruder would rather not have in there."""


def check_log(log: Path) -> Scene:
    """Verifies `log`, then copies of it with one record changed, and with one left out."""
    lines = log.read_bytes().splitlines(keepends=True)
    changed = [line.replace(_REPLAY, _REPLAY.replace(b"high", b"low")) for line in lines]
    removed = [line for line in lines if _REPLAY not in line]
    genuine = check("the controller's log", log)
    forged = (
        check("a copy, its alarm made harmless", forge(log, "changed", changed)),
        check("a copy without the alarm", forge(log, "removed", removed)),
    )
    steps = (
        Step.compare("the audit log is whole", "no problem", _kinds(genuine)),
        Step.compare("an edited record is found out", "changed", _kinds(forged[0])),
        Step.compare("a removed record is found out", "missing", _kinds(forged[1])),
    )
    return Scene(TITLE, steps, checks=(genuine, *forged))


def forge(log: Path, name: str, lines: list[bytes]) -> Path:
    """Writes a copy with other lines, outside the device's folder."""
    copy = log.parent.with_name(f"{name}.log")
    copy.write_bytes(b"".join(lines))
    return copy


def check(name: str, log: Path) -> LogCheck:
    """What `pqc-iiot audit verify` would say."""
    report = verify(log)
    problems = tuple((problem.kind, problem.message) for problem in report.problems)
    return LogCheck(name, report.events, problems)


def _kinds(check: LogCheck) -> str:
    return ", ".join(kind for kind, _ in check.problems) or "no problem"
