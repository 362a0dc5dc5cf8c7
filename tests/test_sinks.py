"""The sinks of a device: its settings, and `audit sinks` on the command line."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from command import pqc
from devices import copy
from pqc_iiot import Node
from pqc_iiot.audit import tail
from pqc_iiot.audit.segments import Retention
from pqc_iiot.audit.sinks import SETTINGS_FILE, AuditSettings, SinkConfig
from pqc_iiot.errors import InvalidInputError, StateLockedError, UnsafePermissionsError
from pqc_iiot.sinks import add_sink, check_sinks, list_sinks, remove_sink


@pytest.fixture
def state(devices: Path, tmp_path: Path) -> Path:
    copy(devices, tmp_path, "sensor")
    return tmp_path / "sensor"


@pytest.mark.parametrize(
    ("name", "url", "more"),
    [
        ("", "journal:", {}),
        ("UPPER", "journal:", {}),
        ("../x", "journal:", {}),
        ("x" * 33, "journal:", {}),
        ("x", "", {}),
        ("x", "syslog://host", {}),
        ("x", "syslog+tls://", {}),
        ("x", "syslog+tls://host:99999", {}),
        ("x", "syslog+tls://host:x", {}),
        ("x", "syslog+tls://user:secret@host", {}),
        ("x", "syslog+tls://host?confirm=never", {}),
        ("x", "syslog+tls://host?verify=no", {}),
        ("x", "syslog+tls://[::1", {}),
        ("x", "file://relative", {}),
        ("x", "file://host/path", {}),
        ("x", "file:///p?max_bytes=0", {}),
        ("x", "file:///p?keep=-1", {}),
        ("x", "file:///p?max_age=1h", {}),
        ("x", "file:///p\x00", {}),
        ("x", "journal:", {"format": "xml"}),
        ("x", "journal:", {"ca_file": "/ca.pem"}),
        ("x", "syslog+tcp://host", {"ca_file": "/ca.pem"}),
        ("x", "syslog+tls://host", {"cert_file": "/c.pem"}),
        ("x", "syslog+tls://host", {"key_file": "/k.pem"}),
        ("x", "otlp+http://host", {"token_file": "/t"}),
        ("x", 7, {}),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, url: str, more: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        SinkConfig(name, url, **more)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b'{"v":2}', b'{"v":1,"sinks":7}', b'{"v":1,"sinks":[7]}',
        b'{"v":1,"sinks":[{"name":"x"}]}', b'{"v":1,"sinks":[{"name":"x","url":"journal:","y":1}]}',
        b'{"v":1,"unknown":1}', b'{"v":1,"heartbeat":-1}', b'{"v":1,"heartbeat":true}',
        b'{"v":1,"file_bytes":1}', b'{"v":1,"closed_files":0}', b'{"v":1,"closed_files":"9"}',
        b"\xff", b"[" * 10_000,
        b'{"v":1,"sinks":[{"name":"x","url":"journal:"},{"name":"x","url":"journal:"}]}',
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_stop_the_device_early(state: Path, data: bytes) -> None:
    (state / SETTINGS_FILE).write_bytes(data)
    (state / SETTINGS_FILE).chmod(0o600)
    with pytest.raises(InvalidInputError):
        AuditSettings.decode(data)
    with pytest.raises(InvalidInputError) as refused:
        Node.open(state)
    assert refused.value.hint or "sink" in str(refused.value)


def test_settings_are_read_as_they_were_written() -> None:
    sinks = (
        SinkConfig("a", "journal:"),
        SinkConfig("b", "syslog+tls://h", "cef", "/ca", "/cert", "/key"),
    )
    settings = AuditSettings(sinks, 60, Retention(1 << 20, 3))
    assert AuditSettings.decode(settings.encode()) == settings
    assert AuditSettings.decode(None) == AuditSettings()


def test_a_device_brings_its_log_to_its_sinks(state: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    url = f"file://{tmp_path}/out/siem.log"
    add_sink(state, SinkConfig("siem", url))
    assert stat.S_IMODE((state / SETTINGS_FILE).stat().st_mode) == 0o600
    with Node.open(state) as node:
        with pytest.raises(StateLockedError):
            add_sink(state, SinkConfig("more", url))
        (status,) = node.status().sinks
        assert (status.name, status.url, status.error) == ("siem", url, "")
        assert [each.sink.name for each in list_sinks(state)] == ["siem"]
    assert not [each for each in threading.enumerate() if each.name.startswith("pqc-iiot")]
    written = (tmp_path / "out/siem.log").read_bytes()
    records = tail(state / "audit.log", 1000)
    assert written.splitlines()[-1] in [record.encode() for record in records]
    events = [json.loads(line)["event"] for line in written.splitlines()]
    assert events[-1] == "stopped"  # also the end has left the device before it ended
    (started,) = [record for record in records[-5:] if record.event == "started"]
    assert started.detail["clock"] in ("synchronised", "unsynchronised", "unknown")


def test_the_marked_record_arrives_or_is_missed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    add_sink(state, SinkConfig("good", f"file://{tmp_path}/out/siem.log"))
    add_sink(state, SinkConfig("bad", "syslog+tcp://127.0.0.1:1"))
    with pytest.raises(InvalidInputError):
        add_sink(state, SinkConfig("good", "journal:"))
    marker, (good, bad) = check_sinks(state, timeout=1.0)
    assert (good.name, good.ok, good.error, good.waiting) == ("good", True, "", 0)
    assert (bad.name, bad.ok, bad.error) == ("bad", False, "Connection refused")
    assert bad.waiting > 0
    assert marker in (tmp_path / "out/siem.log").read_text()
    assert remove_sink(state, "bad").url == "syslog+tcp://127.0.0.1:1"
    with pytest.raises(InvalidInputError, match="bad"):
        remove_sink(state, "bad")
    assert [each.sink.name for each in list_sinks(state)] == ["good"]
    events = [record.event for record in tail(state / "audit.log", 100)]
    assert events.count("sink_added") == 2
    assert events.count("sink_removed") == 1
    assert events.count("sink_test") == 1


def test_settings_that_others_can_change_are_refused(state: Path) -> None:
    add_sink(state, SinkConfig("journal", "journal:/nowhere"))
    (state / SETTINGS_FILE).chmod(0o620)
    with pytest.raises(UnsafePermissionsError):
        list_sinks(state)
    with pytest.raises(UnsafePermissionsError):
        Node.open(state)


def test_the_command_line(state: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    url = f"file://{tmp_path}/out/siem.log?keep=3"
    here = f"--state {state}"
    assert pqc(f"audit sinks list {here}").code == 0
    empty = pqc(f"audit sinks test {here} --json")
    assert (empty.code, empty.data["sinks"]) == (1, [])
    added = pqc(f"audit sinks add siem {url} --format ecs {here} --json")
    assert (added.code, added.data["format"], added.data["url"]) == (0, "ecs", url)
    assert pqc(f"audit sinks add siem {url} {here}").code == 2
    assert pqc(f"audit sinks add x tls://h {here}").code == 2
    tested = pqc(f"audit sinks test {here} --json")
    assert tested.code == 0
    assert tested.data["marker"] in (tmp_path / "out/siem.log").read_text()
    assert [(each["name"], each["ok"]) for each in tested.data["sinks"]] == [("siem", True)]
    (listed,) = pqc(f"audit sinks list {here} --json").data
    assert (listed["name"], listed["lost"], listed["delivered"] > 0) == ("siem", 0, True)
    assert "arrived" in pqc(f"audit sinks test {here}").out
    pqc(f"audit sinks add dead syslog+tcp://127.0.0.1:1 {here}")
    failed = pqc(f"audit sinks test {here} --timeout 0.5")
    assert (failed.code, "FAILED" in failed.out) == (1, True)
    assert "no record arrived at dead" in failed.err
    status = pqc(f"status {here}")
    assert "dead: " in status.out
    assert pqc(f"audit sinks remove dead {here}").code == 0
    assert pqc(f"audit sinks remove dead {here}").code == 2
