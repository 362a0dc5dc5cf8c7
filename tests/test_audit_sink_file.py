"""The sink that is a file: rotation, bounds, and how it says itself how far it is."""

from __future__ import annotations

import resource
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pqc_iiot.audit import AuditLog, tail, verify
from pqc_iiot.audit.formats import FORMATS
from pqc_iiot.audit.segments import closed_files
from pqc_iiot.audit.sinks import cursor_file
from pqc_iiot.audit.sinks.file import RotatingFile
from pqc_iiot.audit.sinks.spool import Cursor
from receivers import wait_until
from sink_devices import Device, file_seqs, file_sink, open_devices, short_delays

__all__ = ["open_devices", "short_delays"]


def test_a_file_rotates_under_load_and_its_chain_survives(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    config = file_sink(tmp_path, "?max_bytes=20000&keep=1000")
    open_devices.append(device := Device(tmp_path, config))
    device.emit(2000)
    last = device.delivered("file")
    out = tmp_path / "out/siem.log"
    closed = closed_files(out)
    assert len(closed) > 20
    for file in closed:
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
        assert 19_000 < file.stat().st_size <= 20_000
    report = verify(out)
    assert report.ok
    assert (report.first_seq, report.last_seq, report.events) == (1, last, last)
    assert report.last_hash == device.log.durable().hash


def test_a_file_keeps_to_its_bounds(tmp_path: Path, open_devices: list[Device]) -> None:
    config = file_sink(tmp_path, "?max_bytes=5000&keep=2")
    open_devices.append(device := Device(tmp_path, config))
    device.emit(500)
    last = device.delivered("file")
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 3 * 5000
    kept = file_seqs(tmp_path)
    assert kept == list(range(kept[0], last + 1))


def test_a_file_rotates_by_age(
    tmp_path: Path, open_devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sink = RotatingFile(file_sink(tmp_path, "?max_age=60"))
    with AuditLog(tmp_path / "audit.log") as log:
        log.emit("started")
        assert log.flush()
        records = tail(tmp_path / "audit.log")
        sink.deliver(records[:1])
        now[0] += 59
        sink.deliver(records[1:2])
        assert not closed_files(tmp_path / "out/siem.log")
        now[0] += 1
        sink.deliver([replace(records[1], seq=3)])
        assert [file.name[-6:] for file in closed_files(tmp_path / "out/siem.log")] == ["02.log"]
    sink.close()


@pytest.mark.parametrize("format_", list(FORMATS))
def test_a_file_says_itself_how_far_it_is(tmp_path: Path, format_: str) -> None:
    """A power cut between the file and its cursor repeats nothing, in any format."""
    hostile = '"seq":99,"sequence":99 externalId=99 \\"seq\\":99'
    config = file_sink(tmp_path, format=format_)
    for _ in range(3):
        device = Device(tmp_path, config)
        device.log.emit("peer_pending", name=hostile)
        device.emit(20)
        last = device.delivered("file")
        device.log.close()
        written = (tmp_path / "out/siem.log").read_bytes()
        cursor = Cursor.read(cursor_file(tmp_path, "file"))
        assert cursor.seq >= last
        replace(cursor, seq=last - 15).write(cursor_file(tmp_path, "file"))
        with (tmp_path / "out/siem.log").open("ab") as file:
            file.write(written[:100])  # and torn
    Device(tmp_path, config).log.close()
    lines = (tmp_path / "out/siem.log").read_text().splitlines()
    records = tail(tmp_path / "audit.log", 1000)
    assert lines == [FORMATS[format_](record) for record in records]


def test_a_file_that_cannot_be_opened_is_an_outage_and_nothing_more(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/siem.log").symlink_to("elsewhere")
    config = file_sink(tmp_path)
    open_devices.append(device := Device(tmp_path, config))
    wait_until(lambda: device.status("file").failures > 1, "it is refused")
    (tmp_path / "out/siem.log").unlink()
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))
    assert verify(tmp_path / "out/siem.log").ok


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit.log") as log:
        for sequence in range(20):
            log.emit("refused_replay", sequence=sequence)
    records = tail(tmp_path / "audit.log", 100)
    sink = RotatingFile(file_sink(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # within the third or fourth line
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="large"):
                sink.deliver(records[sink.delivered() :])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < len(file_seqs(tmp_path)) < 5
    sink.deliver(records[sink.delivered() :])
    assert file_seqs(tmp_path) == [record.seq for record in records]
    sink.close()


def test_a_file_that_is_moved_away_is_begun_anew(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    device.emit(10)
    before = device.delivered("file")
    (tmp_path / "out/siem.log").rename(tmp_path / "out/moved")
    device.emit(10)
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(before + 1, last + 1))
