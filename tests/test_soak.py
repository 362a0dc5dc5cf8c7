"""The long run in short: a few thousand durable messages through a real broker while sender,
receiver and broker are ended at random; `python -m benchmarks.soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import soak


@pytest.mark.parametrize("messages", [4000])
def test_everything_is_accounted_for(tmp_path: Path, messages: int) -> None:
    report = soak.soak(tmp_path, messages, restarts=0.5)
    assert report.ok, report
    assert (report.lost, report.repeated, report.unsent) == (0, 0, 0)
    # What a sender could not note before it was ended was accepted all the same.
    assert report.given == messages + report.unheard
    assert report.unheard <= soak.BATCH * report.restarts.get("sender", 0)
    assert sum(report.restarts.values()) >= 1
    assert set(report.queues.values()) == {0}


def test_the_account_finds_what_is_wrong(tmp_path: Path) -> None:
    """A message that never came, one that came after it was acknowledged, one from nowhere."""
    run = soak.Run(tmp_path, 3, 1.0, kill_broker=False, save_always=False)
    sent, given = soak.Notes(tmp_path / "sent"), soak.Notes(tmp_path / "given")
    sent.write(b"L", 1)
    for number in range(3):
        sent.write(b"S", 1, number)
    given.write(b"L")
    given.write(b"G", 1, 0)
    given.write(b"A")
    given.write(b"L")
    for life, number in ((1, 0), (1, 1), (1, 1), (2, 7)):
        given.write(b"G", life, number)
    run._account()
    report = run.report
    assert (report.lost, report.repeated, report.again, report.unsent) == (1, 1, 2, 1)
    assert not report.ok
