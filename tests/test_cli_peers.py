"""`peer`: the allow-list, as transcripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command import pqc, shell
from devices import make
from pqc_iiot import Node, format_fingerprint


@pytest.fixture
def plc(tmp_path: Path) -> str:
    """A controller that knows nobody."""
    make(tmp_path, "plc").close()
    return f"pqc-iiot --state {tmp_path / 'plc'}"


@pytest.fixture
def sensor(tmp_path: Path) -> Node:
    """A closed sensor, whose bundle is in `sensor.bundle`."""
    with make(tmp_path, "sensor") as node:
        node.peers.add_approved((tmp_path / "plc/bundle").read_bytes())
        (tmp_path / "sensor.bundle").write_bytes(node.bundle.encoded)
        (tmp_path / "frame").write_bytes(node.seal(b"21.5", to="plc", context="t"))
    return node


def test_from_a_bundle_to_a_peer(plc: str, sensor: Node, tmp_path: Path) -> None:
    digits = sensor.bundle.fingerprint.hex()
    assert pqc(f"{plc} peer list").err == "the allow-list is empty: everybody is refused\n"
    added = pqc(f"{plc} peer add {tmp_path}/sensor.bundle")
    assert added.code == 0
    assert re.search(r"^sensor +pending +1 +1 +", added.out, re.M)
    assert added.err == f"compare fingerprints, then: {plc} peer approve {digits}\n"
    assert pqc(f"{plc} peer pending --json").data == [
        {"name": "sensor", "state": "pending", "suite": 1, "serial": 1, "fingerprint": digits}
    ]
    # People compare groups of four, and paste them without quotes.
    approved = pqc(f"{plc} peer approve {format_fingerprint(sensor.bundle.fingerprint)} --name s-1")
    assert (approved.code, approved.err) == (0, "")
    assert "state        approved" in approved.out
    assert pqc(f"{plc} peer pending --json").data == []
    assert [peer["name"] for peer in pqc(f"{plc} peer list --json").data] == ["s-1"]
    assert pqc(f"{plc} peer show s-1 --json").data["fingerprint"] == digits
    assert max(map(len, pqc(f"{plc} peer list").out.splitlines())) <= 80
    revoked = pqc(f"{plc} peer revoke s-1 --json").data
    assert [peer["state"] for peer in revoked] == ["revoked"]
    assert pqc(f"{plc} open --context t {tmp_path}/frame").code == 3
    assert pqc(f"{plc} peer add {tmp_path}/sensor.bundle").code == 3


def test_the_command_that_an_error_prints_works_as_it_stands(
    plc: str, sensor: Node, tmp_path: Path
) -> None:
    """The whole way of a new user, who pastes what the program says."""
    unknown = pqc(f"{plc} open --context t {tmp_path}/frame")
    assert unknown.code == 3
    assert f"then: {plc} peer add FILE" in unknown.err
    pqc(f"{plc} peer add {tmp_path}/sensor.bundle")
    waiting = pqc(f"{plc} open --context t {tmp_path}/frame")
    assert (waiting.code, waiting.out) == (3, "")
    found = re.search(r"then: (pqc-iiot .* peer approve [0-9a-f]{64})$", waiting.err, re.M)
    assert found
    pasted = shell(found[1], tmp_path)
    assert pasted.code == 0
    assert "state        approved" in pasted.out
    assert pqc(f"{plc} open --context t {tmp_path}/frame").out == "21.5"


def test_the_hint_names_the_passphrase_file_too(tmp_path: Path) -> None:
    secret = tmp_path / "the secret"
    secret.write_text("correct horse battery")
    secret.chmod(0o600)
    device = f"pqc-iiot --state {tmp_path}/dev --passphrase-file '{secret}'"
    assert pqc(f"{device} init dev").code == 0
    assert f"{device} peer add FILE" in pqc(f"{device} seal --to nobody", b"x").err


def test_many_bundles_at_once(plc: str, tmp_path: Path, devices: Path) -> None:
    prints = []
    for name in ("a", "b", "c"):
        with make(tmp_path, name) as node:
            (tmp_path / f"{name}.bundle").write_bytes(node.bundle.encoded)
            prints.append(node.bundle.fingerprint.hex())
    (tmp_path / "junk").write_bytes(b"junk")
    files = " ".join(f"{tmp_path}/{name}.bundle" for name in "abc")
    mixed = pqc(f"{plc} peer add --json {tmp_path}/junk {files} /nonexistent")
    assert mixed.code == 3
    assert [peer["state"] for peer in mixed.data] == ["pending"] * 3
    assert [message["error"] for message in mixed.messages] == ["invalid_bundle", "invalid_input"]
    # Approved at once are those whose fingerprints were given; another one is refused.
    wanted = " ".join(f"--approve {each}" for each in (prints[0], prints[2]))
    approved = pqc(f"{plc} peer add {files} {wanted} --json")
    assert approved.code == 3
    assert [(peer["name"], peer["state"]) for peer in approved.data] == [
        ("a", "approved"),
        ("c", "approved"),
    ]
    assert f"not one of those to approve: {prints[1]}" in approved.messages[0]["message"]
    missing = pqc(f"{plc} peer add {tmp_path}/a.bundle --approve {prints[0]} --approve {'0' * 64}")
    assert missing.code == 3
    assert f"no bundle given has the fingerprint {'0' * 64}" in missing.err


def test_bundles_that_the_pending_list_has_no_room_for(plc: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with make(tmp_path, name) as node:
            (tmp_path / f"{name}.bundle").write_bytes(node.bundle.encoded)
    assert pqc(f"{plc} policy set --max-pending 1").code == 0
    result = pqc(f"{plc} peer add {tmp_path}/a.bundle {tmp_path}/b.bundle")
    assert result.code == 1
    assert "error: 1 of these bundles had to leave the pending list again" in result.err
    assert [each["name"] for each in pqc(f"{plc} peer pending --json").data] == ["b"]


def test_trust_on_first_use_is_loud_and_first_use_only(
    plc: str, sensor: Node, tmp_path: Path
) -> None:
    assert pqc(f"{plc} policy set --trust tofu").code == 0
    pinned = pqc(f"{plc} peer add {tmp_path}/sensor.bundle")
    assert pinned.code == 0
    fingerprint = format_fingerprint(sensor.bundle.fingerprint)
    assert pinned.err == f"warning: trusted on first use: sensor {fingerprint}\n"
    with make(tmp_path / "other", "sensor") as impostor:
        (tmp_path / "impostor").write_bytes(impostor.bundle.encoded)
    changed = pqc(f"{plc} peer add {tmp_path}/impostor --json")
    assert changed.code == 3
    assert changed.messages[0]["error"] == "peer_key_changed"
    assert f"then {plc} peer revoke sensor" in changed.messages[0]["hint"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("peer approve nobody", 3),
        ("peer approve " + "0" * 64, 3),
        ("peer approve 'not a name'", 2),
        ("peer approve 1234 5678", 2),
        ("peer show nobody", 3),
        ("peer revoke nobody", 3),
        ("peer revoke", 2),
        ("peer add", 2),
        ("peer add /nonexistent", 2),
        ("peer add /dev/null", 3),
        ("peer add {own}", 2),
        ("peer add {own} --approve 1234", 2),
        ("peer add {own} --name x", 2),
        ("peer add {own} {own} --name x --approve " + "0" * 64, 2),
    ],
)
def test_what_cannot_be_done(plc: str, tmp_path: Path, line: str, code: int) -> None:
    result = pqc(f"{plc} {line.format(own=tmp_path / 'plc/bundle')}")
    assert result.code == code
    assert result.err.startswith("error: ")
    assert pqc(f"{plc} peer list --json").data == pqc(f"{plc} peer pending --json").data == []
