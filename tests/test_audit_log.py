"""The writer: what callers give it, what stands in the file, and that it never harms them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from pqc_iiot import errors
from pqc_iiot.audit import EVENTS, FIELDS, AuditLog, AuditRecord, Severity, tail, verify
from pqc_iiot.audit.record import NO_HASH

PEER = "0123456789abcdef" * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def records(path: Path) -> list[AuditRecord]:
    return tail(path, 1_000_000)


def test_an_event_becomes_a_record(path: Path) -> None:
    with AuditLog(path, device="press-4") as log:
        log.emit("peer_revoked", peer=PEER, name="plc-7", operator="ada")
    opened, revoked = records(path)
    assert (opened.event, opened.seq, opened.prev) == ("audit_opened", 1, NO_HASH)
    assert len(str(opened.detail["log"])) == 32
    assert (revoked.event, revoked.id, revoked.seq) == ("peer_revoked", "PQC-3008", 2)
    assert (revoked.severity, revoked.reason) == (Severity.HIGH, "")
    assert (revoked.device, revoked.peer) == ("press-4", PEER)
    assert revoked.detail == {"name": "plc-7", "operator": "ada"}
    assert verify(path).ok


def test_every_event_of_the_catalogue_can_be_emitted(path: Path) -> None:
    for_callers = [event for event in EVENTS.values() if not event.id.startswith("PQC-6")]
    with AuditLog(path) as log:
        for event in for_callers:
            fields = {name: FIELDS[name].type(7) for name in event.fields}
            log.emit(event.name, peer=PEER, **fields)
    written = records(path)[1:]
    for record, event in zip(written, for_callers, strict=True):
        assert record.event == event.name
        assert (record.id, record.severity) == (event.id, event.severity)
        assert record.reason == event.reason
        assert set(record.detail) == set(event.fields)
    assert verify(path).ok


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("no_such_event", {}),
        ("events_dropped", {"dropped": "started", "count": 1}),
        ("peer_pending", {"payload": "21.5"}),
        ("peer_pending", {"operator": "field of another event"}),
        ("peer_pending", {"name": b"bytes"}),
        ("peer_pending", {"name": bytearray(b"bytes")}),
        ("peer_pending", {"name": memoryview(b"bytes")}),
        ("peer_pending", {"name": None}),
        ("peer_pending", {"name": ["list"]}),
        ("peer_pending", {"name": type("Name", (str,), {})("subclass")}),
        ("peer_pending", {"name": 7}),
        ("peer_pending", {"serial": "7"}),
        ("peer_pending", {"serial": True}),
        ("peer_pending", {"serial": 7.0}),
        ("peer_pending", {"serial": 2**64}),
        ("peer_pending", {"peer": "plc-7"}),
        ("peer_pending", {"peer": PEER.upper()}),
        ("peer_pending", {"peer": PEER + "\n"}),
    ],
)
def test_what_is_not_in_the_catalogue_is_refused(
    path: Path, event: str, fields: dict[str, str]
) -> None:
    with AuditLog(path) as log:
        with pytest.raises(ValueError, match=event) as refused:
            log.emit(event, **fields)
        assert "bytes" not in str(refused.value).replace("type bytes", "")
    assert len(records(path)) == 1


def test_an_error_leaves_the_event_of_its_code(path: Path) -> None:
    with AuditLog(path) as log:
        log.emit_error(errors.ReplayError("old", peer=PEER), sequence=3, last_sequence=9)
        log.emit_error(errors.UnknownPeerError("who?"), sequence=3, last_sequence=9)
        log.emit_error(errors.RevokedPeerError("gone"), peer=PEER)
        log.emit_error(errors.TransportError("broker is away"), sequence=3)
        with pytest.raises(ValueError, match="payload"):
            log.emit_error(errors.ReplayError("old"), payload="21.5")
        with pytest.raises(ValueError, match="sequence"):
            log.emit_error(errors.ReplayError("old"), sequence="3")
    replay, unknown, revoked = records(path)[1:]
    assert (replay.event, replay.reason, replay.peer) == ("refused_replay", "replay", PEER)
    assert replay.detail == {"sequence": 3, "last_sequence": 9}
    assert (unknown.event, unknown.peer) == ("refused_unknown_peer", "")
    assert unknown.detail == {"sequence": 3}
    assert (revoked.event, revoked.peer) == ("refused_revoked_peer", PEER)


def test_many_threads_lose_and_mix_nothing(path: Path) -> None:
    threads, each = 8, 500
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        start.wait()
        for sequence in range(each):
            log.emit("refused_replay", sender=f"{number}", sequence=sequence)

    with AuditLog(path) as log:
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert log.stats().written == threads * each
    details = [record.detail for record in records(path)[1:]]
    for number in range(threads):
        mine = [detail["sequence"] for detail in details if detail["sender"] == str(number)]
        assert mine == list(range(each))
    assert verify(path).ok


def test_flush_means_on_disk(path: Path) -> None:
    with AuditLog(path) as log:
        for sequence in range(3000):
            log.emit("refused_duplicate", sequence=sequence)
        assert log.flush()
        report = verify(path)
        assert report.ok
        assert report.events == report.head_seq == 3001
        assert log.stats().queue_depth == 0


def test_a_log_can_be_verified_while_it_is_written(path: Path) -> None:
    with AuditLog(path, capacity=100_000) as log:
        for round_ in range(20):
            for sequence in range(2000):
                log.emit("refused_duplicate", sequence=sequence, context="x" * 200)
            report = verify(path)
            assert report.ok or not report.events, (round_, report.problems)


def test_sequence_and_chain_go_on_after_a_restart(path: Path) -> None:
    ids = set()
    for _ in range(3):
        with AuditLog(path) as log:
            log.emit("started", version="0.1.0")
        ids.add(tail(path, 2)[0].detail["log"])
    assert [record.seq for record in records(path)] == [1, 2, 3, 4, 5, 6]
    assert len(ids) == 1
    report = verify(path)
    assert report.ok
    assert (report.first_seq, report.last_seq, report.head_seq) == (1, 6, 6)


def test_two_logs_share_no_hash(tmp_path: Path) -> None:
    prevs = set()
    for name in ("a.log", "b.log"):
        with AuditLog(tmp_path / name) as log:
            log.emit("stopped")
        prevs.add(tail(tmp_path / name, 1)[0].prev)
    assert len(prevs) == 2


def test_files_are_private(path: Path) -> None:
    before = os.umask(0)
    try:
        with AuditLog(path):
            pass
    finally:
        os.umask(before)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert {file.name for file in path.parent.iterdir()} == {"audit.log", "audit.head"}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_log_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    with AuditLog(path):
        pass
    path.chmod(mode)
    with pytest.raises(errors.UnsafePermissionsError) as refused:
        AuditLog(path)
    assert refused.value.hint == f"chmod 600 {path}"


def test_others_may_read_a_log(path: Path) -> None:
    path.touch(0o644)
    with AuditLog(path) as log:
        assert log.flush()


def test_one_writer_at_a_time(path: Path) -> None:
    with AuditLog(path), pytest.raises(errors.StateLockedError):
        AuditLog(path)
    with AuditLog(path) as log:
        assert log.flush()


def test_a_path_that_cannot_hold_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo", 0o600)
    for wrong in ("missing/audit.log", "file/audit.log", "link", "fifo", "."):
        with pytest.raises(errors.StateError) as refused:
            AuditLog(tmp_path / wrong)
        assert refused.value.hint


def test_a_closed_log_takes_nothing_and_counts_it(path: Path) -> None:
    log = AuditLog(path)
    log.emit("started")
    assert log.close()
    log.emit("stopped")
    assert not log.flush()
    assert not log.close()
    assert (log.stats().written, log.stats().dropped) == (1, 1)
    assert [record.event for record in records(path)] == ["audit_opened", "started"]


def test_a_log_that_cannot_be_opened_harms_nobody(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / ("x" * 300))  # ENAMETOOLONG: fails as a broken disk does
    log.emit("started")
    assert not log.close()
    stats = log.stats()
    assert (stats.written, stats.dropped, stats.last_error) == (0, 1, "ENAMETOOLONG")
    assert stats.failed_writes >= 2
