"""Finding, counting and reporting: what is asked for, all of it, whatever the log holds."""

from __future__ import annotations

import html
import json
import tracemalloc
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest

from command import pqc
from devices import Pair
from pqc_iiot.audit import AuditLog, AuditRecord, Severity, tail
from pqc_iiot.audit.chart import MAX_BARS, bar, bars, buckets, sparkline
from pqc_iiot.audit.report import report
from pqc_iiot.audit.search import Query, moment, read_all, search
from pqc_iiot.audit.segments import Retention
from pqc_iiot.audit.summary import Summary
from pqc_iiot.errors import InvalidInputError, StateError
from pqc_iiot.identity import note_key

SENSOR, OTHER = "a1" * 32, "b2" * 32
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[2J\u202egnp"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log in several files, in which a peer is known by its name and by its key."""
    path = tmp_path / "audit.log"
    with AuditLog(path, device="plc", retention=Retention(4096, 50)) as log:
        log.emit("refused_unknown_peer", peer=SENSOR, name=HOSTILE)
        log.emit("peer_added", peer=SENSOR, name="sensor", suite=1, serial=1, operator="alice")
        log.emit("peer_pending", peer=OTHER, name=HOSTILE, suite=1, serial=1)
        for sequence in range(60):
            log.emit("refused_replay", peer=SENSOR, sequence=sequence, context=HOSTILE)
            if sequence % 10 == 0:
                assert log.flush()
        log.emit("refused_invalid_frame", length=7)
        log.emit("state_tampered", path="/x")
    return path


def found(path: Path, query: Query) -> list[str]:
    return [record.event for record in search(path, query)]


def test_every_file_of_a_log_is_read_in_order(path: Path) -> None:
    assert len(list(path.parent.glob("audit-*.log"))) > 2
    assert [record.seq for record in read_all(path)] == list(range(1, len(tail(path, 999)) + 1))
    with pytest.raises(StateError):
        list(read_all(path.with_name("nothing")))


@pytest.mark.parametrize(
    ("query", "events"),
    [
        (Query(events=frozenset({"PQC-5004"})), {"state_tampered": 1}),
        (
            Query(events=frozenset({"PQC-5004", "peer_added"})),
            {"state_tampered": 1, "peer_added": 1},
        ),
        (Query(severity=Severity.CRITICAL), {"state_tampered": 1}),
        (Query(reason="replay"), {"refused_replay": 60}),
        (Query(peer="sensor"), {"peer_added": 1, "refused_replay": 60}),
        (
            Query(peer=SENSOR[:8]),
            {"refused_unknown_peer": 1, "peer_added": 1, "refused_replay": 60},
        ),
        (Query(peer=OTHER), {"peer_pending": 1}),
        (Query(peer="sensor", reason="replay", severity=Severity.CRITICAL), {}),
        (Query(begin="2999-01-01T00:00:00.000Z"), {}),
        (Query(end="1999-01-01T00:00:00.000Z"), {}),
    ],
)
def test_records_are_found(path: Path, query: Query, events: dict[str, int]) -> None:
    names = found(path, query)
    assert {name: names.count(name) for name in names} == events


def test_a_name_that_was_only_claimed_finds_no_other_records(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "log") as log:
        log.emit("peer_pending", peer=OTHER, name="sensor", suite=1, serial=1)
        log.emit("refused_replay", peer=OTHER)
    assert found(tmp_path / "log", Query(peer="sensor")) == ["peer_pending"]


def test_times_include_the_first_and_not_the_last(path: Path) -> None:
    (record,) = search(path, Query(events=frozenset({"state_tampered"})))
    of_it = frozenset({"state_tampered"})
    assert found(path, Query(begin=record.time, events=of_it))
    assert not found(path, Query(end=record.time, events=of_it))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-02-03", "2026-02-03T00:00:00.000Z"),
        ("2026-02-03T04:05", "2026-02-03T04:05:00.000Z"),
        ("2026-02-03T04:05:06.789Z", "2026-02-03T04:05:06.789Z"),
        ("2026-02-03T04:05:06+02:00", "2026-02-03T02:05:06.000Z"),
        ("90s", "2026-02-03T04:03:36.000Z"),
        ("24h", "2026-02-02T04:05:06.000Z"),
        ("7d", "2026-01-27T04:05:06.000Z"),
    ],
)
def test_moments(text: str, time: str) -> None:
    assert moment(text, datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc)) == time


