"""`doctor` before folders that were put back, copied or restored, and disks that forget."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brokers import Start
from command import TIME_LIMIT, environment, pqc
from devices import PLAINTEXT, copy, edited, events, make
from pqc_iiot import Node, place
from pqc_iiot.cli import disk
from pqc_iiot.place import check_place
from pqc_iiot.providers.passphrase import from_file
from pqc_iiot.trail import AUDIT_FILE
from pqc_iiot.transports.announcing import ANNOUNCEMENTS, PRESENCE
from pqc_iiot.transports.mqtt import MqttTransport
from pqc_iiot.transports.mqtt_options import MqttOptions


def doctor(folder: Path, more: str = "") -> dict[str, dict[str, str]]:
    result = pqc(f"--state {folder} doctor {more} --json")
    return {check["name"]: check for check in result.data["checks"]}


def outcome(folder: Path, name: str, more: str = "") -> tuple[str, str]:
    check = doctor(folder, more)[name]
    return check["outcome"], check["fix"]


@pytest.fixture
def plc(devices: Path, tmp_path: Path) -> Path:
    """A device at its place: opened there once."""
    copy(devices, tmp_path, "plc")
    Node.open(tmp_path / "plc").close()
    with Node.open(tmp_path / "plc") as node:
        node.rotate()  # as the template's copy it would be one, until it has keys of its own
    return tmp_path / "plc"


# Put back


def test_a_store_that_was_put_back(plc: Path, tmp_path: Path) -> None:
    """The counter is older than the anchor."""
    shutil.copytree(plc, tmp_path / "backup")
    Node.open(plc).close()
    shutil.copy2(tmp_path / "backup" / "state.db", plc / "state.db")
    keys = doctor(plc)["keys"]
    assert keys["outcome"] == "failed"
    assert "restored from a copy" in keys["found"]
    assert f"pqc-iiot --state {plc} recover" in keys["fix"]


# Copied


def test_a_folder_at_its_place(plc: Path, tmp_path: Path) -> None:
    assert outcome(plc, "copy") == ("ok", "")
    plc.rename(tmp_path / "renamed")
    assert outcome(tmp_path / "renamed", "copy") == ("ok", "")


def test_a_folder_that_was_copied(plc: Path, tmp_path: Path) -> None:
    shutil.copytree(plc, tmp_path / "clone")
    for _ in range(2):  # it stays so, until the keys are others
        found, fix = outcome(tmp_path / "clone", "copy")
        assert found == "warning"
        assert f"pqc-iiot --state {tmp_path / 'clone'} id rotate" in fix
    assert outcome(plc, "copy") == ("ok", "")  # the original cannot know
    with Node.open(tmp_path / "clone") as node:
        copied = [event for event in events(node) if event.event == "state_copied"]
        assert len(copied) >= 1
        assert copied[-1].detail["path"] == str(tmp_path / "clone")
        assert node.status().copied
        node.rotate()
        assert not node.status().copied
    assert outcome(tmp_path / "clone", "copy") == ("ok", "")


def test_a_folder_that_was_put_back_as_a_whole(plc: Path, tmp_path: Path) -> None:
    """What the anchor cannot see: everything is old together."""
    shutil.copytree(plc, tmp_path / "backup")
    Node.open(plc).close()
    shutil.rmtree(plc)
    shutil.copytree(tmp_path / "backup", plc)
    assert outcome(plc, "copy")[0] == "warning"


def test_a_disk_in_another_machine(
    plc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, expected in ((b"one", "ok"), (b"", "ok"), (b"one", "ok"), (b"two", "warning")):
        (tmp_path / "machine-id").write_bytes(number)
        monkeypatch.setattr(place, "MACHINE_ID", tmp_path / "machine-id")
        if not number:
            (tmp_path / "machine-id").unlink()
        elif expected == "ok":
            with Node.open(plc) as node:  # from no id, or another, to this one
                node.rotate()
        assert outcome(plc, "copy")[0] == expected, number


def test_the_place_tells_nothing_of_the_machine(
    plc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine-id").write_bytes(b"0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr(place, "MACHINE_ID", tmp_path / "machine-id")
    Node.open(plc).close()
    with edited(plc / "state.db") as db:
        (value,) = db.execute("SELECT value FROM meta WHERE key = ?", (b"place",)).fetchone()
    assert b"0123456789abcdef" not in value
    assert bytes.fromhex("0123456789abcdef") not in value


def test_a_place_is_written_once(plc: Path) -> None:
    with Node.open(plc) as node:
        state = node._state
        assert state is not None
        before = state.store.stats().commits
        key = state.identity.derive(b"place")
        assert not check_place(state.store, plc / "state.db", key, state.identity.generation)
        assert state.store.stats().commits == before


# Alive elsewhere


def show(url: str, name: str, payload: bytes, where: str = ANNOUNCEMENTS) -> None:
    """Puts something on a topic where a device shows itself."""

    async def publish() -> None:
        async with MqttTransport(MqttOptions.from_url(url)) as transport:
            await transport.publish(where + name, payload, retain=True)

    asyncio.run(publish())


def test_the_same_identity_alive_elsewhere(plc: Path, tmp_path: Path, start: Start) -> None:
    broker = start()
    at = f"--broker {broker.url}"
    with Node.open(plc) as node:
        before = node.bundle
        secret = tmp_path / "secret"
        secret.touch(0o600)
        secret.write_text("correct horse battery")
        data = node.backup(from_file(secret))
    assert doctor(plc, at)["announcement"]["outcome"] == "ok"  # nobody shows anything
    show(broker.url, "plc", before.encoded)
    assert doctor(plc, at)["announcement"]["outcome"] == "ok"
    with Node.restore(tmp_path / "b", data, from_file(secret), provider=PLAINTEXT) as other:
        show(broker.url, "plc", other.bundle.encoded)
    check = doctor(plc, at)["announcement"]
    assert (check["outcome"], "signed" in check["found"]) == ("failed", True)
    (tmp_path / "b" / "lock").unlink()
    show(broker.url, "plc", before.encoded)  # what the restored device finds is its own past
    check = doctor(tmp_path / "b", at)["announcement"]
    assert (check["outcome"], "before the last" in check["found"]) == ("warning", True)


def announce(folder: Path, url: str) -> None:
    """Starts the device in a folder, lets it show itself, and ends it."""

    async def run(node: Node) -> None:
        async with node.mqtt(url) as bus:
            await bus.announce()

    with Node.open(folder) as node:
        asyncio.run(run(node))


def test_a_clone_with_the_same_keys(plc: Path, tmp_path: Path, start: Start) -> None:
    url = start().url
    at = f"--broker {url}"
    shutil.copytree(plc, tmp_path / "clone")
    assert outcome(plc, "presence", at)[0] == "ok"  # nobody shows anything
    announce(plc, url)
    for _ in range(2):
        assert outcome(plc, "presence", at)[0] == "ok"
    found, fix = outcome(tmp_path / "clone", "presence", at)  # it has shown nothing yet
    assert found == "failed"
    assert f"pqc-iiot --state {tmp_path / 'clone'} id rotate" in fix
    announce(tmp_path / "clone", url)
    assert outcome(plc, "presence", at)[0] == "failed"
    assert outcome(plc, "copy")[0] == "ok"  # it only looked
    announce(plc, url)
    assert outcome(plc, "copy")[0] == "failed"  # what the bus has seen stays so
    assert outcome(plc, "presence", at)[0] == "ok"  # its own is there again
    assert pqc(f"--state {plc} status --json").data["cloned"]
    with Node.open(plc) as node:
        node.rotate()
        check = doctor(plc, at)["presence"]  # while a process owns the folder
        assert check["outcome"] == "warning"  # of the keys before
    announce(plc, url)
    assert (outcome(plc, "presence", at)[0], outcome(plc, "copy")[0]) == ("ok", "ok")
    assert not pqc(f"--state {plc} status --json").data["cloned"]


def test_a_clone_of_a_running_device(plc: Path, tmp_path: Path, start: Start) -> None:
    """No key is needed to see it, and nothing is published in order to."""
    url = start().url
    shutil.copytree(plc, tmp_path / "clone")
    with Node.open(plc) as node:
        record = node.presence.record()
        show(url, "plc", record, PRESENCE)
        assert outcome(plc, "presence", f"--broker {url}")[0] == "ok"
        announce(tmp_path / "clone", url)
        found = doctor(plc, f"--broker {url}")
        assert (found["keys"]["outcome"], found["presence"]["outcome"]) == ("skipped", "failed")
        assert "same keys" in found["presence"]["found"]
        # What is shown under our name by whomever is no clone.
        for junk in (b"junk", node.bundle.encoded, record[:-1], record[:99] + b"x" + record[100:]):
            show(url, "plc", junk, PRESENCE)
            assert outcome(plc, "presence", f"--broker {url}")[0] == "warning"


def test_somebody_under_the_same_name(plc: Path, tmp_path: Path, start: Start) -> None:
    broker = start()
    at = f"--broker {broker.url}"
    (tmp_path / "other").mkdir(0o700)
    with make(tmp_path / "other", "plc") as other:
        show(broker.url, "plc", other.bundle.encoded)
    assert doctor(plc, at)["announcement"]["outcome"] == "warning"
    show(broker.url, "plc", b"junk")
    assert doctor(plc, at)["announcement"]["outcome"] == "warning"


# Backups


def test_a_backup_that_is_missing_or_old(plc: Path, tmp_path: Path) -> None:
    assert outcome(plc, "backup") == ("warning", f"pqc-iiot --state {plc} backup FILE")
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("correct horse battery")
    with Node.open(plc) as node:
        node.backup(from_file(secret))
    assert outcome(plc, "backup")[0] == "ok"
    with Node.open(plc) as node:
        node.peers.revoke("sensor")
    assert outcome(plc, "backup")[0] == "warning"


# Disks


@pytest.mark.parametrize(
    ("seconds", "kind", "options", "preloaded", "text"),
    [
        (1e-3, "ext4", "rw relatime", "", ""),
        (1e-3, "ext4", "rw nobarrier", "", "nobarrier"),
        (1e-3, "ext4", "rw barrier=0", "", "barrier=0"),
        (1e-3, "overlay", "rw volatile", "", "volatile"),
        (1e-3, "overlay", "rw", "", ""),
        (1e-3, "nfs4", "rw", "", "another machine"),
        (1e-3, "fuse.sshfs", "rw", "", "another machine"),
        (1e-3, "tmpfs", "rw", "", "in memory"),
        (1e-3, "ext4", "rw", "libeatmydata", "leaves fsync out"),
        (2e-6, "ext4", "rw", "", "2.0 us"),
        (2e-6, "", "", "", "this file system"),
        (20e-6, "xfs", "rw", "", ""),
    ],
)
def test_what_speaks_against_a_disk(
    seconds: float, kind: str, options: str, preloaded: str, text: str
) -> None:
    doubt = disk._doubt(seconds, kind, frozenset(options.split()), preloaded)
    assert (text in doubt) if text else (doubt == "")


def test_a_folder_in_memory_is_found_out(plc: Path, tmp_path: Path) -> None:
    kind, options = disk.mounted(plc)
    assert kind
    assert options
    memory = Path("/dev/shm")
    if disk.mounted(memory)[0] != "tmpfs":
        pytest.skip("there is no tmpfs at /dev/shm")
    folder = memory / f"pqc-iiot-doctor-{os.getpid()}"
    shutil.copytree(plc, folder)
    try:
        check = doctor(folder)["durable writes"]
        assert (check["outcome"], "in memory" in check["found"]) == ("warning", True)
        assert not [entry for entry in folder.iterdir() if entry.name.startswith("doctor.")]
    finally:
        shutil.rmtree(folder)


def test_a_library_that_leaves_fsync_out_is_found(plc: Path, tmp_path: Path) -> None:
    """A real library of that name, preloaded, whose fsync does nothing."""
    source, library = tmp_path / "eat.c", tmp_path / "libeatmydata.so"
    source.write_text("int fsync(int fd) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pqc_iiot", "--state", str(plc), "doctor", "--json"],
        capture_output=True,
        check=False,
        timeout=TIME_LIMIT,
        env=environment(LD_PRELOAD=str(library)),
    )
    found: dict[str, Any] = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert found["durable writes"]["outcome"] == "warning"
    assert "libeatmydata" in found["durable writes"]["found"]


def test_a_disk_that_is_full(plc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(plc)._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    found = doctor(plc)["disk space"]
    assert (found["outcome"], found["found"]) == ("failed", "1 MiB free")
    assert (plc / AUDIT_FILE).exists()
