"""One page about a stretch of a log, for a person to read, print and sign.

The page needs nothing else: no script, no other file, no network, and its content security
policy says so. Whatever came from outside (names, topics) is escaped, and characters that
do not print are shown by their numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import chart
from .catalogue import EVENTS, Severity
from .checkpoint import NoteKey
from .page import escaped, table
from .record import AuditRecord
from .search import read_all
from .summary import SUPPRESSED, PeerSummary, Summary
from .verify import VerifyReport, verify

_KINDS: Final = (*(severity.label for severity in Severity), SUPPRESSED)
_MAX_ROWS: Final = 200
_MAX_NOTABLE: Final = 40
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_PROVES: Final = """The chain fixes every byte in front of its last record: an edit, a removal or
a change of order shows. What was cut off at the end, or written anew as a whole, shows only
against what others hold: a checkpoint signed by the device (it covers what it was signed over),
a witness's signature, or the last hash below, kept on this paper. The times are those of the
device's clock; the order is that of the numbers."""


def report(
    path: str | os.PathLike[str],
    *,
    begin: str = "",
    end: str = "",
    keys: Sequence[NoteKey] = (),
) -> str:
    """The page about the records from `begin` up to but without `end` (times as in records;
    empty is all), with the whole log verified, against `keys` if there are any.

    Raises `StateError` if the log cannot be read.
    """
    summary = Summary()
    for record in read_all(path):
        if record.time < begin:
            summary.note(record)
        elif not end or record.time < end:
            summary.add(record)
    return _page(Path(path), summary, verify(path, keys=keys), begin, end, signed=bool(keys))


def _page(
    path: Path, summary: Summary, found: VerifyReport, begin: str, end: str, *, signed: bool
) -> str:
    first, last = summary.first, summary.last
    begin = begin or (first.time if first else "")
    end = end or (last.time if last else "")
    device = (last.device if last else "") or "a device without a name"
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Audit report: {escaped(device)}</title><style>{css}</style></head><body>",
            f"<h1>Audit report: {escaped(device)}</h1>",
            f'<p class="faint">{escaped(begin or "-")} to {escaped(end or "-")}</p>',
            _verdict(found, signed=signed),
            _tiles(summary),
            "<h2>Refusals over time</h2>",
            _refusals(summary, begin, end),
            "<h2>What happened</h2>",
            _events(summary),
            "<h2>Peers</h2>",
            _peers(summary),
            "<h2>Keys and their custody</h2>",
            _keys(summary),
            "<h2>Checkpoints</h2>",
            _coverage(found, signed=signed),
            "<h2>What asks for attention</h2>",
            _notable(summary),
            "<h2>How to verify this</h2>",
            _instructions(path, found),
            '<div class="signature"><span>verified by</span><span>date</span></div>',
            "</body></html>\n",
        ]
    )


def _verdict(found: VerifyReport, *, signed: bool) -> str:
    if not found.ok:
        rows = [(each.kind, str(each.seq or "-"), each.message) for each in found.problems[:20]]
        return (
            '<div class="verdict bad"><b>The log contradicts itself or what was signed, '
            f"in {found.problem_count} places.</b> Nothing below is to be relied on.</div>"
        ) + table(("what", "record", "how"), rows)
    how = "and with the device's signatures" if signed else "signatures were not looked at"
    return (
        '<div class="verdict"><b>Nothing contradicts anything.</b> All '
        f"{found.events} records of the log agree with each other, {how}.</div>"
    )


def _tiles(summary: Summary) -> str:
    refusals: int = sum(counter.total() for counter in summary.refusals.values())
    trusted = sum(
        peer.state in ("approved", "trusted", "pinned, unchecked")
        for peer in summary.peers.values()
    )
    tiles = {
        "records": summary.records,
        "refusals": refusals,
        "high and critical": summary.severities["high"] + summary.severities["critical"],
        "trusted key sets": trusted,
        "records lost": summary.events["events_dropped"],
    }
    cells = [f'<div class="tile"><b>{value}</b>{name}</div>' for name, value in tiles.items()]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _refusals(summary: Summary, begin: str, end: str) -> str:
    unit, counts = chart.buckets(summary.refusals, begin, end)
    total = sum((counter for counter in counts.values()), start=type(summary.events)())
    if not total:
        return "<p>Nothing was refused.</p>"
    kinds = [kind for kind in _KINDS if total[kind]]
    legend = " ".join(
        f'<span class="key"><span class="swatch kind-{kind}"></span>{kind} {total[kind]}</span>'
        for kind in kinds
    )
    return (
        f'<p class="faint">Frames and bundles refused per {unit}, by severity:{legend}</p>'
        + chart.bars(counts, kinds)
    )


