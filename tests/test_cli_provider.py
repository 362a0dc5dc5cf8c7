"""`provider` and `init --min-custody`: what a device's keeper of keys can do, and says so."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import emulated
from command import pqc
from devices import PLAINTEXT
from pqc_iiot import Node
from pqc_iiot.providers import registry

NONCE = "00112233445566778899aabbccddeeff"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"{emulated.SCHEME}:{tmp_path / 'device'}"


@pytest.fixture
def plc(tmp_path: Path, uri: str) -> str:
    """The words of a device with halves in hardware."""
    state = f"--state {tmp_path / 'plc'}"
    made = pqc(f"{state} init plc --suite 6 --provider {uri} --min-custody split --json")
    assert made.code == 0, made.err
    assert (made.data["custody"], made.data["assurance"]) == ("split", "emulator")
    return state


def test_a_custody_that_cannot_be_had_makes_no_device(tmp_path: Path, uri: str) -> None:
    state = f"--state {tmp_path / 'plc'}"
    for provider, suite, custody in (
        (PLAINTEXT, 6, "sealed"),
        (uri, 3, "split"),
        (uri, 6, "native"),
    ):
        line = f"{state} init plc --suite {suite} --provider {provider} --min-custody {custody}"
        refused = pqc(f"{line} --json")
        assert refused.code == 3
        said = refused.messages[-1]
        assert said["error"] == "custody_too_low"
        assert custody.upper() in said["message"]
        assert "it offers S" in said["hint"]
        assert f"suites in custody {custody.upper()}" in said["hint"]
        assert not (tmp_path / "plc" / "identity").exists()
    device = tmp_path / "device"
    assert not [file for file in device.iterdir() if file.name.startswith("kek")], "left behind"
    assert "suites in custody SPLIT: 6" in pqc(
        f"{state} init plc --suite 3 --provider {uri} --min-custody split --json"
    ).messages[-1]["hint"]  # fmt: skip


def test_the_custody_demanded_stays_demanded(plc: str) -> None:
    assert pqc(f"{plc} policy show --json").data["min_custody"] == "split"
    refused = pqc(f"{plc} id rotate --suite 3 --json")
    assert (refused.code, refused.messages[-1]["error"]) == (3, "custody_too_low")
    assert pqc(f"{plc} id rotate --suite 6").code == 0


def test_list_without_a_device_shows_what_there_is(tmp_path: Path) -> None:
    found = pqc(f"--state {tmp_path / 'none'} provider list --json").data
    assert found["keys"] == []
    assert {row["scheme"] for row in found["schemes"]} >= {"software", "tpm", "pkcs11"}
    assert "software:" in pqc(f"--state {tmp_path / 'none'} provider list").out


def test_list_shows_each_key_with_its_evidence(plc: str) -> None:
    assert pqc(f"{plc} id rotate").code == 0
    found = pqc(f"{plc} provider list --json").data
    assert (found["assurance"], found["rollback_protected"]) == ("emulator", True)
    assert [
        (key["key"], key["use"], key["custody"], key["performed"]) for key in found["keys"]
    ] == [
        ("current", "kem", "split", True),
        ("current", "sig", "split", True),
        ("previous", "kem", "split", True),
        ("previous", "sig", "split", True),
    ]
    assert all(key["evidence"] == "its halves stay in the folder" for key in found["keys"])
    people = pqc(f"{plc} provider list").out
    assert "performs" in people


def test_status_and_doctor_say_whether_rollback_is_noticed(plc: str, tmp_path: Path) -> None:
    status = pqc(f"{plc} status --json").data
    assert status["rollback_protected"] is True
    assert (status["kem_custody"], status["sig_custody"]) == ("SPLIT", "SPLIT")
    checks = {check["name"]: check for check in pqc(f"{plc} doctor --json").data["checks"]}
    assert checks["rollback"]["outcome"] == "ok"
    other = f"--state {tmp_path / 'other'}"
    assert pqc(f"{other} init other --insecure-plaintext-keys").code == 0
    assert pqc(f"{other} status --json").data["rollback_protected"] is False
    checks = {check["name"]: check for check in pqc(f"{other} doctor --json").data["checks"]}
    assert checks["rollback"]["outcome"] == "warning"
    assert "tpm:" in checks["rollback"]["fix"]


def test_test_runs_the_checks_and_measures(uri: str) -> None:
    done = pqc(f"provider test {uri} --suite 6 --json")
    assert done.code == 0
    assert done.data["passed"]
    assert {key["suite"] for key in done.data["keys"]} == {6}
    split = [row for row in done.data["capabilities"] if row["custody"] == "split"]
    assert len(split) == 2
    assert all(row["seconds"] > 0 and row["performed"] and row["evidence"] for row in split)
    people = pqc(f"provider test {uri} --suite 6").out
    assert "performs" in people
    assert "protects" in people
    assert "FAILED" not in people


def test_test_fails_where_a_check_does(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated.FileCounter, "increment", lambda self: self.value())
    done = pqc(f"provider test {uri} --suite 6 --json")
    assert (done.code, done.data["passed"]) == (1, False)
    assert "FAILED" in pqc(f"provider test {uri} --suite 6").out


def test_a_third_party_has_one_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pqc_iiot.conformance", PLAINTEXT, "--suite", "3"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert b"keys are as claimed" in done.stdout


def test_a_package_registers_its_own_scheme(tmp_path: Path, uri: str) -> None:
    """As an installed distribution does: by an entry point, found without loading it."""
    info = tmp_path / "site" / "acme_hsm-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-hsm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pqc_iiot.providers]\nacme = emulated:EmulatedProvider\nbroken = no_such_module:x\n"
    )
    path = os.pathsep.join([str(info.parent), str(Path(__file__).parent)])
    acme = uri.replace(emulated.SCHEME, "acme", 1)
    for words, code, expected in (
        (["provider", "test", acme, "--suite", "6"], 0, b"keys are as claimed"),
        (["provider", "list"], 0, b"acme:"),
        (["provider", "test", "nothing:"], 2, b"acme:"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pqc_iiot", "--state", str(tmp_path / "none"), *words],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert expected in done.stdout + done.stderr


def test_an_entry_point_is_not_loaded_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("acme", "no_such_module:Provider", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda: {"acme": entry})
    assert registry.schemes()[-1] == "acme"
    assert pqc("provider list --state /nonexistent").code == 0


@pytest.mark.parametrize(("uri", "extra"), [("tpm:", "tpm"), ("pkcs11:module=x", "hsm")])
def test_without_the_extra_one_line_names_it(tmp_path: Path, uri: str, extra: str) -> None:
    """In a process in which the extra's package cannot be imported, everything else works."""
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('tpm2_pytss', 'pkcs11')));"
        "from pqc_iiot.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, "--state", str(tmp_path / "state"), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    refused = command("init", "plc", "--provider", uri)
    assert refused.returncode == 1
    error, hint = refused.stderr.splitlines()
    assert f"needs the extra '{extra}'" in error
    assert f"pip install 'pqc-iiot[{extra}]'" in hint
    assert f"pqc-iiot[{extra}]" in command("provider", "list").stdout
    assert command("init", "plc", "--insecure-plaintext-keys").returncode == 0
    assert command("status").returncode == 0


