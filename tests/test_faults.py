"""Disks that fail, clocks that jump, folders that go away: a typed error, nothing lost, and
the device goes on where it safely can. What is defined for which fault: docs/faults.md.

Crashes and power cuts are in test_crash_points.py; other processes and forks, and a disk that
is really full, in test_state_process.py; the log alone in test_audit_recovery.py.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import remounted
from command import TIME_LIMIT
from devices import Pair, copy, events, seen_rows
from foreign import Foreign
from power import Moment, Power
from pqc_iiot import (
    DuplicateError,
    Incoming,
    Message,
    Node,
    Policy,
    PqcIiotError,
    StateError,
    cose,
)
from pqc_iiot.audit import verify
from pqc_iiot.errors import StateTamperedError
from test_crash_points import check_life, said
from zygote import OUT_OF_REACH

ALWAYS = 1_000_000
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def power(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Power]:
    power = Power(tmp_path_factory.mktemp("power"))
    yield power
    power.close()


@pytest.fixture
def life(pair: Pair, tmp_path: Path) -> tuple[list[bytes], list[Path]]:
    frames = [pair.frame(b"%d" % i) for i in range(3)]
    (tmp_path / "frames").write_text("\n".join(frame.hex() for frame in frames))
    (tmp_path / "bundle").write_bytes(Foreign(3, "press").bundle())
    return frames, [tmp_path / "frames", tmp_path / "bundle"]


# A disk that fails at every single call


@pytest.mark.parametrize(
    ("error", "calls", "step"),
    [(errno.ENOSPC, ALWAYS, 4), (errno.EIO, 1, 1), (errno.EROFS, ALWAYS, 16)],
    ids=["full from here on", "one I/O error", "read-only from here on"],
)
def test_a_disk_that_fails_at_every_call(
    error: int,
    calls: int,
    step: int,
    life: tuple[list[bytes], list[Path]],
    devices: Path,
    tmp_path: Path,
    power: Power,
) -> None:
    """The device tells it by `StateError`; what it had said is so when the disk is back."""
    frames, files = life
    copy(devices, tmp_path / "made", "plc")
    with Node.open(tmp_path / "made" / "plc") as plc:
        plc.policy = Policy(sequence_block=2)
    status = point = refusals = 0
    # A disk that stays full is met by every call behind, too.
    while status != OUT_OF_REACH:
        point += step
        folder = tmp_path / "life"
        shutil.copytree(tmp_path / "made" / "plc", folder / "device")
        (folder / "mirror").mkdir()
        status = power.run(
            "endure",
            folder / "device",
            folder / "journal",
            *files,
            fail_at=(point, error, calls),
        )
        assert status in (0, OUT_OF_REACH), f"point {point}: not a typed error"
        moment = Moment(point, "life", folder, b"")
        done = said(moment)
        refusals += len(done.get("refused", []))
        assert set(done.get("refused", [])) <= {"state", "duplicate"}
        if calls == 1:
            assert len(done.get("refused", [])) <= 1, "one error, one refusal"
        check_life(moment, frames)
        with Node.open(folder / "device") as plc:
            waiting = {str(entry.number) for entry in plc.outbox.waiting()}
            assert set(done.get("outbox", [])) <= waiting
        shutil.rmtree(folder)
    print(f"\n{errno.errorcode[error]}: {point // step} points, {refusals} refusals", end="")
    assert refusals > 20


# A file system that is read-only


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be mounted anew."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "false", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount; EROFS at every call ran without it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, how: str) -> None:
    """Only while no file is open for writing; for the rest see remounted.py."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_a_file_system_that_is_read_only_from_the_start(devices: Path, disk: Path) -> None:
    copy(devices, disk, "sensor", "plc")
    remount(disk, "ro")
    for _ in range(2):
        with pytest.raises(StateError) as caught:
            Node.open(disk / "plc")
        assert caught.value.exit_code == 4
        assert "Read-only file system" in str(caught.value)
    remount(disk, "rw")
    with Node.open(disk / "plc") as plc, Node.open(disk / "sensor") as sensor:
        assert plc.open(sensor.seal(b"x", to="plc")).payload == b"x"


