"""`init`, `id`, `recover`, `policy` and `status`, as transcripts."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest

from command import pqc, program, shell
from devices import copy
from pqc_iiot.bundle import parse_bundle

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def plc(devices: Path, tmp_path: Path) -> str:
    copy(devices, tmp_path, "plc")
    return f"pqc-iiot --state {tmp_path / 'plc'}"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(PASSPHRASE + "\n")
    file.chmod(0o600)
    return file


def test_a_device_is_made_and_shown(tmp_path: Path, secret: Path) -> None:
    device = f"--state {tmp_path / 'dev'} --passphrase-file {secret}"
    made = program(f"{device} init press-4 --trust tofu")
    assert made.code == 0
    assert "name         press-4" in made.out
    assert "suite        1 (MLKEM768-X25519 + Falcon-512 + AES-256-GCM)" in made.out
    assert made.err == (f"give its bundle to its peers: pqc-iiot {device} id export FILE\n")
    # Its public face needs no passphrase, and is the same in every form.
    shown = pqc(f"--state {tmp_path / 'dev'} id show --json").data
    exported = pqc(f"--state {tmp_path / 'dev'} id export")
    bundle = parse_bundle(exported.raw)
    assert (bundle.name, bundle.fingerprint.hex()) == ("press-4", shown["fingerprint"])
    document = pqc(f"--state {tmp_path / 'dev'} id export --json").data
    assert b64decode(document["bundle"]) == bundle.encoded
    assert pqc(f"{device} policy show --json").data["trust"] == "tofu"
    everything = made.out + made.err + exported.out
    assert PASSPHRASE not in everything


def test_keys_in_plain_text_take_a_flag_that_says_so(tmp_path: Path) -> None:
    made = pqc(f"--state {tmp_path / 'dev'} init dev --insecure-plaintext-keys --suite 5 --json")
    assert (made.code, made.data["suite"]) == (0, 5)
    (warning,) = made.messages
    assert warning["warning"] == "insecure"
    assert "PLAIN TEXT" in warning["message"]
    same = f"--state {tmp_path / 'b'} init dev --provider software:insecure-plaintext-keys"
    assert "warning: the keys are stored in PLAIN TEXT" in pqc(same).err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("'bad name'", 2, "cannot be a device's name"),
        ("dev --suite 9", 2, "suite 9 is not known here (known suites: 1, 2, 3, 4, 5, 6, 7)"),
        ("dev --suite one", 2, "'one' is no suite"),
        ("dev --suites some", 2, "'some' is no suite policy"),
        ("dev --trust nobody", 2, "'nobody' is not one of 'strict', 'tofu'"),
        ("dev --provider none:", 2, "no security provider is registered for 'none:'"),
        ("dev --provider x --insecure-plaintext-keys", 2, "exclude each other"),
        ("dev --suites cnsa2", 3, "suite 1 (MLKEM768-X25519"),
        ("dev", 1, "the keys are protected by a passphrase and none was given"),
        ("dev --passphrase-file /nonexistent", 2, "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_made(tmp_path: Path, options: str, code: int, message: str) -> None:
    result = program(f"--state {tmp_path / 'dev'} init {options}")
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    # And it can be made right afterwards: a failed attempt blocks nothing.
    again = pqc(f"--state {tmp_path / 'dev'} init dev --insecure-plaintext-keys")
    assert again.code == 0


def test_no_device_is_made_over_another(plc: str) -> None:
    result = pqc(f"{plc} init other --insecure-plaintext-keys")
    assert result.code == 2
    assert "is not empty: a device is never made over another" in result.err


def test_a_passphrase_file_that_others_can_read(tmp_path: Path, secret: Path) -> None:
    secret.chmod(0o640)
    result = pqc(f"--state {tmp_path / 'dev'} --passphrase-file {secret} init dev")
    assert result.code == 4
    assert f"error: others can read the passphrase file {secret}" in result.err
    assert f"hint: chmod 600 {secret}" in result.err


def test_a_wrong_passphrase(tmp_path: Path, secret: Path) -> None:
    device = f"--state {tmp_path / 'dev'} --passphrase-file {secret}"
    assert pqc(f"{device} init dev").code == 0
    secret.write_text("something else\n")
    result = pqc(f"{device} status --json")
    assert (result.code, result.out) == (1, "")
    assert result.messages[0]["error"] == "wrong_passphrase"
    assert "something else" not in result.err
    secret.write_text(PASSPHRASE)
    assert pqc(f"{device} status").code == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", 2), (b"\n", 2), (b"short", 2), (b"x" * 1025, 2), (b"\xff\0" * 20, 0)],
)
def test_whatever_a_passphrase_file_holds(tmp_path: Path, content: bytes, code: int) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    secret.chmod(0o600)
    device = f"--state {tmp_path / 'dev'} --passphrase-file {secret}"
    made = pqc(f"{device} init dev")
    assert made.code == code
    if code == 0:
        assert pqc(f"{device} status").code == 0


def test_a_passphrase_from_a_password_manager(tmp_path: Path) -> None:
    line = f"pqc-iiot --state dev --passphrase-file <(printf '%s' '{PASSPHRASE}')"
    assert shell(f"{line} init dev", tmp_path).code == 0
    assert shell(f"{line} status", tmp_path).code == 0


def test_a_systemd_credential(tmp_path: Path) -> None:
    credential = tmp_path / "pqc-iiot-passphrase"
    credential.write_text(PASSPHRASE)
    credential.chmod(0o400)
    service = {"CREDENTIALS_DIRECTORY": str(tmp_path), "STATE_DIRECTORY": f"{tmp_path}/dev:/b"}
    assert program("init dev", env=service).code == 0
    assert program("status --json", env=service).data["name"] == "dev"


def test_where_the_state_is_if_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "/var/lib/pqc-iiot" in pqc("id show").err
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert f"{tmp_path}/.local/state/pqc-iiot" in pqc("id show").err
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert f"{tmp_path}/.local/state/pqc-iiot" in pqc("id show").err
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/xdg")
    assert f"{tmp_path}/xdg/pqc-iiot" in pqc("id show").err
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/systemd:{tmp_path}/other")
    missing = pqc("id show --json")
    assert missing.code == 4
    assert missing.messages[0]["hint"] == (
        f"make one: pqc-iiot --state {tmp_path}/systemd init NAME"
    )


def test_global_options_stand_anywhere(plc: str, tmp_path: Path) -> None:
    state = f"--state {tmp_path / 'plc'}"
    forms = [
        f"{state} --json id show",
        f"id {state} --json show",
        f"id show {state} --json",
        f"--state /elsewhere --json id show {state}",
    ]
    documents = [pqc(form).data for form in forms]
    assert documents == [documents[0]] * 4


def test_keys_are_rotated_and_the_old_ones_retired(plc: str) -> None:
    before = pqc(f"{plc} id show --json").data
    rotated = pqc(f"{plc} id rotate --suite 2 --json").data
    assert rotated["previous"] == before["fingerprint"]
    assert (rotated["serial"], rotated["suite"]) == (2, 2)
    assert pqc(f"{plc} id show --json").data == rotated
    assert pqc(f"{plc} status --json").data["previous_keys"] is True
    assert "serial       2" in pqc(f"{plc} id retire").out
    assert pqc(f"{plc} status --json").data["previous_keys"] is False


def test_recovery_is_asked_for_twice(plc: str, tmp_path: Path) -> None:
    (tmp_path / "plc" / "state.db").unlink()
    lost = pqc(f"{plc} peer list")
    assert lost.code == 4
    refused = pqc(f"{plc} recover")
    assert (refused.code, refused.out) == (2, "")
    assert "hint: confirm it with --yes" in refused.err
    before = pqc(f"{plc} id show --json").data
    recovered = pqc(f"{plc} recover --yes --json")
    assert recovered.code == 0
    assert recovered.data["previous"] == before["fingerprint"]
    assert pqc(f"{plc} peer list --json").data == []


def test_the_policy_is_shown_and_changed(plc: str) -> None:
    assert pqc(f"{plc} policy show").out.splitlines()[0].split() == ["trust", "strict"]
    changed = pqc(f"{plc} policy set --suites hybrid --max-payload 100 --min-custody software")
    assert "max_payload       100" in changed.out
    assert pqc(f"{plc} policy show --json").data["suites"] == "hybrid"
    for wrong in ("", "--max-payload 0", "--max-payload x", "--min-custody none", "--suites x"):
        assert pqc(f"{plc} policy set {wrong}").code == 2
    assert pqc(f"{plc} policy show --json").data["max_payload"] == 100


def test_the_status(plc: str) -> None:
    status = pqc(f"{plc} status --json").data
    assert (status["name"], status["peers"], status["trust"]) == ("plc", 1, "strict")
    assert status["memory"]["locked"] > 0
    shown = pqc(f"{plc} status")
    assert re.search(r"^name +plc", shown.out, re.M)
    assert max(map(len, shown.out.splitlines())) <= 80
