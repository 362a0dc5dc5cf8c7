"""`doctor` and `audit`, and every command before a folder that is locked or unsafe."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brokers import Start
from command import PROGRAM, TIME_LIMIT, environment, pqc, program
from devices import copy, edited
from pqc_iiot import Node
from pqc_iiot.cli import checks


@pytest.fixture
def plc(devices: Path, tmp_path: Path) -> str:
    copy(devices, tmp_path, "plc")
    return f"pqc-iiot --state {tmp_path / 'plc'}"


@pytest.fixture
def running(plc: str, tmp_path: Path) -> Iterator[Node]:
    """The same device, owned: locks belong to open files, so this process will do."""
    with Node.open(tmp_path / "plc") as node:
        yield node


def doctor(line: str) -> dict[str, dict[str, str]]:
    """What `doctor` found, by check."""
    result = pqc(f"{line} --json")
    found = {check["name"]: check for check in result.data["checks"]}
    failed = any(check["outcome"] == "failed" for check in found.values())
    assert result.data["ok"] is not failed
    assert result.code == (1 if failed else 0)
    return found


def outcomes(found: dict[str, dict[str, str]], *names: str) -> list[str]:
    return [found[name]["outcome"] for name in names]


# The folder has an owner


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    "line",
    [
        "status",
        "peer list",
        "peer pending",
        "peer approve x",
        "seal --to sensor",
        "open",
        "policy show",
        "policy set --trust tofu",
        "id rotate",
        "id retire",
        "recover --yes",
        "send --to sensor --topic t x",
        "listen --topic t",
    ],
)
def test_a_locked_folder(plc: str, line: str) -> None:
    result = program(f"{plc} {line} --json", b"x")
    assert (result.code, result.out) == (4, "")
    (error,) = result.messages
    assert error["error"] == "state_locked"
    assert f"process {os.getpid()} owns the state folder" in error["message"]


@pytest.mark.usefixtures("running")
def test_what_works_while_another_process_owns_the_folder(plc: str) -> None:
    assert pqc(f"{plc} id show --json").data["name"] == "plc"
    assert pqc(f"{plc} id export").code == 0
    assert pqc(f"{plc} audit tail").code == 0
    assert pqc(f"{plc} audit verify").code == 0
    found = doctor(f"{plc} doctor")
    assert found["lock"]["found"] == f"process {os.getpid()} owns the folder"
    assert found["keys"]["outcome"] == "skipped"
    assert outcomes(found, "folder", "self-tests", "audit log") == ["ok"] * 3
    assert found["durable writes"]["outcome"] != "failed"


# Others have access to the folder


@pytest.mark.parametrize("line", ["status", "id show", "id export", "peer list", "open"])
def test_an_unsafe_folder(plc: str, tmp_path: Path, line: str) -> None:
    (tmp_path / "plc" / "identity").chmod(0o640)
    result = pqc(f"{plc} {line}", b"x")
    assert (result.code, result.out) == (4, "")
    assert "error: " in result.err
    assert "others have access (mode 640)" in result.err
    hint = re.search(r"^hint: (chmod .*)$", result.err, re.M)
    assert hint
    subprocess.run(hint[1].split(), check=True)
    assert pqc(f"{plc} status").code == 0


def test_doctor_before_an_unsafe_folder(plc: str, tmp_path: Path) -> None:
    (tmp_path / "plc").chmod(0o755)
    found = doctor(f"{plc} doctor")
    assert outcomes(found, "folder", "keys", "audit log") == ["failed", "skipped", "ok"]
    assert found["folder"]["fix"] == f"chmod -R go= {tmp_path / 'plc'}"


# Doctor


def test_doctor_on_a_device_in_order(plc: str) -> None:
    found = doctor(f"{plc} doctor")
    assert set(found) == {
        "folder",
        "lock",
        "durable writes",
        "disk space",
        "audit log",
        "self-tests",
        "entropy",
        "clock",
        "keys",
        "rollback",
        "secret memory",
        "copy",
        "peers",
        "backup",
    }
    assert set(outcomes(found, *found)) <= {"ok", "warning"}
    people = pqc(f"{plc} doctor")
    assert people.code == 0
    assert re.search(r"^ok +self-tests +every primitive", people.out, re.M)


def test_doctor_leaves_nothing_behind(plc: str, tmp_path: Path) -> None:
    before = set((tmp_path / "plc").iterdir())
    doctor(f"{plc} doctor")
    assert set((tmp_path / "plc").iterdir()) == before


def test_doctor_without_a_device(tmp_path: Path) -> None:
    found = doctor(f"--state {tmp_path}/none doctor")
    names = ("folder", "self-tests", "entropy", "secret memory", "keys")
    assert outcomes(found, *names) == ["failed", "ok", "ok", "ok", "skipped"]
    assert found["folder"]["fix"] == f"make one: pqc-iiot --state {tmp_path}/none init NAME"
    (tmp_path / "none").mkdir(0o700)
    assert doctor(f"--state {tmp_path}/none doctor")["keys"]["outcome"] == "failed"


def test_doctor_without_the_passphrase(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery")
    secret.chmod(0o600)
    line = f"--state {tmp_path}/dev"
    assert pqc(f"{line} --passphrase-file {secret} init dev").code == 0
    without = program(f"{line} doctor --json")
    assert without.code == 0
    (keys,) = (check for check in without.data["checks"] if check["name"] == "keys")
    assert keys["outcome"] == "skipped"
    found = doctor(f"{line} --passphrase-file {secret} doctor")
    assert outcomes(found, "keys", "peers") == ["ok", "warning"]
    assert found["peers"]["found"] == "the allow-list is empty: everybody is refused"
    assert found["peers"]["fix"].startswith(f"pqc-iiot {line} --passphrase-file {secret} peer add")
    secret.write_text("another one")
    assert doctor(f"{line} --passphrase-file {secret} doctor")["keys"]["outcome"] == "failed"


def test_doctor_counts_what_waits(plc: str, tmp_path: Path) -> None:
    with Node.create(
        tmp_path / "new", name="new", provider="software:insecure-plaintext-keys"
    ) as new:
        (tmp_path / "new.bundle").write_bytes(new.bundle.encoded)
    pqc(f"{plc} peer add {tmp_path}/new.bundle")
    waiting = doctor(f"{plc} doctor")["pending"]
    assert (waiting["outcome"], waiting["fix"]) == ("warning", f"{plc} peer pending")


def test_doctor_finds_a_changed_store(plc: str, tmp_path: Path) -> None:
    with edited(tmp_path / "plc" / "state.db") as db:
        db.execute("update peers set value = zeroblob(10)")
    assert doctor(f"{plc} doctor")["peers"]["outcome"] == "failed"


def test_doctor_asks_the_broker(plc: str, start: Start) -> None:
    broker = start()
    assert doctor(f"{plc} doctor --broker {broker.url}")["broker"]["outcome"] == "ok"
    broker.stop()
    found = doctor(f"{plc} doctor --broker {broker.url}")["broker"]
    assert found["outcome"] == "failed"
    assert "--mqtt-version 3.1.1" in found["fix"]
    assert doctor(f"{plc} doctor --broker tcp://x")["broker"]["outcome"] == "failed"


def test_checks_that_fail(plc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plc"
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _raise(OSError(5, "Input/output error")))
        assert checks.durable_writes(folder).outcome == "failed"
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_SPACE_NEEDED", 1 << 62)
        assert checks.disk_space(folder).outcome == "failed"
    with monkeypatch.context() as patch:
        patch.setattr("os.getrandom", _raise(BlockingIOError()))
        assert checks.entropy().outcome == "failed"
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 0.0)
        assert checks.clock().outcome == "warning"
    with monkeypatch.context() as patch:
        patch.setattr("pqc_iiot._core.memory_stats", lambda: (0, 64, 1))
        assert checks.secret_memory().outcome == "warning"


def test_doctor_after_a_failed_self_test(plc: str) -> None:
    """In a process of its own, since it refuses everything from then on."""
    code = (
        "import sys; from pqc_iiot import _core; from pqc_iiot.cli import main;"
        "_core.fail_closed(); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [PROGRAM.with_name("python"), "-c", code, *plc.split()[1:], "doctor", "--json"],
        capture_output=True,
        check=False,
        timeout=TIME_LIMIT,
        env=environment(),
    )
    found = {check["name"]: check["outcome"] for check in json.loads(done.stdout)["checks"]}
    assert (done.returncode, found["self-tests"], found["keys"]) == (1, "failed", "failed")


def _raise(error: Exception) -> Any:
    def instead(*_: object) -> None:
        raise error

    return instead


# The audit log


def test_the_log_is_read_and_checked(plc: str, tmp_path: Path) -> None:
    pqc(f"{plc} open", b"junk")
    records = pqc(f"{plc} audit tail -n 3 --json")
    stored = (tmp_path / "plc" / "audit.log").read_bytes().splitlines()
    assert records.raw.splitlines() == stored[-3:]
    assert records.lines[1]["event"] == "refused_invalid_frame"
    assert " PQC-4001 low refused_invalid_frame " in pqc(f"{plc} audit tail").out
    assert pqc(f"{plc} audit tail -n 0").out == ""
    report = pqc(f"{plc} audit verify --json")
    assert (report.code, report.data["ok"]) == (0, True)
    assert "nothing contradicts anything" in pqc(f"{plc} audit verify").out


def test_a_log_that_was_changed(plc: str, tmp_path: Path) -> None:
    log = tmp_path / "plc" / "audit.log"
    log.write_bytes(log.read_bytes().replace(b'"suite":1', b'"suite":2', 1))
    report = pqc(f"{plc} audit verify")
    assert report.code == 1
    assert re.search(r"^changed +[0-9]+ +record", report.out, re.M)
    assert "error: " in report.err
    found = pqc(f"{plc} audit verify --json")
    assert (found.code, found.data["ok"], found.data["problems"][0]["kind"]) == (
        1,
        False,
        "changed",
    )
    assert doctor(f"{plc} doctor")["audit log"]["outcome"] == "failed"
    moved = log.rename(tmp_path / "moved.log")
    assert pqc(f"audit verify --file {moved}").code == 1


def test_a_log_that_is_missing(tmp_path: Path) -> None:
    assert pqc(f"audit tail --file {tmp_path}/none").code == 4
    assert pqc(f"audit verify --file {tmp_path}/none").code == 1
    assert pqc("audit tail -n -1").code == 2


def test_following_the_log(plc: str, tmp_path: Path, running: Node) -> None:
    with subprocess.Popen(
        [PROGRAM, *plc.split()[1:], "audit", "tail", "-n", "0", "--follow", "--json"],
        stdout=subprocess.PIPE,
        env=environment(),
    ) as follower:
        assert follower.stdout is not None
        # Something happens until the follower, which starts meanwhile, has seen it.
        while not select.select([follower.stdout], [], [], 0.1)[0]:
            running.policy = replace(running.policy, max_pending=running.policy.max_pending + 1)
        assert json.loads(follower.stdout.readline())["event"] == "policy_changed"
        follower.send_signal(2)
        assert follower.wait(TIME_LIMIT) == 130