@pytest.mark.parametrize("kind", ["ext4", "bind"])
def test_a_file_system_that_becomes_read_only_under_a_running_device(
    kind: str, tmp_path: Path
) -> None:
    """In a mount namespace of its own: what is done there, and checked, is in remounted.py."""
    for tool in ("unshare", "mkfs.ext4"):
        if shutil.which(tool, path=SYSTEM) is None:
            pytest.skip(f"{tool} is missing; EROFS at every call ran without it")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, remounted.__file__, kind, str(tmp_path)],
        env={**os.environ, "PATH": SYSTEM},
        capture_output=True,
        check=False,
        timeout=TIME_LIMIT,
    )
    if done.returncode == remounted.NOT_PERMITTED or b"unshare failed" in done.stderr:
        pytest.skip(f"no right to mount: {done.stderr.decode().strip()}")
    assert done.returncode == 0, done.stderr.decode()


# Clocks


@pytest.mark.parametrize("disks", ["life"])
def test_a_clock_at_1970_that_jumps(
    disks: str,
    life: tuple[list[bytes], list[Path]],
    devices: Path,
    tmp_path: Path,
    power: Power,
) -> None:
    """Everything works; only the times in the log are wrong, and its chain holds."""
    frames, files = life
    folder = tmp_path / disks
    copy(devices, folder, "plc")
    (folder / "plc").rename(folder / "device")
    (folder / "mirror").mkdir()
    job = folder / "device", folder / "journal", *files
    assert power.run("travel_in_time", *job, shift_clock=0) == 0
    done = said(Moment(0, "life", folder, b""))
    assert len(done["accepted"]) == len(frames)
    assert {"approved", "revoked", "rotated", "retired", "closed"} <= done.keys()
    log = folder / "device" / "audit.log"
    assert verify(log).ok
    years = {json.loads(line)["time"][:4] for line in log.read_bytes().splitlines()}
    assert "1970" in years
    assert len(years) >= 3
    with Node.open(folder / "device") as plc:  # back in the present
        for frame in frames:
            with pytest.raises(PqcIiotError) as caught:
                plc.open(frame, context="line1/temp")
            assert caught.value.code == "wrong_recipient"  # its keys were retired


