"""Verification finds whatever is done to a log, and nothing in one that is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqc_iiot.audit import EVENTS, FIELDS, AuditLog, VerifyReport, tail, verify
from pqc_iiot.audit.catalogue import Value
from pqc_iiot.audit.file import LogFile
from pqc_iiot.audit.record import MAX_LINE, leaf_hash
from pqc_iiot.audit.segments import Retention

What: TypeAlias = tuple[int, str, str, dict[str, Value]]
PEER = "0123456789abcdef" * 4
NAMES = sorted(EVENTS.keys() - {"audit_opened", "audit_rotated", "audit_torn_tail"})


@st.composite
def entries(draw: st.DrawFn) -> What:
    event = EVENTS[draw(st.sampled_from(NAMES))]
    texts: st.SearchStrategy[Value] = st.text(st.characters(codec="utf-8"), max_size=20)
    integers: st.SearchStrategy[Value] = st.integers(0, 2**62)
    fields = draw(st.sets(st.sampled_from(event.fields))) if event.fields else ()
    detail = {name: draw(texts if FIELDS[name].type is str else integers) for name in fields}
    return draw(st.integers(0, 2**62)), event.name, draw(st.sampled_from(["", PEER])), detail


logs = st.lists(entries(), min_size=3, max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify")


def make_log(folder: Path, what: list[What]) -> list[bytes]:
    """A log with these records, cleanly closed; its lines with their ends."""
    shutil.rmtree(folder)
    folder.mkdir()
    file = LogFile(folder / "audit.log", "press-4", Retention())
    file.append((time, EVENTS[name], peer, detail) for time, name, peer, detail in what)
    file.write()
    file.write_head()
    file.close()
    return (folder / "audit.log").read_bytes().splitlines(keepends=True)


def check(folder: Path, lines: list[bytes]) -> VerifyReport:
    path = folder / "audit.log"
    path.write_bytes(b"".join(lines))
    return verify(path)


def kinds(report: VerifyReport) -> set[str]:
    return {problem.kind for problem in report.problems}


@given(what=logs)
@settings(deadline=None)
def test_a_whole_log_is_whole(folder: Path, what: list[What]) -> None:
    lines = make_log(folder, what)
    report = verify(folder / "audit.log")
    assert report.ok
    assert report.events == report.last_seq == report.head_seq == len(lines) == len(what) + 1
    assert report.last_hash == leaf_hash(lines[-1][:-1])
    assert report.log == json.loads(lines[0])["detail"]["log"]


@given(what=logs, data=st.data())
@settings(deadline=None)
def test_any_change_is_found(folder: Path, what: list[What], data: st.DataObject) -> None:
    lines = make_log(folder, what)
    content = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(content) - 1), "byte")
    value = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]), "value")
    edited = bytes(content[:at]) + bytes([value]) + bytes(content[at + 1 :])
    assert not check(folder, [edited]).ok, "edited byte"
    assert not check(folder, [bytes(content[:at] + content[at + 1 :])]).ok, "removed byte"
    assert not check(folder, [bytes(content[:at] + bytes([value]) + content[at:])]).ok, "added byte"

    i = data.draw(st.integers(0, len(lines) - 2), "line")
    j = data.draw(st.integers(i + 1, len(lines) - 1), "another line")
    swapped = lines.copy()
    swapped[i], swapped[j] = lines[j], lines[i]
    assert not check(folder, lines[:i] + lines[i + 1 :]).ok, "removed line"
    assert not check(folder, lines[:i] + lines[j:]).ok, "removed lines"
    assert not check(folder, swapped).ok, "swapped lines"
    assert not check(folder, [*lines[:j], lines[i], *lines[j:]]).ok, "copied line"
    assert not check(folder, [*lines[:j], lines[j], *lines[j:]]).ok, "doubled line"
    assert not check(folder, [*lines, lines[i]]).ok, "copied to the end"
    assert not check(folder, [*lines[:j], b"\n", *lines[j:]]).ok, "empty line"
    assert not check(folder, lines[:j]).ok, "removed end"
    assert check(folder, lines).ok


LOG: list[What] = [
    (0, "started", "", {}),
    (0, "key_loaded", "", {"serial": 1}),
    (0, "stopped", "", {}),
] * 2


@pytest.mark.parametrize(
    ("change", "kind", "line"),
    [
        (lambda x: x[:2] + x[3:], "missing", 3),
        (lambda x: x[1:], "start", 1),
        (lambda x: [*x[:2], x[1], *x[2:]], "repeated", 3),
        (lambda x: [*x[:2], x[2].replace(b"1}", b"2}"), *x[3:]], "changed", 4),
        (lambda x: [*x[:2], b"garbage\n", *x[2:]], "unreadable", 3),
        (lambda x: [*x[:2], b"\n", b"\xff\n", *x[2:]], "unreadable", 3),
        (lambda x: [*x[:2], b"x" * (3 * MAX_LINE) + x[2], *x[3:]], "unreadable", 3),
        (lambda x: [*x[:2], b"x" * (MAX_LINE + 1) + x[2], *x[3:]], "missing", 4),
        (lambda x: [*x[:-1], x[-1][:-1]], "torn", 7),
        (lambda x: [*x, b'{"v":1'], "torn", 8),
        (lambda x: [*x, b"\0" * (3 * MAX_LINE)], "torn", 8),
        (lambda x: x[:-1], "head", 0),
        (lambda x: [*x[:-1], x[-1].replace(b"stopped", b"started")], "head", 7),
        (lambda x: [], "start", 0),
    ],
)
def test_the_report_says_what_and_where(
    folder: Path, change: Callable[[list[bytes]], list[bytes]], kind: str, line: int
) -> None:
    report = check(folder, change(make_log(folder, LOG)))
    assert (kind, line) in [(problem.kind, problem.line) for problem in report.problems]
    assert report.problem_count == len(report.problems)


def test_a_log_cannot_begin_with_a_later_opening(folder: Path) -> None:
    lines = make_log(folder, LOG)
    with AuditLog(folder / "audit.log"):
        pass
    opening = (folder / "audit.log").read_bytes().splitlines(keepends=True)[len(lines) :]
    assert kinds(check(folder, opening)) == {"start"}


def test_a_line_that_is_being_written_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = make_log(folder, LOG)
    path = folder / "audit.log"
    path.write_bytes(b"".join(lines)[:-10])

    def write_the_rest(_: float) -> None:
        path.write_bytes(b"".join(lines))

    monkeypatch.setattr("time.sleep", write_the_rest)
    assert verify(path).ok


def test_records_of_another_log_do_not_fit(folder: Path) -> None:
    theirs = make_log(folder, LOG)
    ours = make_log(folder, LOG)
    for i in range(1, len(ours)):
        assert kinds(check(folder, ours[:i] + theirs[i:])) >= {"changed"}
    assert kinds(check(folder, theirs)) == {"head"}, "the whole log exchanged"


def test_a_lost_end_shows_only_with_a_head_file(folder: Path) -> None:
    lines = make_log(folder, LOG)
    report = check(folder, lines[:-2])
    assert [(problem.kind, problem.seq) for problem in report.problems] == [("head", 7)]
    (folder / "audit.head").unlink()
    report = check(folder, lines[:-2])
    assert report.ok
    assert report.head_seq is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 1024,
        b'{"v":1,"log":"a","seq":"7","hash":"b"}',
        b"7" * 5000,
    ],
)
def test_a_damaged_head_file_is_found(folder: Path, content: bytes) -> None:
    make_log(folder, LOG)
    (folder / "audit.head").write_bytes(content)
    assert kinds(verify(folder / "audit.log")) == {"head"}


def test_a_head_file_may_lag(folder: Path) -> None:
    make_log(folder, LOG)
    early = (folder / "audit.head").read_bytes()
    with AuditLog(folder / "audit.log") as log:
        log.emit("started")
    (folder / "audit.head").write_bytes(early)
    assert verify(folder / "audit.log").ok
    (folder / "audit.head").write_bytes(early.replace(b'"seq": 7', b'"seq": 6'))
    assert kinds(verify(folder / "audit.log")) == {"head"}


def test_a_log_that_cannot_be_read_is_a_problem(folder: Path, tmp_path: Path) -> None:
    assert kinds(verify(tmp_path / "missing.log")) == {"file"}
    assert kinds(verify(tmp_path)) == {"file"}


def test_the_list_of_problems_is_bounded(folder: Path) -> None:
    lines = make_log(folder, LOG)
    report = check(folder, [lines[0], *lines[1:] * 1000])
    assert len(report.problems) == 100
    assert report.problem_count == 999


@given(content=st.binary(max_size=2000), head=st.binary(max_size=200))
@settings(deadline=None)
def test_no_content_makes_it_raise(folder: Path, content: bytes, head: bytes) -> None:
    lines = make_log(folder, LOG)
    (folder / "audit.head").write_bytes(head)
    assert not check(folder, [content]).ok
    assert not check(folder, [*lines[:3], content + b"\n", *lines[3:]]).ok


def test_a_log_may_begin_where_a_rotated_one_ended(folder: Path) -> None:
    make_log(folder, LOG)
    path, old = folder / "audit.log", folder / "audit.log.1"
    ended = verify(path)
    path.rename(old)
    with AuditLog(path):
        pass
    report = verify(path)
    assert report.ok
    assert (report.first_seq, report.log) == (ended.last_seq + 1, ended.log)
    assert tail(path)[0].prev == ended.last_hash
    assert verify(old).ok
