"""`inbox` and `outbox`: what waits is looked at, taken or dropped from the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from command import PROGRAM, TIME_LIMIT, Result, environment, pqc, words
from devices import Pair
from pqc_iiot import Incoming, Node
from pqc_iiot.audit import tail

TEMP, ALARM = "line1/temp", "line2/alarm"


@pytest.fixture
def plc(pair: Pair) -> Path:
    """A device with three messages in its inbox, closed."""
    wanted = [("21.5", TEMP), ("fire \x1b[2J", ALARM), ("22", TEMP)]
    frames = [Incoming(pair.frame(text.encode(), topic), topic) for text, topic in wanted]
    pair.plc.open_many(frames, durable=True)
    pair.close()
    return pair.folder / "plc"


def inbox(folder: Path, line: str) -> Result:
    return pqc(f"--state {folder} inbox {line}")


def left(folder: Path) -> list[str]:
    with Node.open(folder) as node:
        return [message.payload.decode() for message in node.inbox.messages()]


def test_a_list_shows_what_waits_and_takes_nothing(plc: Path) -> None:
    for _ in range(2):
        listed = inbox(plc, "list --json").data
        assert [each["topic"] for each in listed] == [TEMP, ALARM, TEMP]
        assert [each["bytes"] for each in listed] == [4, 9, 2]
        assert {each["sender"] for each in listed} == {"sensor"}
        assert all(each["age"] >= 0 for each in listed)
        assert "payload" not in listed[0]
    people = inbox(plc, "list")
    assert (people.code, people.err) == (0, "")
    assert all(each["id"] in people.out for each in listed)
    assert "21.5" not in people.out
    assert [each["topic"] for each in inbox(plc, "list --topic 'line2/#' --json").data] == [ALARM]
    assert len(left(plc)) == 3


def test_what_was_taken_is_shown_once_and_gone(plc: Path) -> None:
    """As `listen` shows it, and nothing of a payload is obeyed by a terminal."""
    taken = inbox(plc, "take --topic 'line2/#'")
    assert taken.out == "sensor  #2  line2/alarm  fire \\x1b[2J\n"
    assert left(plc) == ["21.5", "22"]
    first, second = inbox(plc, "take --json").lines
    assert (first["payload"], second["payload"]) == ("21.5", "22")
    assert first.keys() >= {"sender", "fingerprint", "topic", "sequence", "id", "encoding"}
    assert left(plc) == []
    again = inbox(plc, "take")
    assert (again.code, again.out, again.err) == (0, "", "nothing waits\n")
    assert inbox(plc, "list --json").data == []


def test_by_their_ids(plc: Path) -> None:
    ids = [each["id"] for each in inbox(plc, "list --json").data]
    assert [each["id"] for each in inbox(plc, f"take {ids[2]} {ids[0]} --json").lines] == [
        ids[0],
        ids[2],
    ]
    assert left(plc) == ["fire \x1b[2J"]
    wrong = inbox(plc, f"take {ids[1]} {ids[0]}")  # one of them is gone: neither is taken
    assert (wrong.code, wrong.out) == (2, "")
    assert "nothing was taken" in wrong.err
    assert len(left(plc)) == 1


def test_what_is_dropped_is_not_shown(plc: Path) -> None:
    dropped = inbox(plc, "take --drop --topic line1/+")
    assert (dropped.code, dropped.out, dropped.err) == (0, "", "2 dropped\n")
    assert len(left(plc)) == 1
    assert inbox(plc, "take --drop --topic '#' --json").data == {"dropped": 1}
    records = [record for record in tail(plc / "audit.log", 100) if record.event == "inbox_dropped"]
    assert [(r.detail["name"], r.detail["count"]) for r in records] == [
        ("sensor", 2),
        ("sensor", 1),
    ]
    assert left(plc) == []


@pytest.mark.parametrize(
    "line",
    ["take --drop", "take --topic '#' 00", "take xyz", "take 0", "take --topic a/#/b", "list x"],
)
def test_what_is_called_wrongly_takes_nothing(plc: Path, line: str) -> None:
    result = inbox(plc, line)
    assert (result.code, result.out) == (2, "")
    assert len(left(plc)) == 3


def test_while_a_process_owns_the_folder(plc: Path) -> None:
    with Node.open(plc):
        assert inbox(plc, "take").code == 4


def test_what_could_not_be_shown_is_not_taken(plc: Path) -> None:
    """Whoever reads it goes away in between."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [PROGRAM, *words(f"--state {plc} inbox take")],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
            timeout=TIME_LIMIT,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert len(left(plc)) == 3


def test_what_waits_for_a_broker(pair: Pair) -> None:
    pair.sensor.outbox.put(b"1", to="plc", context=TEMP)
    pair.sensor.outbox.put(b"2", to="plc", context=ALARM, qos=2, retain=True)
    pair.close()
    folder = pair.folder / "sensor"
    first, second = pqc(f"--state {folder} outbox list --json").data
    assert (first["to"], first["topic"], first["qos"], first["retain"]) == ("plc", TEMP, 1, False)
    assert (second["topic"], second["qos"], second["retain"]) == (ALARM, 2, True)
    assert first["number"] < second["number"]
    assert first["bytes"] > 1000
    people = pqc(f"--state {folder} outbox list")
    assert ALARM in people.out
    assert json.loads(pqc(f"--state {folder} status --json").out)["queues"]["outbox"] == 2
    empty = pqc(f"--state {pair.folder}/plc outbox list")
    assert "nothing waits" in empty.err
