"""`audit verify`, `checkpoint`, `prove`, `check`, `consistency`, `witness`, as users run them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from brokers import Start
from command import PROGRAM, environment, pqc, words
from devices import copy
from pqc_iiot import Node
from pqc_iiot.audit.checkpoint import Checkpoint
from pqc_iiot.trail import AUDIT_FILE


@pytest.fixture
def here(devices: Path, tmp_path: Path) -> Path:
    """Two closed devices, and the sensor's bundle and first checkpoint outside of it."""
    copy(devices, tmp_path, "sensor", "plc")
    for name in ("sensor", "plc"):
        (tmp_path / f"{name}.bundle").write_bytes((tmp_path / name / "bundle").read_bytes())
    assert pqc(f"--state {tmp_path}/sensor audit checkpoint -o {tmp_path}/old").code == 0
    with Node.open(tmp_path / "sensor") as sensor:
        for _ in range(300):
            sensor.audit.emit("started")
    return tmp_path


def test_from_checkpoint_to_proof(here: Path) -> None:
    sensor = f"--state {here}/sensor"
    assert pqc(f"{sensor} audit checkpoint --sign -o {here}/new").code == 0
    old, new = (Checkpoint.parse((here / name).read_bytes()) for name in ("old", "new"))
    assert old.size < new.size - 300
    assert pqc(f"{sensor} audit checkpoint").raw.startswith(new.origin.encode())

    done = pqc(f"{sensor} audit prove {old.size + 5} -o {here}/proof")
    assert (done.code, done.err) == (0, "")
    done = pqc(f"audit check {here}/proof --bundle {here}/sensor.bundle --json")
    assert done.code == 0
    assert done.data["signer"] == "sensor"
    assert json.loads(done.data["record"])["seq"] == old.size + 5
    assert "sensor" in pqc(f"audit check {here}/proof --bundle {here}/sensor.bundle").out
    assert "--bundle" in pqc(f"audit check {here}/proof").err

    line = (here / "sensor" / AUDIT_FILE).read_bytes().splitlines()[5]
    digest = json.loads((here / "sensor" / AUDIT_FILE).read_bytes().splitlines()[6])["prev"]
    done = pqc(f"{sensor} audit prove {digest}")
    assert done.data["record"].encode() == line
    assert pqc("audit check -", done.raw).code == 0

    done = pqc(f"{sensor} audit consistency {here}/old {here}/new --json -o {here}/cons")
    assert (done.data["old_size"], done.data["new_size"]) == (old.size, new.size)
    assert json.loads((here / "cons").read_bytes())["old"] == old.encode().decode()
    done = pqc(f"{sensor} audit consistency {here}/old {here}/new --bundle {here}/sensor.bundle")
    assert f"the first {old.size} of {new.size}" in done.out


def test_verify_with_what_was_kept_elsewhere(here: Path) -> None:
    sensor = f"--state {here}/sensor"
    done = pqc(f"{sensor} audit verify --checkpoint {here}/old --json")
    assert done.code == 0
    assert done.data["coverage"]["signed_seq"] == done.data["last_seq"]
    log = here / "sensor" / AUDIT_FILE
    bundle = f"--bundle {here}/sensor.bundle"
    assert pqc(f"audit verify --file {log} {bundle} --checkpoint {here}/old").code == 0
    assert pqc(f"audit verify --file {log} --bundle {here}/plc.bundle").code == 1
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    for path in ("head", "checkpoints"):
        log.with_suffix(f".{path}").unlink()
    assert pqc(f"audit verify --file {log}").code == 0
    done = pqc(f"audit verify --file {log} --checkpoint {here}/old --json")
    assert done.code == 1
    assert [problem["kind"] for problem in done.data["problems"]] == ["checkpoint"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("audit check {here}/old", 3),
        ("audit check {here}/nothing", 2),
        ("audit check {here}/proof --bundle {here}/plc.bundle", 3),
        ("audit check {here}/proof --bundle {here}/old", 3),
        ("--state {here}/sensor audit prove 99999", 2),
        ("--state {here}/sensor audit prove 0", 2),
        ("--state {here}/sensor audit prove xyz", 2),
        ("--state {here}/sensor audit prove " + "0" * 64, 2),
        ("--state {here}/sensor audit prove " + "x" * 64, 2),
        ("--state {here}/nothing audit prove 1", 2),
        ("--state {here}/nothing audit checkpoint", 4),
        ("--state {here}/sensor audit consistency {here}/new {here}/old", 2),
        ("--state {here}/sensor audit consistency {here}/old {here}/theirs", 2),
        ("--state {here}/sensor audit consistency {here}/old {here}/proof", 3),
        ("--state {here}/sensor audit consistency {here}/old {here}/forged", 3),
        ("--state {here}/sensor audit consistency {here}/old {here}/new --bundle plc.bundle", 2),
        ("--state {here}/sensor audit verify --checkpoint {here}/proof", 3),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(here: Path, line: str, code: int) -> None:
    assert pqc(f"--state {here}/sensor audit checkpoint -o {here}/new").code == 0
    assert pqc(f"--state {here}/plc audit checkpoint -o {here}/theirs").code == 0
    assert pqc(f"--state {here}/sensor audit prove 3 -o {here}/proof").code == 0
    new = (here / "new").read_text()
    root = new.split("\n")[2]
    (here / "forged").write_text(new.replace(root, root[:-4][::-1] + root[-4:]))
    done = pqc(line.format(here=here))
    assert done.code == code, done.err
    assert done.err.startswith("error: ")


def test_peers_witness_each_other_over_a_broker(here: Path, start: Start) -> None:
    broker = f"--broker mqtt://127.0.0.1:{start().port}"
    server = subprocess.Popen(
        [PROGRAM, *words(f"--state {here}/plc audit witness {broker}")],
        env=environment(),
    )
    try:
        done = None
        for _ in range(20):  # until it listens
            done = pqc(f"--state {here}/sensor audit witness --to plc --timeout 2 --json {broker}")
            if done.code != 1:
                break
        assert done is not None
        assert done.code == 0, done.err
        size = done.data["plc"]
    finally:
        server.terminate()
        assert server.wait(30) == 0
    bundles = f"--bundle {here}/sensor.bundle --bundle {here}/plc.bundle"
    done = pqc(f"--state {here}/sensor audit verify {bundles} --json")
    assert done.data["coverage"]["witnesses"] == ["plc"]
    assert done.data["coverage"]["witnessed_seq"] == size
    assert "plc, up to record" in pqc(f"--state {here}/sensor audit verify {bundles}").out
    assert pqc(f"--state {here}/plc audit witness --forget sensor").code == 0
    tail = pqc(f"--state {here}/plc audit tail -n 100 --json").lines
    assert {"peer_witnessed", "peer_forgotten"} <= {record["event"] for record in tail}
