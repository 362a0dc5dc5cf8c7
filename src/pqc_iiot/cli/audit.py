"""`audit`: reading and checking the log; works while another process writes it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from ..audit import follow, tail, verify
from ..errors import StateError
from ..identity import note_key, public_bundle
from ..trail import AUDIT_FILE
from . import audit_read, evidence, output, sinks
from .audit_options import File
from .base import Shell, command, group

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..audit import VerifyReport


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    audit = group(app, "audit", "The log of security events.", panel="Device")
    command(audit, "tail")(tail_)
    command(audit, "verify")(verify_)
    audit_read.register(audit)
    evidence.register(audit)
    sinks.register(audit)


def tail_(
    shell: Shell,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many records.")] = 10,
    follow_: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is added.")
    ] = False,
    file: File = None,
) -> None:
    """Shows the last records; as JSON, exactly as they stand in the log."""
    path = file or shell.state / AUDIT_FILE
    show = audit_read.record_printer(shell, live=follow_)
    for record in follow(path, lines) if follow_ else tail(path, lines):
        show(record)


def verify_(
    shell: Shell,
    checkpoint: evidence.Checkpoints = None,
    bundle: evidence.Bundles = None,
    file: File = None,
) -> None:
    """Checks the log: whether anything in it was edited, removed, moved or cut off, by its
    chain and by what was signed."""
    path = file or shell.state / AUDIT_FILE
    keys = evidence.read_keys(bundle)
    if not bundle and not file:
        with contextlib.suppress(StateError):
            keys = [note_key(public_bundle(shell.state))]
    report = verify(path, keys=keys, checkpoints=evidence.read_checkpoints(checkpoint))
    shell.show({"ok": report.ok, **dataclasses.asdict(report)}, lambda: _summary(report))
    if not report.ok:
        shell.complain(
            "audit_log",
            f"{path} has {report.problem_count} contradictions",
            "keep the file as it is, and compare it with a copy or with a hash kept elsewhere",
        )
        raise typer.Exit(1)


def _summary(report: VerifyReport) -> RenderableType:
    from rich.console import Group

    coverage = report.coverage
    facts = output.facts(
        {
            "log": report.log or "-",
            "records": f"{report.events}, from {report.first_seq} to {report.last_seq}",
            "last hash": report.last_hash or "-",
            "interrupted writes": report.torn_tails,
            "checkpoints": f"{coverage.checkpoints}, up to record {coverage.signed_seq}",
            "witnesses": f"{', '.join(coverage.witnesses)}, up to record {coverage.witnessed_seq}"
            if coverage.witnesses
            else "-",
            "result": "nothing contradicts anything" if report.ok else "CONTRADICTIONS",
        }
    )
    rows = [(each.kind, str(each.line), each.message) for each in report.problems]
    return Group(facts, output.table("problem", "line", "what", rows=rows)) if rows else facts