def test_a_queue_expires_nothing_by_the_wall_clock(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.sensor.policy = Policy(outbox_age=60)
    entry = pair.sensor.outbox.put(b"x", to="plc")
    for now in (0.0, 4e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        monkeypatch.setattr("time.time_ns", lambda now=now: int(now * 1e9))
        assert pair.sensor.outbox.expire() == []
    assert pair.sensor.outbox.waiting() == [entry]


# A folder that goes away


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced_by_an_older_copy(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("older"), folder)


@pytest.mark.parametrize("harm", [removed, replaced_by_an_older_copy])
def test_a_folder_that_is_removed_under_a_running_device(
    pair: Pair, harm: Callable[[Path], None]
) -> None:
    """SQLite would go on in files that nobody ever finds again."""
    folder = pair.folder / "plc"
    pair.plc.close()
    shutil.copytree(folder, pair.folder / "older")
    pair.plc = Node.open(folder)
    pair.plc.seal(b"x", to="sensor")  # with numbers left in the block
    pair.plc.open_many([Incoming(pair.frame(b"before"), "line1/temp")], durable=True)
    frame, before = pair.frame(), seen_rows(pair.plc)
    harm(folder)
    incoming = [Incoming(frame, "line1/temp")]
    refusals: list[Callable[[], object]] = [
        lambda: pair.plc.open(frame, context="line1/temp"),
        lambda: pair.plc.open_many(incoming, durable=True),
        lambda: pair.plc.outbox.put(b"x", to="sensor"),
        lambda: pair.plc.peers.revoke("sensor"),
        pair.plc.rotate,
        lambda: setattr(pair.plc, "policy", Policy(max_pending=9)),
        pair.plc.close,
    ]
    # Numbers that were made durable before may still be used: nobody else will.
    assert pair.sensor.open(pair.plc.seal(b"still", to="sensor")).payload == b"still"
    for call in refusals:
        with pytest.raises(StateError) as caught:
            call()
        assert type(caught.value) is StateError
        assert caught.value.hint
        if pair.plc._state is not None:
            assert seen_rows(pair.plc) == before
    if harm is removed:
        with pytest.raises(StateError, match="there is no state folder"):
            Node.open(folder)
        pair.plc = pair.sensor
    else:
        with Node.open(folder) as older:  # what it is: a copy, noticed as one
            assert older.status().copied
        pair.plc = Node.open(folder)


def test_a_folder_that_is_moved_under_a_running_device(pair: Pair) -> None:
    """What is durable is so where the folder is now."""
    pair.plc.open(pair.frame(), context="line1/temp")
    (pair.folder / "plc").rename(pair.folder / "moved")
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    with pytest.raises(StateError, match="anchor"):
        pair.plc.close()
    with Node.open(pair.folder / "moved") as plc, pytest.raises(DuplicateError):
        plc.open(frame, context="line1/temp")
    (pair.folder / "moved").rename(pair.folder / "plc")
    pair.plc = Node.open(pair.folder / "plc")


def test_a_store_whose_log_is_removed(pair: Pair) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    (pair.folder / "plc" / "state.db-wal").unlink()
    with pytest.raises(StateError, match="removed or replaced"):
        pair.plc.open(pair.frame(), context="line1/temp")
    with pytest.raises(StateError):
        pair.plc.close()  # SQLite still has the log open, and brings it into the file
    pair.plc = Node.open(pair.folder / "plc")
    with pytest.raises(DuplicateError):
        pair.plc.open(frame, context="line1/temp")


# A log that cannot be written


def break_log(pair: Pair) -> Path:
    """A folder stands where the log was; the device has noticed. Works for root, too."""
    log = pair.folder / "plc" / "audit.log"
    assert pair.plc.audit.flush()
    log.rename(pair.folder / "log")
    log.mkdir(0o700)
    with pytest.raises(PqcIiotError):
        pair.plc.open(b"junk")
    while not pair.plc.audit.failing:
        pair.plc.audit.flush(0.05)
    return log


def mend_log(pair: Pair, log: Path) -> None:
    log.rmdir()
    (pair.folder / "log").rename(log)
    while pair.plc.audit.failing:
        pair.plc.audit.flush(0.05)


def test_a_log_that_cannot_be_written_does_not_stop_protection(pair: Pair) -> None:
    log = break_log(pair)
    for number in range(3):
        assert pair.plc.open(pair.frame(b"%d" % number), context="line1/temp")
    assert pair.sensor.open(pair.plc.seal(b"x", to="sensor"))
    assert pair.plc.status().audit.last_error
    mend_log(pair, log)
    assert "audit_recovered" in {event.event for event in events(pair.plc)}
    assert verify(log).ok


def test_unless_policy_demands_it(pair: Pair) -> None:
    pair.plc.policy = replace(pair.plc.policy, audit_required=True)
    pair.plc.open(pair.frame(), context="line1/temp")
    log, frame, before = break_log(pair), pair.frame(), seen_rows(pair.plc)
    refusals: list[Callable[[], object]] = [
        lambda: pair.plc.open(frame, context="line1/temp"),
        lambda: pair.plc.open_many([Incoming(frame, "line1/temp")], durable=True),
        lambda: pair.plc.seal(b"x", to="sensor"),
        lambda: pair.plc.outbox.put(b"x", to="sensor"),
        lambda: pair.plc.sessions.send(0.0, b"x", to="sensor", context=""),
        lambda: pair.plc.sessions.receive(0.0, b"x", "line1/temp"),
    ]
    for call in refusals:
        with pytest.raises(StateError, match="policy demands an audit log") as caught:
            call()
        assert "--no-audit-required" in caught.value.hint
    assert seen_rows(pair.plc) == before
    mend_log(pair, log)
    (result,) = pair.plc.open_many([Incoming(frame, "line1/temp")])
    assert isinstance(result, Message)  # nothing was lost
    log = break_log(pair)
    pair.plc.policy = replace(pair.plc.policy, audit_required=False)  # an operator may say so
    assert pair.plc.open(pair.frame(), context="line1/temp")
    mend_log(pair, log)


def test_a_policy_of_before_is_read(pair: Pair) -> None:
    stored = cose.loads(Policy(audit_required=True).encode(), 1024, "it")
    assert isinstance(stored, dict | object)
    values = dict(stored)  # type: ignore[call-overload]
    assert Policy.decode(cose.dumps(values)).audit_required is True
    del values["audit_required"]
    assert Policy.decode(cose.dumps(values)).audit_required is False
    for wrong in (2, -1, b"", "yes"):
        with pytest.raises(StateTamperedError):
            Policy.decode(cose.dumps(values | {"audit_required": wrong}))
