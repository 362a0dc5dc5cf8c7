"""Inbox and outbox, stopped in front of every call that changes a file, one after the other.

As in test_crash_points.py, each time with everything that was written, with nothing but what
was synced, and with some of the rest. That this would find a wrong order is shown with wrong
ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import queue_lives
from devices import Pair, copy
from power import Power
from pqc_iiot import DuplicateError, Incoming, Message, Node, Policy, StateError
from pqc_iiot.envelope import parse
from zygote import entries

FRAMES = 4


@pytest.fixture(scope="module")
def power(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Power]:
    power = Power(tmp_path_factory.mktemp("power"))
    yield power
    power.close()


@pytest.fixture
def frames(pair: Pair) -> list[bytes]:
    """From the sensor to the controller; the payload of each is its sequence number."""
    first = parse(pair.frame()).sequence
    frames = [pair.frame(b"%d" % (first + 1 + number)) for number in range(FRAMES)]
    assert [parse(frame).sequence for frame in frames] == [first + 1 + n for n in range(FRAMES)]
    return frames


@pytest.fixture
def template(devices: Path, tmp_path: Path, frames: list[bytes]) -> Path:
    """A folder with a device whose numbers come in small blocks."""
    (tmp_path / "frames").write_text("\n".join(frame.hex() for frame in frames))
    template = tmp_path / "template"
    template.mkdir()
    copy(devices, tmp_path / "made", "plc")
    with Node.open(tmp_path / "made" / "plc") as plc:
        plc.policy = Policy(sequence_block=2)
    (tmp_path / "made" / "plc").rename(template / "device")
    return template


def lives(power: Power, template: Path, kind: str) -> Iterator[Path]:
    frames = template.with_name("frames")
    for moment in power.moments("live_with_queues", template, frames, Path(kind)):
        yield moment.folder


@pytest.mark.parametrize("kind", [life.__name__ for life in queue_lives.RIGHT])
def test_nothing_is_lost_and_nothing_comes_twice(
    kind: str, template: Path, frames: list[bytes], power: Power
) -> None:
    for life in lives(power, template, kind):
        check(life, frames)
    print(f"{power.points} crash points of inbox and outbox ({kind}), three disks each")
    assert power.points > 90


@pytest.mark.parametrize("kind", [life.__name__ for life in queue_lives.WRONG])
def test_a_wrong_order_is_found(
    kind: str, template: Path, frames: list[bytes], power: Power
) -> None:
    def check_all() -> None:
        for life in lives(power, template, kind):
            check(life, frames)

    with pytest.raises(AssertionError, match=r"too early|lost"):
        check_all()


def check(life: Path, frames: list[bytes]) -> None:
    """What the device has said is so; what it had not said is so or is not; and it goes on."""
    said: dict[str, dict[int, str]] = {}
    for word, digits, *more in entries(life / "journal"):
        said.setdefault(word, {})[int(digits)] = more[0] if more else ""
    taken, given, done, accepted, published, sent = (
        said.get(word, {}) for word in ("taken", "given", "done", "accepted", "published", "sent")
    )
    for given_number, payload in given.items():
        assert bytes.fromhex(payload) == b"%d" % given_number, "nobody has sent this"
    with opened(life / "device") as plc:
        check_outbox(plc, accepted, published, sent)
        waiting = check_inbox(plc, taken, given, done)
        for frame in frames:
            number = parse(frame).sequence
            (result,) = plc.open_many([Incoming(frame, queue_lives.CONTEXT)], durable=True)
            known = isinstance(result, DuplicateError)
            assert known or isinstance(result, Message)
            assert known or number not in taken, f"{number} was promised too early"
            assert not known or number in waiting or number in given, f"{number} is lost"
        again = [message.sequence for message in plc.inbox.messages()]
        assert again == sorted(set(again))
        assert not set(again) & set(done)


def opened(folder: Path) -> Node:
    try:
        return Node.open(folder)
    except StateError as error:
        raise AssertionError("the device is lost") from error


def check_inbox(
    plc: Node, taken: dict[int, str], given: dict[int, str], done: dict[int, str]
) -> set[int]:
    waiting = {message.sequence: message.payload for message in plc.inbox.messages()}
    assert all(payload == b"%d" % number for number, payload in waiting.items())
    for number in taken:
        assert number in waiting or number in given, f"{number} is lost"
    for number in done:
        assert number not in waiting, f"{number} was given up too early"
    return set(waiting)


def check_outbox(
    plc: Node, accepted: dict[int, str], published: dict[int, str], sent: dict[int, str]
) -> None:
    waiting = {entry.number: entry.frame.hex() for entry in plc.outbox.waiting()}
    for number, frame in accepted.items():
        assert number in waiting or number in published, f"{number} is lost"
        assert waiting.get(number, frame) == frame
    for number in sent:
        assert number not in waiting, f"{number} was given up too early"
    assert len(set(waiting) - set(accepted)) <= 1
    used = {*waiting, *accepted}
    fresh = plc.outbox.put(b"x", to="sensor").number
    assert all(fresh > number for number in used)