# Quotes


def test_a_quote_is_verified_on_another_machine(plc: str, tmp_path: Path) -> None:
    file = tmp_path / "evidence"
    assert pqc(f"{plc} provider quote --nonce {NONCE} {file}").code == 0
    elsewhere = f"--state {tmp_path / 'elsewhere'}"
    verified = pqc(f"{elsewhere} provider verify-quote {file} --nonce {NONCE} --json")
    assert verified.code == 0, verified.err
    with Node.open(tmp_path / "plc") as node:
        assert verified.data["fingerprint"] == node.bundle.fingerprint.hex()
        other = node.rotate()
    assert (verified.data["name"], verified.data["state"]) == ("plc", "as it was")
    assert "compare" in pqc(f"{elsewhere} provider verify-quote {file} --nonce {NONCE}").err

    data = file.read_bytes()
    for what, bad, nonce in (
        ("another nonce", data, NONCE[::-1]),
        ("a changed byte", data[:-70] + bytes([data[-70] ^ 1]) + data[-69:], NONCE),
        ("cut short", data[:-1], NONCE),
        ("nothing", b"", NONCE),
        ("another device's keys", data.replace(_bundle(data), other.encoded), NONCE),
    ):
        file.write_bytes(bad)
        refused = pqc(f"provider verify-quote {file} --nonce {nonce} --json")
        assert refused.code == 3, what


def _bundle(evidence: bytes) -> bytes:
    from pqc_iiot.providers.evidence import decode_evidence

    return decode_evidence(evidence)[1]


def test_a_quote_is_not_to_be_had_from_software(tmp_path: Path) -> None:
    state = f"--state {tmp_path / 'soft'}"
    assert pqc(f"{state} init soft --insecure-plaintext-keys").code == 0
    refused = pqc(f"{state} provider quote --nonce {NONCE} {tmp_path / 'x'} --json")
    assert (refused.code, refused.messages[-1]["error"]) == (1, "not_supported")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("nonce", ["", "zz", "00", "00" * 7, "00" * 65])
def test_nonces_that_are_none(nonce: str) -> None:
    assert pqc(f"provider verify-quote /dev/null --nonce '{nonce}'").code == 2
