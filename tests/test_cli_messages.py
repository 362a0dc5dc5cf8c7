"""`seal`, `open` and `inspect`: files and pipes, as transcripts."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from pathlib import Path

import pytest

from command import pqc, shell
from devices import Pair, copy

BINARY = bytes(range(256)) + b"\r\n\x00\xff"


@pytest.fixture
def folder(devices: Path, tmp_path: Path) -> Path:
    copy(devices, tmp_path, "sensor", "plc")
    return tmp_path


@pytest.fixture
def sensor(folder: Path) -> str:
    return f"pqc-iiot --state {folder}/sensor"


@pytest.fixture
def plc(folder: Path) -> str:
    return f"pqc-iiot --state {folder}/plc"


def test_through_files(sensor: str, plc: str, folder: Path) -> None:
    (folder / "in").write_bytes(BINARY)
    sealed = pqc(f"{sensor} seal --to plc --context line1 {folder}/in {folder}/frame")
    assert (sealed.code, sealed.out, sealed.err) == (0, "", "")
    opened = pqc(f"{plc} open --context line1 {folder}/frame {folder}/out")
    assert (opened.code, opened.out, opened.err) == (0, "", "from sensor, number 1\n")
    assert (folder / "out").read_bytes() == BINARY
    assert (folder / "out").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["frame", "in", "out", "plc", "sensor"]


def test_through_pipes(folder: Path) -> None:
    (folder / "in").write_bytes(BINARY)
    line = "<in pqc-iiot --state sensor seal --to plc | pqc-iiot --state plc open"
    assert shell(line, folder).raw == BINARY


def test_for_programs(sensor: str, plc: str, folder: Path) -> None:
    sealed = pqc(f"{sensor} seal --to plc --context t --json", b"21.5").data
    assert (sealed["to"], sealed["context"], sealed["sequence"]) == ("plc", "t", 1)
    opened = pqc(f"{plc} open --context t --json", b64decode(sealed["frame"]))
    assert opened.err == ""
    fingerprint = pqc(f"{sensor} id show --json").data["fingerprint"]
    assert opened.data == {
        "sender": "sensor",
        "fingerprint": fingerprint,
        "sequence": 1,
        "context": "t",
        "payload": "21.5",
        "encoding": "utf-8",
    }
    sealed = pqc(f"{sensor} seal --to plc --json - {folder}/frame", BINARY).data
    assert sealed["bytes"] == (folder / "frame").stat().st_size
    opened = pqc(f"{plc} open --json {folder}/frame")
    assert b64decode(opened.data["payload"]) == BINARY
    assert opened.data["encoding"] == "base64"
    pqc(f"{sensor} seal --to plc - {folder}/frame", b"to a file")
    document = pqc(f"{plc} open --json {folder}/frame {folder}/out").data
    assert (document["bytes"], document["file"]) == (9, f"{folder}/out")
    assert (folder / "out").read_bytes() == b"to a file"


@pytest.mark.parametrize(
    ("attack", "code", "says"),
    [
        ("again", "duplicate", "hint: a frame opens once"),
        ("tampered", "authentication_failed", "hint: check --context"),
        ("elsewhere", "authentication_failed", "hint: check --context"),
        ("old", "replay", "is not above the last one seen"),
        ("misaddressed", "wrong_recipient", "addressed to other keys"),
        ("junk", "invalid_frame", "not a frame"),
    ],
)
def test_on_refusal_nothing_is_written(
    sensor: str, plc: str, folder: Path, attack: str, code: str, says: str
) -> None:
    first = pqc(f"{sensor} seal --to plc", b"first").raw
    frame = pqc(f"{sensor} seal --to plc", b"second").raw
    if attack in ("again", "old"):
        assert pqc(f"{plc} open", frame).out == "second"
    presented = {
        "again": frame,
        "tampered": frame[:-1] + bytes([frame[-1] ^ 1]),
        "elsewhere": frame,
        "old": first,
        "misaddressed": frame,
        "junk": b"junk",
    }[attack]
    (folder / "out").write_bytes(b"what was there")
    device = sensor if attack == "misaddressed" else plc
    context = "--context other" if attack == "elsewhere" else ""
    line = f"{device} open {context} - {folder}/out"
    refused = pqc(line, presented)
    assert (refused.code, refused.out) == (3, "")
    assert refused.err.startswith("error: ")
    assert says in refused.err
    refused = pqc(f"{line} --json", presented)
    assert (refused.code, refused.out) == (3, "")
    assert refused.messages[0]["error"] == code
    assert (folder / "out").read_bytes() == b"what was there"
    assert {path.name for path in folder.iterdir()} == {"out", "plc", "sensor"}


def test_output_that_cannot_be_written_costs_no_frame(sensor: str, plc: str, folder: Path) -> None:
    frame = pqc(f"{sensor} seal --to plc", b"21.5").raw
    for target in (f"{folder}/none/out", f"{folder}/plc", f"{folder}/loop"):
        (folder / "loop").unlink(missing_ok=True)
        (folder / "loop").symlink_to(folder / "loop")
        refused = pqc(f"{plc} open - {target}", frame)
        assert (refused.code, refused.out) == (2, "")
        assert f"error: {target} cannot be written" in refused.err
    assert pqc(f"{plc} open", frame).out == "21.5"


def test_output_to_a_device_or_a_link_stays_what_it_is(sensor: str, plc: str, folder: Path) -> None:
    assert pqc(f"{sensor} seal --to plc - /dev/null", b"x").code == 0
    assert Path("/dev/null").is_char_device()
    (folder / "real").touch()
    (folder / "link").symlink_to("real")
    assert pqc(f"{sensor} seal --to plc - {folder}/link", b"21.5").code == 0
    assert (folder / "link").is_symlink()
    assert pqc(f"{plc} open {folder}/real").out == "21.5"


@pytest.mark.parametrize(
    ("line", "stdin", "code"),
    [
        ("seal", b"", 2),
        ("seal --to nobody", b"x", 3),
        ("seal --to 'not a name'", b"x", 2),
        ("seal --to plc /nonexistent", b"", 2),
        ("seal --to plc /", b"", 2),
        ("seal --to plc", bytes((1 << 20) + 1), 2),
        ("seal --to plc /dev/zero", b"", 2),
        ("seal --to plc --context " + "x" * 65536, b"x", 2),
        ("open /dev/zero", b"", 2),
        ("open a b c", b"", 2),
    ],
)
def test_what_cannot_be_sealed(sensor: str, line: str, stdin: bytes, code: int) -> None:
    result = pqc(f"{sensor} {line}", stdin)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")


def test_inspecting_a_frame_takes_no_key(pair: Pair) -> None:
    frame = pair.frame(b"21.5")
    explained = pqc("inspect - --json", frame).data
    assert explained == {
        "kind": "frame",
        "bytes": len(frame),
        "version": 1,
        "suite": 1,
        "recipient": pair.plc.bundle.kid.hex(),
        "sender": pair.sensor.bundle.kid.hex(),
        "sequence": 1,
        "encapsulated_key_bytes": 1120,
        "ciphertext_bytes": 3 + (1 + 4) + (3 + 666) + 16,
        "payload_bytes": 4,
        "verified": False,
    }
    people = pqc("inspect -", frame).out
    assert pair.sensor.bundle.kid.hex() in people
    assert max(map(len, people.splitlines())) <= 80


def test_inspecting_a_bundle(pair: Pair, tmp_path: Path) -> None:
    bundle = pair.sensor.bundle
    (tmp_path / "bundle").write_bytes(bundle.encoded)
    explained = pqc(f"inspect {tmp_path}/bundle --json").data
    assert (explained["kind"], explained["name"]) == ("bundle", "sensor")
    assert explained["fingerprint"] == bundle.fingerprint.hex()
    assert explained["verified"] is True
    forged = bundle.encoded.replace(b"sensor", b"sensxr")
    refused = pqc("inspect - --json", forged)
    assert (refused.code, refused.out) == (3, "")
    assert refused.messages[0]["error"] == "invalid_bundle"


def test_inspecting_text(pair: Pair, tmp_path: Path) -> None:
    frame = pair.frame()
    forms = [
        frame.hex(),
        frame.hex().upper(),
        b64encode(frame).decode(),
        urlsafe_b64encode(frame).decode().rstrip("="),
    ]
    expected = pqc("inspect - --json", frame).data
    for text in forms:
        assert pqc("inspect - --json", f"{text[:100]}\n{text[100:]}\r\n".encode()).data == expected
        assert pqc(f"inspect {text} --json").data == expected


@pytest.mark.parametrize(
    ("line", "stdin", "code"),
    [
        ("inspect", b"", 2),
        ("inspect nothing-of-that-name", b"", 2),
        ("inspect -", b"", 3),
        ("inspect -", b"junk", 3),
        ("inspect -", b"\xd0", 3),
        ("inspect -", b"\xd8\x62\x84", 3),
        ("inspect " + "zz" * 2000, b"", 3),
        ("inspect /", b"", 2),
        ("inspect /dev/zero", b"", 2),
    ],
)
def test_what_cannot_be_explained(line: str, stdin: bytes, code: int) -> None:
    result = pqc(line, stdin)
    assert (result.code, result.out) == (code, "")
    assert json.loads(pqc(f"{line} --json", stdin).err)["error"]
