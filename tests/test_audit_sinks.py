"""Sinks: files, OTLP and the journal; cursors, outages of every kind, and bounds."""

from __future__ import annotations

import array
import json
import os
import resource
import socket
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from certificates import Authority
from pqc_iiot import errors
from pqc_iiot.audit import AuditLog, AuditRecord, tail, verify
from pqc_iiot.audit.formats import FORMATS
from pqc_iiot.audit.limit import Limiter
from pqc_iiot.audit.segments import Retention, closed_files, log_files
from pqc_iiot.audit.sinks import AuditSettings, SinkConfig, Sinks, cursor_file, worker
from pqc_iiot.audit.sinks.file import RotatingFile
from pqc_iiot.audit.sinks.journal import Journal
from pqc_iiot.audit.sinks.spool import Cursor, LogReader
from receivers import collector, wait_until

PEER = "0123456789abcdef" * 4


class Device:
    """A log with sinks at work, as a device has it."""

    def __init__(
        self, folder: Path, *configs: SinkConfig, retention: Retention | None = None
    ) -> None:
        self.folder = folder
        self.path = folder / "audit.log"
        self.log = AuditLog(self.path, device="press-4", retention=retention)
        settings = AuditSettings(configs, heartbeat=0)
        self.sinks = Sinks(settings, self.log, self.path, folder)

    def emit(self, count: int) -> None:
        for sequence in range(count):
            self.log.emit("refused_replay", peer=PEER, sequence=sequence, context="line1/temp")
            if sequence % 500 == 499:
                assert self.log.flush()
        assert self.log.flush()

    def delivered(self, name: str) -> int:
        assert self.log.flush()
        seq = self.log.durable().seq
        assert self.sinks.wait(name, seq, 60), self.sinks.status()
        return seq

    def status(self, name: str) -> worker.SinkStatus:
        (found,) = [status for status in self.sinks.status() if status.name == name]
        return found


@pytest.fixture
def open_devices() -> Iterator[list[Device]]:
    devices: list[Device] = []
    yield devices
    for device in devices:
        device.log.close()


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RETRY_FIRST", 0.02)
    monkeypatch.setattr(worker, "_RETRY_LAST", 0.1)
    monkeypatch.setattr(worker, "_REPORT", 0.0)


def file_sink(folder: Path, options: str = "", **more: str) -> SinkConfig:
    (folder / "out").mkdir(exist_ok=True)
    return SinkConfig("file", f"file://{folder}/out/siem.log{options}", **more)


def file_seqs(folder: Path) -> list[int]:
    written = b"".join(file.read_bytes() for file in log_files(folder / "out/siem.log"))
    return [json.loads(line)["seq"] for line in written.split(b"\n")[:-1]]  # the whole ones


# Files


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


# The cursor and the log


def test_a_sink_that_comes_later_gets_what_the_log_still_has(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    with AuditLog(tmp_path / "audit.log", retention=Retention(4096, 2)) as log:
        for sequence in range(200):
            log.emit("refused_replay", sequence=sequence)
            if sequence % 8 == 7:
                log.flush()
    first = tail(tmp_path / "audit.log", 1000)[0].seq
    assert first > 1
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(first, last + 1))
    assert device.status("file").lost == 0


def test_what_leaves_the_log_in_an_outage_is_counted(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    config = file_sink(tmp_path)
    retention = Retention(8192, 2)
    device = Device(tmp_path, config, retention=retention)
    device.emit(10)
    before = device.delivered("file")
    (tmp_path / "out").rename(tmp_path / "away")
    device.log.emit("refused_replay", sequence=1)
    device.log.close()
    device = Device(tmp_path, config, retention=retention)
    open_devices.append(device)
    (tmp_path / "away").rename(tmp_path / "out")
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))  # nothing had left it yet

    (tmp_path / "out").rename(tmp_path / "away")
    for _ in range(100):
        device.emit(8)
    spool = sum(file.stat().st_size for file in log_files(device.path))
    assert spool < 3 * (8192 + 1024 * 8)
    kept_from = tail(device.path, 10_000)[0].seq
    assert kept_from > last
    (tmp_path / "away").rename(tmp_path / "out")
    end = device.delivered("file")
    lost = device.status("file").lost
    assert lost > 0
    found = file_seqs(tmp_path)
    assert len(found) + lost == end
    assert found == sorted(set(found))
    assert device.log.flush()
    (recovered,) = [
        record
        for record in tail(device.path, 10_000)
        if record.event == "sink_recovered" and record.detail["lost"]
    ]
    assert recovered.detail["lost"] == lost
    assert before < end