@pytest.mark.parametrize(
    "text", ["", "x", "99:99", "2026-13-01", "999999d", "0001-01-01T00:00+14:00"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        moment(text)


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, retention=Retention(1 << 18, 50), capacity=1 << 17) as log:
        for sequence in range(4000):
            log.emit("refused_replay", peer=f"{sequence:064x}", sequence=sequence)
    tracemalloc.start()
    try:
        assert sum(1 for _ in search(path, Query(peer="nobody"))) == 0
        assert sum(1 for _ in search(path, Query(reason="replay"))) == 4000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Counting


def test_a_summary_counts(path: Path) -> None:
    summary = Summary().add_all(read_all(path))
    assert summary.events["refused_replay"] == 60
    assert summary.severities["critical"] == 1
    assert summary.by_peer == {SENSOR: 62, OTHER: 1}
    assert sum(summary.hours.values()) == summary.records
    assert summary.peers[SENSOR].name == "sensor"
    assert (summary.peers[SENSOR].state, summary.peers[SENSOR].refused) == ("approved", 60)
    assert summary.peers[OTHER].state == "waits"
    assert sum(each.total() for each in summary.refusals.values()) == 62


def test_a_summary_stays_bounded() -> None:
    summary = Summary()
    line = '{{"v":1,"seq":1,"time":"{}-02-03T04:05:06.789Z","id":"PQC-3001","event":"x{}","severity":"low","peer":"{:064x}","prev":"{}"}}'  # noqa: E501
    for number in range(10_500):
        record = AuditRecord.parse(
            line.format(f"{number % 10000:04}", number, number, "0" * 64).encode()
        )
        assert record
        summary.add(record)
    assert len(summary.events) == len(summary.by_peer) == 10_001
    assert summary.events["others"] == 500


def test_charts() -> None:
    counts = Summary().events.__class__
    unit, filled = buckets({"2026-02-03T04": counts(low=2)}, "2026-02-03T03", "2026-02-03T06")
    assert unit == "hour"
    assert [each.total() for each in filled.values()] == [0, 2, 0, 0]
    assert buckets({}, "2026-02-03T03", "2026-03-03T06")[0] == "day"
    unit, filled = buckets({}, "0001-01-01T00", "9999-12-31T23")
    assert unit == "month"
    assert len(filled) == MAX_BARS
    assert buckets({}, "9999-99-99T99", "x") == ("hour", {})
    assert sparkline([0, 1, 100]) == " ▁█"
    assert sparkline([]) == ""
    assert (bar(0, 9), bar(1, 1000), bar(5, 5)) == (0, 1, 24)
    assert "<rect" in bars({"2026-02": counts(low=1)}, ["low"])


# The page


class Page(HTMLParser):
    """What a browser would make of a page: its elements and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_obeys_nobody_and_needs_nothing(path: Path) -> None:
    page = Page(text := report(path))
    assert not page.tags & {"script", "img", "link", "iframe", "a", "object", "form"}
    assert not any(name.startswith("on") for name in page.attributes)
    assert page.links == []
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in html.unescape(text)
    assert "<script>alert(1)</script>" in page.text, "it is shown"
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_report_tells_the_story(pair: Pair) -> None:
    pair.plc.peers.revoke("sensor")
    log = pair.folder / "plc" / "audit.log"
    keys = [note_key(pair.plc.bundle)]
    pair.close()
    page = Page(report(log, keys=keys))
    for expected in (
        "Audit report: plc",
        "Nothing contradicts anything.",
        "PQC-3008",
        "revoked",
        keys[0].device,
        pair.plc.bundle.fingerprint.hex(),
        "No witness has signed",
        "pqc-iiot audit verify",
    ):
        assert expected in page.text
    log.write_bytes(log.read_bytes().replace(b"peer_revoked", b"peer_renamed"))
    assert "contradicts itself" in Page(report(log, keys=keys)).text


def test_a_report_about_a_stretch_knows_what_came_before(path: Path) -> None:
    page = Page(report(path, begin="2999-01-01T00:00:00.000Z"))
    assert "sensor" in page.text
    assert "Nothing was refused." in page.text
    assert "state_tampered" in Page(report(path, begin="1999-01-01T00:00:00.000Z")).text
    assert "state_tampered" not in Page(report(path, end="1999-01-01T00:00:00.000Z")).text


# The command line


def test_searching(path: Path) -> None:
    line = f"audit search --file {path} --peer sensor --severity HIGH --from 1h"
    assert len(pqc(f"{line} --json").lines) == 60
    shown = pqc(f"{line} --event PQC-4007")
    assert shown.out.count("\n") == 60
    assert shown.err == "60 records\n"
    for wrong in ("--event nope", "--from nope", "--severity nope"):
        result = pqc(f"audit search --file {path} {wrong}")
        assert (result.code, result.out) == (2, "")


@pytest.mark.parametrize("format_", ["native", "ocsf", "ecs", "cef"])
def test_exporting(path: Path, tmp_path: Path, format_: str) -> None:
    out = tmp_path / "out"
    records = len(tail(path, 999))
    assert pqc(f"audit export --file {path} --format {format_} -o {out}").code == 0
    lines = out.read_bytes().splitlines()
    assert len(lines) == records
    if format_ == "native":
        log = sorted(path.parent.glob("audit-*.log"))
        assert out.read_bytes() == b"".join(each.read_bytes() for each in [*log, path])
    elif format_ != "cef":
        assert all(json.loads(line) for line in lines)
    assert pqc(f"audit export --file {path} --format {format_}").raw == out.read_bytes()
    assert not pqc(f"audit export --file {path} --format {format_} --to 1000d").raw
    assert pqc(f"audit export --file {path} --format nope").code == 2


def test_counting(path: Path) -> None:
    data = pqc(f"audit stats --file {path} --json").data
    assert data["events"]["refused_replay"] == 60
    assert data["peers"][0] == {"fingerprint": SENSOR, "name": "sensor", "records": 62}
    shown = pqc(f"audit stats --file {path}")
    assert "refused_replay" in shown.out
    assert "█" in shown.out
    assert pqc(f"audit stats --file {path} --from 2999-01-01").code == 0


def test_reporting(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert pqc(f"audit report --file {path} --from 1h --to 2999-01-01 -o {out}").code == 0
    assert out.read_text().startswith("<!doctype html>")
    assert pqc(f"audit report --file {path}").out.startswith("<!doctype html>")
    assert pqc(f"audit report --file {tmp_path}/nothing -o {tmp_path}/none").code == 4
    assert not (tmp_path / "none").exists()
