"""Power cuts, full disks, forks, other programs: what the log says afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from pqc_iiot.audit import AuditLog, AuditRecord, tail, verify
from pqc_iiot.audit.record import leaf_hash

PRELUDE = """
import os, resource, socket, sys, threading
from pathlib import Path
from pqc_iiot.audit import AuditLog, tail, verify

path = Path(sys.argv[1])

def until(condition):
    while not condition():
        threading.Event().wait(0.001)

def limit(kind, value):
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
"""


def run(path: Path, script: str) -> None:
    """Run a script in a process of its own, because it changes what a process may do."""
    subprocess.run([sys.executable, "-c", PRELUDE + script, str(path)], check=True, timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def records(path: Path) -> list[AuditRecord]:
    return tail(path, 1_000_000)


def events(path: Path) -> list[str]:
    return [record.event for record in records(path)]


def write_some(path: Path) -> list[bytes]:
    with AuditLog(path) as log:
        for _ in range(3):
            log.emit("started")
    return path.read_bytes().splitlines(keepends=True)


def test_a_killed_writer_leaves_a_log_that_goes_on(path: Path) -> None:
    script = """
with AuditLog(path, capacity=1 << 20) as log:
    print(log.flush(), flush=True)
    while True:
        for sequence in range(500):
            log.emit("refused_replay", sequence=sequence, context="x" * 200)
        print(flush=True)
