"""`audit stats`: the log in numbers, with bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audit import Severity
from ..audit.search import Query, search
from ..trail import AUDIT_FILE
from . import output
from .audit_options import File, From, To
from .base import Shell

if TYPE_CHECKING:
    from collections import Counter

    from rich.console import RenderableType

    from ..audit.summary import Summary

_TOP = 15
_HOURS = 48


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
