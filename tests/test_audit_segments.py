"""A log in several files: its bounds, its chain across them, and what interrupts a closing."""

from __future__ import annotations

import itertools
import stat
import threading
from pathlib import Path

import pytest

from pqc_iiot.audit import AuditLog, tail, verify
from pqc_iiot.audit.segments import (
    Retention,
    closed_files,
    closed_name,
    first_seq_of,
    last_seq_of,
    log_files,
)

SMALL = Retention(file_bytes=4096, closed_files=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def fill(log: AuditLog, count: int) -> None:
    for sequence in range(count):
        log.emit("refused_replay", sequence=sequence, context="line1")
        if sequence % 8 == 7:
            assert log.flush()
    assert log.flush()


def test_full_files_are_closed_and_the_chain_goes_on(path: Path) -> None:
    with AuditLog(path, retention=Retention(4096, 100)) as log:
        fill(log, 200)
    files = log_files(path)
    assert len(files) > 5
    assert files[-1] == path
    report = verify(path)
    assert report.ok
    assert (report.first_seq, report.events) == (1, report.last_seq)
    assert [r.seq for r in tail(path, 1000)] == list(range(1, report.last_seq + 1))
    for before, file in itertools.pairwise(files):
        assert stat.S_IMODE(before.stat().st_mode) == 0o400
        assert first_seq_of(file) == last_seq_of(before) + 1
        assert before.stat().st_size < 4096 + 8 * 512
    rotated = [r for r in tail(path, 1000) if r.event == "audit_rotated"]
    assert [r.detail["path"] for r in rotated] == [file.name for file in files[:-1]]


def test_the_oldest_files_go_and_what_went_is_counted(path: Path) -> None:
    with AuditLog(path, retention=SMALL) as log:
        fill(log, 400)
    assert len(closed_files(path)) == 3
    assert sum(file.stat().st_size for file in log_files(path)) < 4 * (4096 + 8 * 512)
    report = verify(path)
    assert report.ok
    assert report.first_seq > 1
    records = tail(path, 1000)
    expired = [r for r in records if r.event == "audit_expired"]
    assert expired[-1].detail["last_sequence"] == report.first_seq - 1
    assert expired[-1].detail["count"] != 0


def test_a_removed_file_in_the_middle_is_found(path: Path) -> None:
    with AuditLog(path, retention=Retention(4096, 100)) as log:
        fill(log, 100)
    closed_files(path)[2].unlink()
    assert {problem.kind for problem in verify(path).problems} == {"missing"}


def test_an_edit_of_a_closed_file_is_found(path: Path) -> None:
    with AuditLog(path, retention=Retention(4096, 100)) as log:
        fill(log, 100)
    closed = closed_files(path)[1]
    closed.chmod(0o600)
    closed.write_bytes(closed.read_bytes().replace(b'"sequence":20', b'"sequence":21'))
    assert "changed" in {problem.kind for problem in verify(path).problems}


def test_the_chain_goes_on_after_an_interrupted_closing(path: Path) -> None:
    with AuditLog(path, retention=SMALL) as log:
        fill(log, 5)
    last = tail(path, 1)[0].seq
    path.rename(closed_name(path, last))  # killed before the mode and the new file
    with AuditLog(path, retention=SMALL) as log:
        fill(log, 100)
    assert verify(path).ok
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o400 for f in closed_files(path))


def test_no_closed_file_is_ever_written_over(path: Path) -> None:
    with AuditLog(path, retention=Retention(4096, 1000)) as log:
        obstacles = [closed_name(path, seq) for seq in range(1, 60)]
        for obstacle in obstacles:
            obstacle.write_text("somebody's")
        fill(log, 100)
    assert {file.read_text() for file in obstacles} == {"somebody's"}
    assert log.stats().dropped == 0
    (closed, *_) = [file for file in closed_files(path) if file not in obstacles]
    assert last_seq_of(closed) >= 60
    for obstacle in obstacles:
        obstacle.unlink()
    assert verify(path).ok


def test_a_log_can_be_verified_while_its_files_are_closed(path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            fill(log, 24)

    with AuditLog(path, retention=Retention(4096, 1000)) as log:
        fill(log, 24)
        worker = threading.Thread(target=work)
        worker.start()
        try:
            for _ in range(40):
                report = verify(path)
                assert not {p.kind for p in report.problems} - {"file"}, report.problems
                records = tail(path, 20)
                assert [r.seq for r in records] == list(
                    range(records[0].seq, records[0].seq + len(records))
                )
        finally:
            stop.set()
            worker.join()
    assert verify(path).ok


def test_many_threads_lose_nothing_while_files_are_closed(path: Path) -> None:
    def work() -> None:
        for sequence in range(500):
            log.emit("refused_replay", sequence=sequence)

    with AuditLog(path, retention=Retention(8192, 1000)) as log:
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert log.stats().written == 2000
    assert verify(path).ok
    assert sum(r.event == "refused_replay" for r in tail(path, 10_000)) == 2000
