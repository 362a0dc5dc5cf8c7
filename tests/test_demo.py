"""The demonstration: it goes well, it shows what it should, and it notices what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from command import PROGRAM, environment, program
from pqc_iiot import Node, demo, envelope
from pqc_iiot.audit import VerifyReport
from pqc_iiot.demo import arrivals, attacks, ledger, travel
from pqc_iiot.demo.broker import PlainClient
from pqc_iiot.freshness import Freshness
from pqc_iiot.keystore import Keystore

Break: TypeAlias = Callable[[pytest.MonkeyPatch], None]

OUTCOMES = {
    "a captured frame again": ("duplicate", "PQC-4008", "informational"),
    "a frame with one bit changed": ("authentication_failed", "PQC-4004", "high"),
    "a frame on another topic": ("authentication_failed", "PQC-4004", "high"),
    "a frame under another name": ("authentication_failed", "PQC-4004", "high"),
    "the same frame, unchanged": ("", "", ""),
    "an old number in a frame never seen": ("replay", "PQC-4007", "high"),
    "a command without protection": ("invalid_frame", "PQC-4001", "low"),
    "a device that nobody knows": ("unknown_peer", "PQC-4005", "medium"),
    "a device that was revoked": ("revoked_peer", "PQC-4006", "high"),
}


@pytest.fixture(scope="module")
def document() -> Any:
    done = program("demo --json")
    assert (done.code, done.err) == (0, "")
    return done.data


def test_every_step_goes_as_it_should(document: Any) -> None:
    steps = [step for scene in document["scenes"] for step in scene["steps"]]
    assert document["ok"]
    assert len(steps) == 20
    assert all(step["ok"] for step in steps)


def test_readings_arrive_and_the_broker_sees_none(document: Any) -> None:
    trips = document["scenes"][1]["trips"]
    assert {"plant/line1/load", "plant/line1/memory"} <= {trip["topic"] for trip in trips}
    for trip in trips:
        frame = bytes.fromhex(trip["frame"])
        assert json.loads(trip["sent"]) == json.loads(trip["got"])
        assert len(frame) == trip["frame_size"] > len(trip["sent"])
        assert not any(piece.encode() in frame for piece in re.findall(r"\w{6,}", trip["sent"]))


def test_attacks_are_refused_with_their_reason_and_leave_their_event(document: Any) -> None:
    found = {
        attack["title"]: (attack["code"], attack["event_id"], attack["severity"])
        for attack in document["scenes"][2]["attacks"]
    }
    assert found == OUTCOMES


def test_forged_logs_are_found_out(document: Any) -> None:
    checks = document["scenes"][3]["checks"]
    assert [[kind for kind, _ in check["problems"]] for check in checks] == [
        [],
        ["changed"],
        ["missing"],
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_plain_text_fits_where_there_is_no_terminal(columns: int) -> None:
    done = program("demo", env={"COLUMNS": str(columns)})
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= columns
    assert "20 of 20 steps" in done.out
    side_by_side = re.search("the device sent +the broker saw +the controller got", done.out)
    assert bool(side_by_side) == (columns >= 100)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_colours_only_on_a_terminal_that_wants_them(variables: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, "demo"],
        env=environment(TERM="xterm-256color", COLUMNS="100", **variables),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = read_all(ours)
    assert process.returncode == 0
    assert b"\x1b[2K" in shown, "no progress was shown"
    assert bool(re.search(rb"\x1b\[(?:1;)?3[0-7]m", shown)) == (not variables)


def read_all(terminal: int) -> bytes:
    """What a pseudo-terminal's other side writes until it is closed."""
    chunks = []
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(terminal)
    return b"".join(chunks)


def test_says_what_to_install_where_the_broker_is_missing() -> None:
    code = (
        "import sys; sys.modules['amqtt'] = None; sys.argv = ['pqc-iiot', 'demo'];"
        "from pqc_iiot.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'pqc-iiot[demo]'" in done.stderr
    assert "Traceback" not in done.stderr


# What must be noticed: the demonstration in this process, with one thing broken.


def frames_are_not_changed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attacks, "flip_last_bit", lambda frame: frame)


def contexts_are_not_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "encode_context", lambda context: b"\x40")


def numbers_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Freshness, "check", lambda *_: None)


def revocation_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keystore, "revoke", lambda *_: [])


def verification_finds_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "verify", lambda _: VerifyReport(1, 1, 1, "", "", 0, None, 0, ()))


def readings_show_through(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(travel, "longest_shared_run", lambda needle, haystack: 50)


def attacks_get_lost(patch: pytest.MonkeyPatch) -> None:
    async def publish(*_: object) -> None:
        pass

    patch.setattr(arrivals, "LIMIT", 0.2)
    patch.setattr(PlainClient, "publish", publish)


def there_are_no_readings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arrivals, "LIMIT", 0.2)
    patch.setattr(travel, "read_all", dict)


def it_breaks_off(patch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise asyncio.InvalidStateError("this very thing")

    patch.setattr(travel, "read_all", broken)


@pytest.mark.parametrize(
    ("broken", "failed", "seen"),
    [
        (frames_are_not_changed, "a frame with one bit changed", "accepted"),
        (contexts_are_not_bound, "a frame on another topic", "accepted"),
        (numbers_are_not_checked, "a captured frame again", "accepted"),
        (revocation_does_nothing, "a device that was revoked", "accepted"),
        (verification_finds_nothing, "an edited record is found out", "no problem"),
        (readings_show_through, "the broker can read none of them", "50 at most"),
        (attacks_get_lost, "a captured frame again", "no answer"),
        (there_are_no_readings, "readings arrive unchanged", "0 of 0"),
        (it_breaks_off, "the demonstration goes on", "InvalidStateError: this very thing"),
    ],
)
def test_what_goes_wrong_is_noticed(
    broken: Break,
    failed: str,
    seen: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken(monkeypatch)
    assert demo.run(json=True) == 1
    document = json.loads(capsys.readouterr().out)
    steps = [step for scene in document["scenes"] for step in scene["steps"] if not step["ok"]]
    assert not document["ok"]
    assert (failed, seen) in [(step["name"], step["seen"]) for step in steps]


def test_a_failure_stands_in_the_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verification_finds_nothing(monkeypatch)
    assert demo.run() == 1
    assert "18 of 20 steps" in capsys.readouterr().out


def test_the_search_finds_what_is_there() -> None:
    assert travel.longest_shared_run(b"", b"abc") == 0
    assert travel.longest_shared_run(b"xyz", b"") == 0
    assert travel.longest_shared_run(b"--load--", b"a frame with load in it") == 4
    assert travel.longest_shared_run(b"load", b"load") == 4
    assert travel.longest_shared_run(b"abcab", b"ab ca bcab") == 4


def test_entropy() -> None:
    assert travel.entropy(b"aaaa") == 0
    assert travel.entropy(bytes(range(256))) == 8


def test_nothing_is_left_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert demo.run(json=True) == 0
    assert not list(tmp_path.iterdir())
    assert demo.run(json=True, keep=True) == 0
    (kept,) = tmp_path.iterdir()
    assert str(kept) in capsys.readouterr().err
    with Node.open(kept / "controller") as controller:
        assert controller.peers.get("sensor").name == "sensor"
