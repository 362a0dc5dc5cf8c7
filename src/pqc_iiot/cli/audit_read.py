"""`audit search`, `export` and `report`: what the log says, for people and programs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..audit import Severity
from ..audit.formats import FORMATS
from ..audit.search import Query, search
from ..errors import InvalidInputError, StateError
from ..trail import AUDIT_FILE
from . import audit_stats, evidence, output
from .audit_options import File, From, To
from .base import Shell, command
from .files import STDIO, writing
from .values import checked, severity_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..audit import AuditRecord

_CHUNK = 1 << 20

_Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="Standard output if left out.")
]

_STYLES = {Severity.MEDIUM: "yellow", Severity.HIGH: "red", Severity.CRITICAL: "bold red"}


def register(audit: typer.Typer) -> None:
    """Adds these commands to the group."""
    command(audit, "search")(search_)
    command(audit, "export")(export)
    command(audit, "stats")(audit_stats.stats)
    command(audit, "report")(report_)


def search_(
    shell: Shell,
    begin: From = None,
    end: To = None,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="EVENT", help="Id or name, such as PQC-4007. May be repeated."),
    ] = None,
    peer: Annotated[
        str, typer.Option(metavar="PEER", help="Name or fingerprint (its first digits will do).")
    ] = "",
    severity: Annotated[
        Severity | None,
        typer.Option(
            metavar="SEVERITY",
            parser=checked(severity_label),
            help="At least: informational, low, medium, high or critical.",
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="CODE", help="The refusal's reason, such as replay.")
    ] = "",
    file: File = None,
) -> None:
    """Finds records; as JSON, exactly as they stand in the log."""
    peer = "".join(peer.split()) if peer.replace(" ", "").isalnum() else peer
    query = Query(
        begin or "",
        end or "",
        frozenset(event or ()),
        peer,
        severity or Severity.INFORMATIONAL,
        reason,
    )
    found = 0
    show = record_printer(shell)
    for record in search(file or shell.state / AUDIT_FILE, query):
        found += 1
        show(record)
    shell.note(f"{found} records")


def record_printer(shell: Shell, *, live: bool = False) -> Callable[[AuditRecord], None]:
    """Prints one record, `live` at once: for programs as it stands in the log, for people on
    one line."""
    console = output.console()

    def show(record: AuditRecord) -> None:
        if shell.json:
            print(record.encode().decode("ascii"), flush=live)
        else:
            console.print(_line(record), style=_STYLES.get(record.severity), soft_wrap=True)

    return show


def export(
    shell: Shell,
    format_: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}."),
    ] = "native",
    begin: From = None,
    end: To = None,
    target: _Output = STDIO,
    file: File = None,
) -> None:
    """Writes records in another format, one a line."""
    if format_ not in FORMATS:
        raise InvalidInputError(f"no format {format_!r}", hint=f"one of {', '.join(FORMATS)}")
    write_as = FORMATS[format_]
    count, chunk = 0, bytearray()
    with writing(target) as write:
        for record in search(file or shell.state / AUDIT_FILE, Query(begin or "", end or "")):
            chunk += write_as(record).encode() + b"\n"
            count += 1
            if len(chunk) >= _CHUNK:
                write(bytes(chunk))
                chunk.clear()
        write(bytes(chunk))
    shell.note(f"{count} records")


def report_(
    shell: Shell,
    begin: From = None,
    end: To = None,
    bundle: evidence.Bundles = None,
    target: _Output = STDIO,
    file: File = None,
) -> None:
    """Writes one HTML page about the log, to read, print and keep: what happened, refusals
    over time, peers, keys, checkpoints, and how to verify it."""
    from ..audit.report import report
    from ..identity import note_key, public_bundle

    keys = evidence.read_keys(bundle)
    if not bundle and not file:
        with contextlib.suppress(StateError):
            keys = [note_key(public_bundle(shell.state))]
    with writing(target) as write:
        page = report(file or shell.state / AUDIT_FILE, begin=begin or "", end=end or "", keys=keys)
        write(page.encode())
    if target != STDIO:
        shell.show({"written": str(target)}, lambda: output.facts({"written": target}))


def _line(record: AuditRecord) -> str:
    detail = " ".join(f"{name}={value}" for name, value in record.detail.items())
    peer = f"peer={record.peer[:16]}" if record.peer else ""
    parts = (record.time, f"#{record.seq}", record.id, record.severity.label, record.event)
    return output.escape(" ".join(filter(None, (*parts, peer, detail))))