def test_another_log_is_delivered_from_its_start(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    config = file_sink(tmp_path)
    device = Device(tmp_path, config)
    device.emit(30)
    device.log.close()
    for file in tmp_path.glob("audit.*"):
        file.unlink() if file.is_file() else None
    (tmp_path / "out/siem.log").unlink()
    open_devices.append(device := Device(tmp_path, config))
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"log":1,"seq":2,"lost":3}', b"\xff" * 5000])
def test_a_damaged_cursor_repeats_and_loses_nothing(tmp_path: Path, junk: bytes) -> None:
    cursor_file(tmp_path, "file").write_bytes(junk)
    assert Cursor.read(cursor_file(tmp_path, "file")) == Cursor()


def test_the_reader_follows_the_log_through_its_files(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    reader = LogReader(path)
    found: list[int] = []
    with AuditLog(path, retention=Retention(4096, 1000)) as log:
        for sequence in range(600):
            log.emit("refused_replay", sequence=sequence)
            if sequence % 7 == 6:
                assert log.flush()
                upto = log.durable().seq
                while not found or found[-1] < upto:
                    records = reader.read(found[-1] if found else 0, upto, 5)
                    assert records
                    found += [record.seq for record in records]
    reader.close()
    assert len(closed_files(path)) > 20
    assert found == list(range(1, found[-1] + 1))


def test_nothing_leaves_before_it_is_on_disk(tmp_path: Path, open_devices: list[Device]) -> None:
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    for _ in range(200):
        device.emit(3)
        seqs = file_seqs(tmp_path)
        assert not seqs or seqs[-1] <= device.log.durable().seq


# All at once


def test_all_sinks_fail_at_once_and_nobody_waits(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    dead = (
        "syslog+tcp://127.0.0.1:1", "syslog+udp://127.0.0.1:1", "otlp+http://127.0.0.1:1",
        "journal:/nowhere", "file:///nowhere/at/all",
    )  # fmt: skip
    configs = [SinkConfig(f"dead-{i}", url) for i, url in enumerate(dead)]
    open_devices.append(device := Device(tmp_path, *configs, retention=Retention(65536, 3)))
    for _ in range(20):
        device.emit(250)
    wait_until(lambda: all(s.failures > 2 for s in device.sinks.status()), "all have failed")
    assert device.log.stats().dropped == 0
    assert sum(file.stat().st_size for file in log_files(device.path)) < 4 * 65536 + 500_000
    events = Counter(record.event for record in tail(device.path, 10_000))
    assert events["sink_failed"] <= len(dead)
    assert verify(device.path).ok
    assert device.log.close(60)


def test_a_slow_sink_holds_up_no_other(tmp_path: Path, open_devices: list[Device]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes, and never answers
        url = f"syslog+tcp://127.0.0.1:{silent.getsockname()[1]}"
        open_devices.append(
            device := Device(tmp_path, SinkConfig("slow", url), file_sink(tmp_path))
        )
        device.emit(100)
        last = device.delivered("file")
        assert file_seqs(tmp_path) == list(range(1, last + 1))
        assert device.status("slow").delivered == 0


def test_back_off_grows_and_has_jitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    one = worker.Worker.__new__(worker.Worker)
    one._sink = Journal(SinkConfig("journal", "journal:/nowhere"))
    for failures, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (10_000, 60.0)):
        one._failures = failures
        delays = {one._delay() for _ in range(50)}
        assert len(delays) > 10
        assert all(longest / 2 <= delay <= longest for delay in delays)
    one._sink.pause = 120.0
    assert one._delay() == 120.0


def test_a_fork_leaves_the_sinks_to_its_parent(tmp_path: Path, open_devices: list[Device]) -> None:
    open_devices.append(device := Device(tmp_path, file_sink(tmp_path)))
    device.emit(10)
    child = os.fork()
    if not child:
        device.log.emit("stopped")
        device.log.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    device.emit(10)
    last = device.delivered("file")
    assert file_seqs(tmp_path) == list(range(1, last + 1))


def test_the_heartbeat_tells_the_clocks_state(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    settings = AuditSettings((file_sink(tmp_path),), heartbeat=1)
    sinks = Sinks(replace(settings, heartbeat=0.05), log, tmp_path / "audit.log", tmp_path)  # type: ignore[arg-type]

    def beats() -> list[AuditRecord]:
        found = tail(tmp_path / "audit.log", 100)
        return [record for record in found if record.event == "audit_heartbeat"]

    wait_until(lambda: len(beats()) > 2, "the heart beats")
    log.close()
    assert sinks.status()[0].waiting <= 1
    assert beats()[0].detail["clock"] in ("synchronised", "unsynchronised", "unknown")
    assert int(beats()[0].detail["clock_error"]) >= 0


# OTLP


def otlp(port: int, scheme: str = "otlp+http", host: str = "127.0.0.1", **more: str) -> SinkConfig:
    return SinkConfig("otlp", f"{scheme}://{host}:{port}", **more)


def test_otlp_delivers_what_its_protocol_says(tmp_path: Path, open_devices: list[Device]) -> None:
    with collector() as server:
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        device.emit(700)
        last = device.delivered("otlp")
        path, headers, body = server.requests[0]
        assert (path, headers["Content-Type"]) == ("/v1/logs", "application/json")
        (resource,) = body["resourceLogs"]
        attributes = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
        assert attributes["service.name"] == {"stringValue": "pqc-iiot"}
        records = tail(device.path, last)
        assert len(server.logs) == last
        for record, log in zip(records, server.logs, strict=True):
            assert log["body"]["stringValue"].encode() == record.encode()
            assert log["severityNumber"] == [9, 10, 13, 17, 21][record.severity - 1]
            assert int(log["timeUnixNano"]) % 1_000_000 == 0
            own = {a["key"]: a["value"] for a in log["attributes"]}
            assert own["pqc_iiot.seq"] == {"intValue": str(record.seq)}
        assert own["pqc_iiot.detail.context"] == {"stringValue": "line1/temp"}


def test_otlp_tries_again_what_may_be_tried_again(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    with collector() as server:
        server.answers = [
            (503, {}, b""), (429, {"Retry-After": "0"}, b""), (401, {}, b""), (500, {}, b"x"),
            (302, {"Location": "/elsewhere"}, b""), (200, {}, b"no JSON"), (200, {}, b"[]"), None,
        ]  # fmt: skip
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        device.emit(5)
        last = device.delivered("otlp")
        assert not server.answers
        seqs = [int(a["attributes"][0]["value"]["intValue"]) for a in server.logs]
        assert list(dict.fromkeys(seqs)) == list(range(1, last + 1))
        assert all(after <= before + 1 for before, after in pairwise(seqs))
        assert device.status("otlp").lost == 0


def test_otlp_counts_what_the_receiver_refuses(tmp_path: Path, open_devices: list[Device]) -> None:
    partial = json.dumps({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "x"}})
    with collector() as server:
        server.answers = [(400, {}, b"")]
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        first = device.delivered("otlp")
        lost = device.status("otlp").lost
        assert 0 < lost <= first
        server.answers = [(200, {}, partial.encode())]
        device.emit(1)
        device.delivered("otlp")
        assert device.status("otlp").lost == lost + 1
    assert device.log.flush()
    noted = [record.detail for record in tail(device.path, 100) if record.event == "sink_lost"]
    assert noted[0] == {"sink": "otlp", "lost": lost}


def test_a_loss_is_not_the_reason_for_the_next_one(
    tmp_path: Path, open_devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_REPORT", 60.0)
    with collector() as server:
        server.answers = [(400, {}, b"")] * 50
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        for _ in range(20):
            device.emit(1)
            device.delivered("otlp")
    assert device.log.flush()
    events = Counter(record.event for record in tail(device.path, 1000))
    assert events["sink_lost"] == 1


def test_otlp_over_tls_with_a_token(tmp_path: Path, open_devices: list[Device]) -> None:
    authority = Authority(tmp_path, "plant-ca")
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    token.chmod(0o600)
    with collector(authority.issue("localhost")) as server:
        config = otlp(
            server.port, "otlp+https", "localhost",
            ca_file=str(authority.ca_file), token_file=str(token),
        )  # fmt: skip
        for wrong in (
            replace(config, ca_file=str(Authority(tmp_path, "other").ca_file)),
            replace(config, url=config.url.replace("localhost", "127.0.0.1")),
        ):
            device = Device(tmp_path, wrong)
            wait_until(lambda device=device: device.status("otlp").failures > 0, "refused")
            assert "certificate" in device.status("otlp").error
            device.log.close()
        assert not server.requests
        open_devices.append(device := Device(tmp_path, config))
        device.delivered("otlp")
        assert server.requests[0][1]["Authorization"] == "Bearer t0ken"
        token.chmod(0o644)
        device.emit(1)
        wait_until(lambda: device.status("otlp").failures > 0, "the token is not used")
        assert "chmod 600" in device.status("otlp").error
        token.chmod(0o600)


# The journal: no systemd in a test, so its socket's protocol, at a socket of our own.


def read_entry(journal: socket.socket) -> dict[str, str]:
    """What systemd's own parser makes of one datagram, or of the file that comes with it."""
    data, ancillary, _, _ = journal.recvmsg(4 * 1024 * 1024, 64)
    for _, _, rights in ancillary:
        (fd,) = array.array("i", rights)
        with os.fdopen(fd, "rb") as file:
            assert not data
            file.seek(0)
            data = file.read()
            with pytest.raises(OSError, match="not permitted"):
                os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x")
    entry = {}
    while data:
        name, separator, rest = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            data = rest
        else:
            key, length = name, int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[9 + length :]
        assert separator
        entry[key.decode()] = value.decode()
    return entry


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        bound.settimeout(10)
        yield bound


def test_the_journal_gets_fields(
    tmp_path: Path, open_devices: list[Device], journal: socket.socket
) -> None:
    config = SinkConfig("journal", f"journal:{tmp_path}/journal")
    open_devices.append(device := Device(tmp_path, config))
    device.log.emit("peer_pending", peer=PEER, name="a\nPRIORITY=0\nb=c")
    device.delivered("journal")
    opened, pending = read_entry(journal), read_entry(journal)
    assert (opened["PQC_EVENT"], opened["PQC_SEQ"], opened["PRIORITY"]) == (
        "audit_opened",
        "1",
        "6",
    )
    assert pending["PQC_DETAIL_NAME"] == "a\nPRIORITY=0\nb=c"
    assert (pending["PRIORITY"], pending["PQC_PEER"]) == ("5", PEER)
    assert pending["MESSAGE"].encode() == tail(device.path, 1)[0].encode()
    assert all(name.replace("_", "").isalnum() and name.isupper() for name in pending)


def test_a_large_entry_goes_to_the_journal_as_a_sealed_file(
    tmp_path: Path, journal: socket.socket
) -> None:
    with AuditLog(tmp_path / "audit.log") as log:
        log.emit("started")
    record = replace(tail(tmp_path / "audit.log", 1)[0], detail={"version": "x" * 2_000_000})
    Journal(SinkConfig("journal", f"journal:{tmp_path}/journal")).deliver([record])
    assert read_entry(journal)["PQC_DETAIL_VERSION"] == "x" * 2_000_000


def test_a_journal_that_is_away_is_waited_for(tmp_path: Path, open_devices: list[Device]) -> None:
    config = SinkConfig("journal", f"journal:{tmp_path}/later")
    open_devices.append(device := Device(tmp_path, config))
    wait_until(lambda: device.status("journal").failures > 1, "it is away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as late:
        late.bind(str(tmp_path / "later"))
        late.settimeout(10)
        found = [int(read_entry(late)["PQC_SEQ"]) for _ in range(device.delivered("journal"))]
    assert found == list(range(1, len(found) + 1))


# A flood


def test_a_flood_holds_its_bounds_with_sinks_at_work(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, limiter=Limiter(), retention=Retention(65536, 2))
    config = file_sink(tmp_path, "?max_bytes=65536&keep=2")
    sinks = Sinks(AuditSettings((config,), heartbeat=0), log, path, tmp_path)
    slowest = 0.0
    for number in range(100_000):
        start = time.perf_counter()
        log.emit_error(errors.InvalidFrameError("junk"), length=number, context="x" * 200)
        slowest = max(slowest, time.perf_counter() - start)
    log.emit("peer_revoked", peer=PEER)
    log.close()
    assert slowest < 5.0  # it never waits for a disk or a network; this is no measurement
    assert log.stats().dropped == 0
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.log")) < 400_000
    events = Counter(record.event for record in tail(path, 100_000))
    assert events["peer_revoked"] == 1
    counted = sum(
        int(record.detail["count"])
        for record in tail(path, 100_000)
        if record.event == "events_suppressed"
    )
    assert counted + events["refused_invalid_frame"] == 100_000
    assert sinks.status()[0].lost == 0