"""
    rounds, last = 40, 0
    for _ in range(rounds):
        arguments = [sys.executable, "-c", PRELUDE + script, str(path)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"True\n"
            for _ in range(random.randrange(20)):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        report = verify(path)
        assert {problem.kind for problem in report.problems} <= {"torn"}
        assert report.last_seq > last
        last = report.last_seq
    with AuditLog(path):
        pass
    report = verify(path)
    assert report.ok
    assert report.events == report.last_seq == last + 1 or report.torn_tails
    assert events(path).count("audit_opened") == rounds + 1


@pytest.mark.parametrize(
    "torn",
    [b'{"v":1,"se', b"\0" * 100_000, b"\n", b"\n\n\n", b"two\nlines", b"line\n", b"\xff" * 70_000],
)
def test_a_torn_tail_is_kept_and_recorded(path: Path, torn: bytes) -> None:
    with AuditLog(path) as log:
        log.emit("started")
    with path.open("ab") as file:
        file.write(torn)
    assert not verify(path).ok
    with AuditLog(path):
        pass
    report = verify(path)
    assert report.ok
    assert (report.torn_tails, report.events) == (1, 4)
    assert torn in path.read_bytes()
    assert events(path) == ["audit_opened", "started", "audit_torn_tail", "audit_opened"]
    content = torn.removesuffix(b"\n")
    detail = records(path)[2].detail
    assert (detail["length"], detail["sha256"]) == (len(content), sha256(content).hexdigest())
    path.write_bytes(path.read_bytes().replace(torn, b"" if torn.endswith(b"\n") else b"\n", 1))
    assert not verify(path).ok, "what was kept is gone"


def test_the_end_of_a_garbage_line_is_no_record(path: Path) -> None:
    line = write_some(path)[1]
    block = 64 * 1024  # read first when looking for the last record
    with path.open("ab") as file:
        file.write(b"garbage" + line + b"x" * (block - len(line)))
    with AuditLog(path):
        pass
    assert verify(path).ok
    assert records(path)[-1].seq == 6


def test_a_log_torn_in_its_first_record_goes_on(path: Path) -> None:
    path.write_bytes(b'{"v":1,"seq":1,"ti')
    with AuditLog(path):
        pass
    assert verify(path).ok
    assert events(path) == ["audit_torn_tail", "audit_opened"]


def test_a_record_without_its_line_end_is_a_record(path: Path) -> None:
    with AuditLog(path) as log:
        log.emit("started")
    path.write_bytes(path.read_bytes()[:-1])
    with AuditLog(path):
        pass
    assert verify(path).ok
    assert events(path) == ["audit_opened", "started", "audit_opened"]


def edit_head(old: bytes, new: bytes) -> Callable[[Path, list[bytes]], object]:
    def edit(path: Path, _: list[bytes]) -> None:
        head = path.with_suffix(".head")
        assert old in head.read_bytes()
        head.write_bytes(head.read_bytes().replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("damage", "problem", "kind"),
    [
        (lambda path, lines: path.write_bytes(b"".join(lines[:2])), "ahead", "missing"),
        (
            lambda path, lines: path.write_bytes(
                b"".join([*lines[:3], lines[3].replace(b"started", b"stopped")])
            ),
            "differs",
            "changed",
        ),
        (lambda path, lines: path.with_suffix(".head").unlink(), "missing", None),
        (edit_head(b"hash", b"hush"), "unreadable", None),
        (edit_head(b'"hash": "', b'"hash": "x'), "unreadable", None),
        (edit_head(b'"log": "', b'"log": "x'), "other_log", "head"),
    ],
)
def test_a_wrong_end_is_recorded_and_stays_visible(
    path: Path, damage: Callable[[Path, list[bytes]], object], problem: str, kind: str | None
) -> None:
    damage(path, write_some(path))
    with AuditLog(path):
        pass
    last = records(path)[-1]
    assert (last.event, last.detail["problem"]) == ("audit_head_mismatch", problem)
    assert last.seq == 6, "no sequence is used twice"
    assert {problem.kind for problem in verify(path).problems} == ({kind} if kind else set())


def test_a_log_that_is_gone_at_opening_leaves_its_sequence(path: Path) -> None:
    write_some(path)
    path.unlink()
    with AuditLog(path) as log:
        log.emit("started")
    assert [(record.event, record.seq) for record in records(path)] == [
        ("audit_rotated", 5),
        ("started", 6),
    ]
    assert verify(path).first_seq == 5


def forge(lines: list[bytes]) -> bytes:
    """A record that fits behind the last one, by somebody else."""
    last = AuditRecord.parse(lines[-1][:-1])
    assert last is not None
    return replace(last, seq=last.seq + 1, prev=leaf_hash(last.encode())).encode() + b"\n"


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda path, lines: path.rename(path.with_name("audit.log.1")), set()),
        (lambda path, lines: path.unlink(), set()),
        (lambda path, lines: path.write_bytes(b""), set()),
        (lambda path, lines: path.write_bytes(b"".join(lines[:2])), {"missing"}),
        (lambda path, lines: path.write_bytes(b"".join([*lines, b"garbage"])), set()),
        (lambda path, lines: path.write_bytes(b"".join([*lines, lines[2]])), {"repeated"}),
        (lambda path, lines: path.write_bytes(b"".join([*lines, forge(lines)])), {"repeated"}),
        (lambda path, lines: replace_by_copy(path), set()),
    ],
)
def test_the_log_follows_its_name_while_it_is_open(
    path: Path, change: Callable[[Path, list[bytes]], object], kinds: set[str]
) -> None:
    with AuditLog(path) as log:
        for _ in range(3):
            log.emit("started")
        assert log.flush()
        change(path, path.read_bytes().splitlines(keepends=True))
        log.emit("policy_changed", setting="suites")
        assert log.flush()
        found = records(path)
        assert "audit_rotated" in [record.event for record in found]
        assert "policy_changed" in [record.event for record in found]
        assert next(r.seq for r in found if r.event == "audit_rotated") in (5, 6)
        report = verify(path)
        assert kinds <= {problem.kind for problem in report.problems}
        assert report.ok is not bool(kinds)


def test_a_full_disk_loses_only_what_does_not_fit_in_the_queue(path: Path) -> None:
    run(
        path,
        """
