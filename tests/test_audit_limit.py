"""The limit on what the wire may leave in the log: bounds in count, memory and disk."""

from __future__ import annotations

import os
import signal
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

from pqc_iiot import errors
from pqc_iiot.audit import AuditLog, tail, verify
from pqc_iiot.audit.limit import WIRE_DRIVEN, Limit, Limiter, Suppressed

PEERS = [f"{number:064x}" for number in range(5000)]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def passed(limiter: Limiter, event: str, peer: str, times: int) -> int:
    return sum(limiter.count_refused(event, peer) == 0 for _ in range(times))


def test_a_burst_passes_and_then_a_trickle() -> None:
    clock = Clock()
    limiter = Limiter(Limit(burst=10, interval=5.0), clock=clock)
    assert passed(limiter, "refused_replay", PEERS[1], 50) == 10
    clock.now = 4.9
    assert passed(limiter, "refused_replay", PEERS[1], 50) == 0
    clock.now = 5.0
    assert passed(limiter, "refused_replay", PEERS[1], 50) == 1
    clock.now = 1000.0
    assert passed(limiter, "refused_replay", PEERS[1], 50) == 10


def test_events_and_peers_do_not_share_a_bucket() -> None:
    limiter = Limiter(Limit(burst=10), clock=Clock())
    assert passed(limiter, "refused_replay", PEERS[1], 50) == 10
    assert passed(limiter, "refused_replay", PEERS[2], 50) == 10
    assert passed(limiter, "refused_policy", PEERS[1], 50) == 10


def test_many_peers_together_are_bounded_too() -> None:
    clock = Clock()
    limiter = Limiter(Limit(all_burst=100, all_interval=2.0), clock=clock)
    assert sum(passed(limiter, "refused_replay", peer, 1) for peer in PEERS) == 100
    clock.now = 20.0
    assert sum(passed(limiter, "refused_replay", peer, 1) for peer in PEERS) == 10


def test_memory_is_bounded_whoever_comes() -> None:
    limiter = Limiter(Limit(peers=64, all_burst=10**9), clock=Clock())
    tracemalloc.start()
    for number in range(20_000):
        limiter.count_refused("refused_replay", f"{number:064x}")
        limiter.count_refused("refused_unknown_peer", "")
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current < 100_000
    suppressed = {row.event: row.count for row in limiter.take_report()}
    assert suppressed == {"refused_unknown_peer": 20_000 - 100}


def test_what_is_kept_out_is_counted_once() -> None:
    clock = Clock()
    limiter = Limiter(Limit(burst=1, peers=3), clock=clock)
    assert limiter.report_due == float("inf")
    passed(limiter, "refused_replay", PEERS[1], 6)
    passed(limiter, "refused_replay", PEERS[2], 9)
    passed(limiter, "refused_policy", "", 2)
    assert limiter.report_due == 10.0
    assert limiter.take_report() == [
        Suppressed("refused_replay", 13, 2, PEERS[2]),
        Suppressed("refused_policy", 1, 0, ""),
    ]
    assert limiter.take_report() == []
    assert (limiter.total, limiter.report_due) == (14, float("inf"))


def test_only_what_the_wire_causes_is_limited(tmp_path: Path) -> None:
    limiter = Limiter(Limit(burst=1, all_burst=1))
    with AuditLog(tmp_path / "audit.log", limiter=limiter) as log:
        for _ in range(20):
            log.emit("peer_revoked", peer=PEERS[1])
            log.emit("policy_changed", setting="trust")
    events = Counter(record.event for record in tail(tmp_path / "audit.log", 1000))
    assert events == {"audit_opened": 1, "peer_revoked": 20, "policy_changed": 20}
    assert {"refused_replay", "refused_invalid_frame", "peer_pending_seen"} <= WIRE_DRIVEN
    assert not {"peer_pinned", "peer_revoked", "state_tampered"} & WIRE_DRIVEN


def test_the_log_sums_up_what_was_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, limiter=Limiter(Limit(burst=5, report=0.05))) as log:
        for _ in range(1000):
            log.emit_error(errors.ReplayError("old", peer=PEERS[7]), sequence=1)
        while not any(r.event == "events_suppressed" for r in tail(path, 100)):
            log.durable(log.durable().seq, timeout=1.0)  # reported while it goes on
        for _ in range(1000):
            log.emit_error(errors.ReplayError("old", peer=PEERS[7]), sequence=2)
        assert log.flush()
        assert log.stats().suppressed == 1995
    records = tail(path, 100)
    sums = [record for record in records if record.event == "events_suppressed"]
    assert sum(int(record.detail["count"]) for record in sums) == 1995
    assert {record.peer for record in sums} == {PEERS[7]}
    assert sums[0].detail["suppressed"] == "refused_replay"
    assert sum(record.event == "refused_replay" for record in records) == 5
    assert log.stats().written == 5
    assert verify(path).ok


def test_a_flood_leaves_little_on_disk_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, limiter=Limiter()) as log:
        for number in range(50_000):
            log.emit_error(errors.InvalidFrameError("junk"), length=number, context="x" * 256)
            if number % 1000 == 0:
                log.emit_error(
                    errors.ReplayError("old", peer=PEERS[number // 1000]), sequence=number
                )
    assert path.stat().st_size < 200_000
    events = Counter(record.event for record in tail(path, 10_000))
    assert events["refused_replay"] == 50
    assert events["refused_invalid_frame"] == 100
    assert log.stats().dropped == 0
    assert log.stats().suppressed == 49_900


def test_a_fork_does_not_wait_for_the_limiter(tmp_path: Path) -> None:
    limiter = Limiter(Limit(burst=1))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with limiter._lock:
            held.set()
            done.wait()

    with AuditLog(tmp_path / "audit.log", limiter=limiter) as log:
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if not child:
            signal.alarm(10)  # what waits is killed
            log.emit_error(errors.ReplayError("old"), sequence=1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        done.set()
        holder.join()
        assert status == 0