def _events(summary: Summary) -> str:
    rows = []
    for name, count in sorted(summary.events.items()):
        row = EVENTS.get(name)
        when = row.when.replace("`", "") if row else ""
        known = (row.id, row.severity.label, row.requirement, when) if row else ("", "", "", "")
        rows.append((known[0], name, *known[1:], str(count)))
    return table(("id", "event", "severity", "serves", "when", "records"), sorted(rows))


def _notable(summary: Summary) -> str:
    if not summary.notable:
        return "<p>No record of severity high or critical.</p>"
    shown = list(summary.notable)[-_MAX_NOTABLE:]
    rows = [
        (each.time, str(each.seq), each.severity.label, each.event, _detail(each)) for each in shown
    ]
    total = summary.severities["high"] + summary.severities["critical"]
    note = f'<p class="faint">The last {len(shown)} of {total}.</p>' if total > len(shown) else ""
    return note + table(("time", "record", "severity", "event", "detail"), rows)


def _peers(summary: Summary) -> str:
    def order(item: tuple[str, PeerSummary]) -> tuple[bool, int, str]:
        return item[1].state == "waits", -item[1].refused, item[1].name

    rows = [
        (peer.name, fingerprint, peer.state, peer.since, str(peer.refused))
        for fingerprint, peer in sorted(summary.peers.items(), key=order)[:_MAX_ROWS]
    ]
    if not rows:
        return "<p>The log names no peer.</p>"
    left = len(summary.peers) - len(rows)
    note = f'<p class="faint">{left} more are left out.</p>' if left else ""
    return table(("name", "fingerprint", "is", "since", "refused"), rows) + note


def _keys(summary: Summary) -> str:
    rows = []
    for fingerprint, each in summary.key_sets.items():
        detail = {name: str(value) for name, value in each.detail.items()}
        known = [detail.get(name, "") for name in ("serial", "suite", "provider", "custody")]
        rows.append((fingerprint, *known, f"{each.event} {each.time}", detail.get("operator", "")))
    if not rows:
        return "<p>The log names no key set of this device.</p>"
    columns = ("fingerprint", "serial", "suite", "provider", "custody", "last event", "operator")
    return table(columns, rows)


def _coverage(found: VerifyReport, *, signed: bool) -> str:
    coverage = found.coverage
    if not coverage.checkpoints:
        return "<p>There is no checkpoint: nobody has signed anything of this log.</p>"
    by = "" if signed else " (the signatures were not looked at: no bundle was given)"
    witnesses = ", ".join(coverage.witnesses)
    return (
        f"<p>{coverage.checkpoints} checkpoints hold{by}. The newest covers record 1 to "
        f"{coverage.signed_seq} of {found.last_seq}; "
        f"{found.last_seq - coverage.signed_seq} records came later.</p><p>"
        + (
            f"Witnesses {escaped(witnesses)} signed what is up to record {coverage.witnessed_seq}."
            if witnesses
            else "No witness has signed any of them."
        )
        + "</p>"
    )


def _instructions(path: Path, found: VerifyReport) -> str:
    commands = (
        f"pqc-iiot audit verify --file {path.name} --bundle DEVICE.bundle --bundle WITNESS.bundle",
        f"pqc-iiot audit prove {found.last_seq} --file {path.name} -o PROOF",
    )
    facts = (
        ("log", found.log),
        ("records", f"{found.first_seq} to {found.last_seq}"),
        ("last hash", found.last_hash),
        ("root of the tree", found.coverage.root),
    )
    rows = [(name, value or "-") for name, value in facts]
    shown = "\n".join(map(escaped, commands))
    return (
        f"<p>{_PROVES}</p><p>With the log, its checkpoints and the bundles at hand:</p>"
        f"<pre>{shown}</pre>{table(('what', 'value'), rows)}"
    )


def _detail(record: AuditRecord) -> str:
    about = {"peer": f"{record.peer[:16]}…"} if record.peer else {}
    return " ".join(f"{name}={value}" for name, value in (about | dict(record.detail)).items())