with AuditLog(path, capacity=4) as log:
    assert log.flush()
    limit(resource.RLIMIT_FSIZE, path.stat().st_size + 100)  # ends within the next record
    log.emit("refused_replay", sequence=1)
    until(lambda: log.stats().failed_writes)
    for sequence in range(2, 9):
        log.emit("refused_replay", sequence=sequence)
    for _ in range(2):
        log.emit("refused_unknown_peer")
    stats = log.stats()
    assert (stats.dropped, stats.queue_depth, stats.last_error) == (5, 4, "EFBIG"), stats
    assert [problem.kind for problem in verify(path).problems] == ["torn"]
    limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    assert log.flush()
    stats = log.stats()
    assert (stats.written, stats.dropped) == (5, 5), stats
""",
    )
    found = records(path)
    assert [r.detail["sequence"] for r in found if r.event == "refused_replay"] == [1, 2, 3, 4, 5]
    drops = {r.detail["dropped"]: r.detail["count"] for r in found if r.event == "events_dropped"}
    assert drops == {"refused_replay": 3, "refused_unknown_peer": 2}
    (recovered,) = [record for record in found if record.event == "audit_recovered"]
    assert recovered.detail["error"] == "EFBIG"
    report = verify(path)
    assert report.ok
    assert report.torn_tails == 0


def test_closing_on_a_full_disk_gives_up_and_the_log_goes_on(path: Path) -> None:
    run(
        path,
        """
log = AuditLog(path)
assert log.flush()
log.emit("started")
until(lambda: log.stats().written == 1)
limit(resource.RLIMIT_FSIZE, path.stat().st_size + 100)
log.emit("key_loaded")
log.emit("stopped")
assert not log.close()
assert log.stats().dropped == 2, log.stats()
""",
    )
    with AuditLog(path) as log:
        log.emit("stopped")
    report = verify(path)
    assert report.ok
    assert report.torn_tails == 1


def test_a_log_that_cannot_be_opened_is_opened_later(path: Path) -> None:
    run(
        path,
        """
limit(resource.RLIMIT_NOFILE, os.open("/dev/null", os.O_RDONLY) + 1)
log = AuditLog(path)
log.emit("started")
until(lambda: log.stats().failed_writes > 1)
assert log.stats().last_error == "EMFILE"
limit(resource.RLIMIT_NOFILE, 256)
assert log.flush()
assert log.close()
""",
    )
    assert sorted(events(path)) == ["audit_opened", "audit_recovered", "started"]
    assert verify(path).ok


def test_a_lost_head_file_does_not_stop_the_log(path: Path) -> None:
    with AuditLog(path) as log:
        assert log.flush()
        path.with_suffix(".head").unlink()
        path.with_suffix(".head").mkdir()
        log.emit("started")
        assert not log.flush(0.05)
        assert log.stats().failed_writes == 1
        path.with_suffix(".head").rmdir()
        log.emit("stopped")
        assert log.flush()
    assert events(path) == ["audit_opened", "started", "stopped"]
    assert verify(path).ok


def test_a_forked_child_writes_nothing_and_holds_no_lock(path: Path) -> None:
    run(
        path,
        """
log = AuditLog(path)
log.emit("started")
here, there = socket.socketpair()
child = os.fork()
if child == 0:
    here.close()
    log.emit("key_made")
    there.send(b"forked")
    fine = log.stats().dropped == 1 and not log.flush() and not log.close()
    there.recv(1)  # until the parent closes its end
    os._exit(0 if fine else 1)
there.close()
here.recv(6)
log.emit("stopped")
assert log.close()
AuditLog(path).close()  # the child still lives
here.close()
assert os.waitpid(child, 0)[1] == 0
""",
    )
    assert events(path) == ["audit_opened", "started", "stopped", "audit_opened"]
    assert verify(path).ok


def test_what_waits_is_written_at_exit(path: Path) -> None:
    run(path, 'log = AuditLog(path)\nfor _ in range(2000): log.emit("started")\n')
    assert events(path).count("started") == 2000
    assert verify(path).ok
