"""What monitoring reads: true numbers, and no word from the wire."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from brokers import Start, until
from command import PROGRAM, TIME_LIMIT, environment, pqc, words
from devices import Pair, copy, edited
from foreign import Foreign
from pqc_iiot import Incoming, Node, PqcIiotError, errors
from pqc_iiot.audit.sinks import SETTINGS_FILE, AuditSettings, SinkConfig
from pqc_iiot.errors import InvalidInputError
from pqc_iiot.meter import BOUNDS, TRANSPORTS, Meter
from pqc_iiot.metrics import _Collector, exported, text
from pqc_iiot.transports.bus import Bus
from pqc_iiot.transports.memory import MemoryBroker

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
HOSTILE = 'x",evil="1"}\n# HELP '


def samples(page: str) -> Samples:
    """What a page says, as Prometheus would read it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float:
    return samples(page)[f"pqc_iiot_{name}", frozenset(labels.items())]


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIME_LIMIT) as page:
        body: bytes = page.read()
    return body.decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_messages_are_counted_by_http(pair: Pair) -> None:
    port = free_port()
    with exported(pair.sensor, str(port)):
        frames = [pair.frame() for _ in range(3)]
        with pytest.raises(PqcIiotError):
            pair.sensor.seal(b"", to="nobody")
        page = fetch(port)
    assert (
        value(page, "messages_total", direction="out", transport="direct", result="accepted") == 3
    )
    assert value(page, "refusals_total", direction="out", reason="unknown_peer") == 1
    assert value(page, "operation_duration_seconds_count", operation="seal") == 3
    with exported(pair.plc, f"127.0.0.1:{port}"):
        batch = [Incoming(frame, "line1/temp", transport="mqtt") for frame in [*frames, b"junk"]]
        fresh = Incoming(pair.frame(), "line1/temp", transport="mqtt")
        pair.plc.open_many(batch)
        pair.plc.open_many([*batch[:1], fresh, fresh])
        with pytest.raises(PqcIiotError):
            pair.plc.peers.add(b"junk")
        page = fetch(port)
    assert value(page, "messages_total", direction="in", transport="mqtt", result="accepted") == 4
    assert value(page, "messages_total", direction="in", transport="mqtt", result="refused") == 3
    assert value(page, "refusals_total", direction="in", reason="invalid_frame") == 1
    assert value(page, "refusals_total", direction="in", reason="duplicate") == 2
    assert value(page, "refusals_total", direction="in", reason="invalid_bundle") == 1
    assert value(page, "operation_duration_seconds_count", operation="commit") == 2
    assert value(page, "operation_duration_seconds_bucket", operation="open", le="+Inf") == 2
    assert value(page, "peers", state="approved") == 1
    assert value(page, "audit_events_total", fate="written") > 0
    assert value(page, "state_commits_total") >= 1
    assert value(page, "key_serial") == 1
    assert pair.plc.meter is None
    with pytest.raises(urllib.error.URLError):
        fetch(port)


def test_what_an_operation_took_is_less_than_the_caller_waited(pair: Pair) -> None:
    pair.sensor.meter, pair.plc.meter = Meter(), Meter()
    begin = time.perf_counter()
    pair.plc.open_many([Incoming(pair.frame(), "line1/temp")])
    waited = time.perf_counter() - begin
    sender, receiver = (text(node) for node in (pair.sensor, pair.plc))
    for page, operation in ((sender, "seal"), (receiver, "open"), (receiver, "commit")):
        took = value(page, "operation_duration_seconds_sum", operation=operation)
        assert 0 < took < waited, operation


def test_a_meter_that_is_there_stays(pair: Pair, tmp_path: Path) -> None:
    pair.plc.meter = meter = Meter()
    with exported(pair.plc, str(tmp_path / "x.prom")):
        assert pair.plc.meter is meter
    assert pair.plc.meter is meter


def test_no_label_comes_from_the_wire(pair: Pair) -> None:
    """Whatever is sent, the series stay the same ones."""
    pair.plc.meter = Meter()
    stranger = Foreign(3, "oven-77")
    pair.plc.peers.add(stranger.bundle(), transport=HOSTILE)
    codes = {each.code for each in vars(errors).values() if hasattr(each, "code")}
    for number in range(300):
        hostile = f"{HOSTILE}{number}"
        pair.plc.open_many([Incoming(os.urandom(20), hostile, transport=hostile)])
        with pytest.raises(PqcIiotError):
            pair.plc.seal(b"", to=hostile, transport=hostile)
    page = text(pair.plc)
    for hostile in ("evil", "oven-77", stranger.fingerprint.hex()[:8], "line1"):
        assert hostile not in page
    assert len(samples(page)) < 100
    for _, labels in samples(page):
        known = dict(labels)
        assert set(known) <= {
            *("direction", "transport", "result", "reason", "operation", "le", "state", "kind"),
            *("fate", "queue", "sink", "suite", "provider", "custody", "trust"),
        }
        assert known.get("transport", "mqtt") in TRANSPORTS
        assert known.get("reason", "error") in codes


def test_the_page_has_every_metric(pair: Pair) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    shown = docs.partition("<!-- metrics -->\n")[2].partition("<!-- end of metrics -->")[0]
    rows = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for family in _Collector(pair.plc).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in vars(family)["_labelnames"])
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    assert shown == "\n".join(rows) + "\n"


def test_durations_are_counted_where_they_belong() -> None:
    meter = Meter()
    for seconds in (0.0, 0.00009, 0.3, 9.0):
        meter.took("open", time.perf_counter() - seconds)
    counts = meter.durations["open"].counts
    assert sum(counts) == 4
    assert counts[-1] == 1
    assert counts[BOUNDS.index(0.5)] == 1
    assert meter.durations["open"].total > 9.3


