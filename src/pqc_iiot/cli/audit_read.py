"""`audit search`, `export`, `stats` and `report`: what the log says, for people and programs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..audit import Severity
from ..audit.formats import FORMATS
from ..audit.search import Query, moment, search
from ..errors import InvalidInputError, StateError
from ..state import AUDIT_FILE
from . import evidence, output
from .base import Shell, command
from .files import STDIO, writing
from .values import checked, severity_label

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from rich.console import RenderableType

    from ..audit import AuditRecord
    from ..audit.summary import Summary

_CHUNK = 1 << 20
_TOP = 15
_HOURS = 48

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Another log than this device's.")
]
_time = checked(moment)
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        parser=_time,
        help="Not before: 2026-02-03, 2026-02-03T04:05 (UTC) or how long ago: 24h.",
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", parser=_time, help="Before, written in the same way."),
]
_Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="Standard output if left out.")
]

_STYLES = {Severity.MEDIUM: "yellow", Severity.HIGH: "red", Severity.CRITICAL: "bold red"}


def register(audit: typer.Typer) -> None:
    """Adds these commands to the group."""
    command(audit, "search")(search_)
    command(audit, "export")(export)
    command(audit, "stats")(stats)
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


def record_printer(shell: Shell) -> Callable[[AuditRecord], None]:
    """Prints one record: for programs as it stands in the log, for people on one line."""
    console = output.console()

    def show(record: AuditRecord) -> None:
        if shell.json:
            print(record.encode().decode("ascii"), flush=True)
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


def stats(shell: Shell, begin: From = None, end: To = None, file: File = None) -> None:
    """Counts records by event, severity, peer and hour."""
    from ..audit.summary import Summary

    path = file or shell.state / AUDIT_FILE
    summary = Summary().add_all(search(path, Query(begin or "", end or "")))
    document = {
        "records": summary.records,
        "first": summary.first.time if summary.first else "",
        "last": summary.last.time if summary.last else "",
        "events": dict(summary.events.most_common()),
        "severities": dict(summary.severities),
        "peers": [
            {"fingerprint": peer, "name": _name(summary, peer), "records": count}
            for peer, count in summary.by_peer.most_common()
        ],
        "hours": dict(sorted(summary.hours.items())),
        "refusals": {hour: dict(counts) for hour, counts in sorted(summary.refusals.items())},
    }
    shell.show(document, lambda: _charts(summary))


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


def _charts(summary: Summary) -> RenderableType:
    from rich.console import Group

    from ..audit.chart import buckets, sparkline

    if summary.first is None or summary.last is None:
        return output.facts({"records": 0})
    unit, hours = buckets(
        {hour: _only(count) for hour, count in summary.hours.items()},
        summary.first.time,
        summary.last.time,
    )
    shown = dict(list(hours.items())[-_HOURS:])
    facts: dict[str, object] = {
        "records": summary.records,
        "from": summary.first.time,
        "to": summary.last.time,
    }
    if output.draws_blocks():
        facts[f"per {unit}"] = sparkline([count.total() for count in shown.values()]) or "-"
    peers = {
        f"{_name(summary, peer)} {peer[:16]}".strip(): count
        for peer, count in summary.by_peer.most_common(_TOP)
    }
    return Group(
        output.facts(facts),
        *(
            _bars(title, counts)
            for title, counts in (
                ("severity", {each.label: summary.severities[each.label] for each in Severity}),
                ("event", dict(summary.events.most_common(_TOP))),
                ("peer", peers),
            )
            if counts
        ),
    )


def _bars(title: str, counts: dict[str, int]) -> RenderableType:
    from ..audit.chart import bar

    highest = max(counts.values())
    block = "█" if output.draws_blocks() else "#"
    rows = [(name, str(count), block * bar(count, highest)) for name, count in counts.items()]
    return output.table(title, "records", "", rows=rows)


def _only(count: int) -> Counter[str]:
    from collections import Counter

    return Counter({"records": count})


def _name(summary: Summary, peer: str) -> str:
    return summary.peers[peer].name if peer in summary.peers else ""