def test_sinks_are_seen(pair: Pair, tmp_path: Path) -> None:
    pair.plc.close()
    settings = AuditSettings((SinkConfig("copy", f"file://{tmp_path}/copy.log"),))
    (pair.folder / "plc" / SETTINGS_FILE).write_bytes(settings.encode())
    (pair.folder / "plc" / SETTINGS_FILE).chmod(0o600)
    pair.plc = Node.open(pair.folder / "plc")
    page = text(pair.plc)
    assert value(page, "sink_up", sink="copy") == 1
    assert value(page, "sink_lost", sink="copy") == 0


def test_settings_of_sinks_are_read_again(pair: Pair, tmp_path: Path) -> None:
    settings = pair.folder / "plc" / SETTINGS_FILE
    sink = SinkConfig("copy", f"file://{tmp_path}/copy.log")
    settings.write_bytes(AuditSettings((sink,)).encode())
    pair.plc.reload()
    assert [each.name for each in pair.plc.status().sinks] == ["copy"]
    settings.write_bytes(b"{")
    with pytest.raises(InvalidInputError):
        pair.plc.reload()
    assert [each.name for each in pair.plc.status().sinks] == ["copy"]
    settings.unlink()
    pair.plc.reload()
    assert pair.plc.status().sinks == ()
    pair.close()
    assert "audit_opened" in (tmp_path / "copy.log").read_text()


def test_a_damaged_list_of_peers_leaves_the_other_numbers(pair: Pair) -> None:
    pair.plc.close()
    with edited(pair.folder / "plc" / "state.db") as db:
        db.execute("UPDATE peers SET value = value || x'00'")
    pair.plc = Node.open(pair.folder / "plc")
    page = text(pair.plc)
    assert "pqc_iiot_peers{" not in page
    assert value(page, "key_serial") == 1


@pytest.mark.parametrize(
    "where", ["0.0.0.0:0", "192.0.2.1:9464", "[::]:1", "localhost:1", "x", "", "70000", "-1", ":"]
)
def test_nothing_listens_beyond_this_machine(pair: Pair, where: str) -> None:
    with pytest.raises(InvalidInputError), exported(pair.plc, where):
        pass
    assert pair.plc.meter is None


def test_a_file_is_whole_and_goes_with_the_device(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "pqc.prom"
    with exported(pair.plc, str(file)):
        assert value(file.read_text(), "key_serial") == 1
        assert stat.S_IMODE(file.stat().st_mode) & 0o444 == 0o444
        assert [path.name for path in tmp_path.glob("pqc*")] == ["pqc.prom"]
    assert not file.exists()
    with pytest.raises(InvalidInputError), exported(pair.plc, f"{tmp_path}/no/such.prom"):
        pass


def test_the_queue_of_listeners_is_seen(pair: Pair) -> None:
    pair.plc.meter = Meter()
    broker = MemoryBroker()

    async def work() -> None:
        async with Bus(pair.plc, broker.client("plc")) as plc, plc.listen("#") as listening:
            async with Bus(pair.sensor, broker.client("sensor")) as sensor:
                for _ in range(3):
                    await sensor.send("plc", "t", b"x")
            await until(lambda: listening.depth() == 3)
            assert value(text(pair.plc), "queue_depth", queue="listeners") == 3

    asyncio.run(asyncio.wait_for(work(), TIME_LIMIT))
    labels = {"direction": "in", "transport": "memory", "result": "accepted"}
    assert value(text(pair.plc), "messages_total", **labels) == 3


def test_without_the_library_it_says_what_to_install(devices: Path, tmp_path: Path) -> None:
    copy(devices, tmp_path, "plc")
    script = (
        "import sys; sys.modules['prometheus_client'] = None; from pqc_iiot.cli import main;"
        f"sys.exit(main(['--state', '{tmp_path}/plc', 'status', '--prometheus']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'pqc-iiot[metrics]'" in done.stderr


def test_a_status_for_prometheus(devices: Path, tmp_path: Path) -> None:
    copy(devices, tmp_path, "plc")
    result = pqc(f"--state {tmp_path}/plc status --prometheus")
    assert (result.code, value(result.out, "peers", state="approved")) == (0, 1)


# As a service


def test_a_service_says_how_it_goes(devices: Path, tmp_path: Path, start: Start) -> None:
    copy(devices, tmp_path, "plc")
    broker, prom = start(), tmp_path / "plc.prom"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(TIME_LIMIT)
        manager.bind(address := f"{tmp_path}/n")
        line = f"--state {tmp_path}/plc listen --topic t --broker {broker.url} --metrics {prom}"
        with subprocess.Popen(
            [PROGRAM, *words(line)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(NOTIFY_SOCKET=address),
        ) as service:
            assert manager.recv(4096) == b"READY=1"
            assert value(prom.read_text(), "key_serial") == 1
            service.send_signal(signal.SIGHUP)
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(4096))
            assert manager.recv(4096) == b"READY=1"
            (tmp_path / "plc" / SETTINGS_FILE).write_bytes(b"nonsense")
            service.send_signal(signal.SIGHUP)
            assert manager.recv(4096).startswith(b"RELOADING=1")
            assert manager.recv(4096) == b"READY=1"
            service.send_signal(signal.SIGTERM)
            assert manager.recv(4096) == b"STOPPING=1"
            assert service.wait(TIME_LIMIT) == 0
            assert service.stderr is not None
            said = service.stderr.read()
    assert "the settings of the sinks were read again" in said
    assert "nothing was changed" in said
    assert not prom.exists()
