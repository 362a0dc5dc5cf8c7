"""Devices killed by SIGKILL at random moments, a few hundred times.

A killed process loses nothing that it gave to the kernel: this shows that the order of steps
is right, at any moment. That each step is synced is what test_crash_points.py and the stores'
own settings are for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices import copy
from pqc_iiot import DuplicateError, Node, Policy, ReplayError
from pqc_iiot.envelope import parse
from zygote import Zygote, entries

KILLS = 150
SIZES = range(1850, 1860)
"""Bytes of a frame here, with the shortest number and the longest."""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def sent(
    devices: Path, tmp_path_factory: pytest.TempPathFactory, zygote: Zygote
) -> tuple[list[int], list[str]]:
    """The numbers and the frames of a sender that was killed again and again."""
    folder = tmp_path_factory.mktemp("sender")
    copy(devices, folder, "sensor")
    with Node.open(folder / "sensor") as sensor:
        sensor.policy = Policy(sequence_block=3)
    rng = random.Random(1)
    arguments = folder / "sensor", folder / "numbers", folder / "frames"
    for _ in range(KILLS):
        zygote.kill(rng, "seal_for_ever", *arguments)
    with Node.open(folder / "sensor") as sensor:
        last = parse(sensor.seal(b"x", to="plc")).sequence
    numbers = [int(number) for (number,) in entries(folder / "numbers")]
    # A kill may cut a line short; what follows on the same line is no frame either.
    lines = [line for (line,) in entries(folder / "frames") if len(line) in (2 * n for n in SIZES)]
    assert len(lines) > len(numbers) - 2 * KILLS
    return [*numbers, last], lines


def test_no_number_is_used_twice(sent: tuple[list[int], list[str]]) -> None:
    numbers, _ = sent
    assert len(numbers) > KILLS
    assert numbers == sorted(set(numbers))


def test_no_frame_is_accepted_twice(
    sent: tuple[list[int], list[str]], devices: Path, tmp_path: Path, zygote: Zygote
) -> None:
    _, lines = sent
    copy(devices, tmp_path, "plc")
    rng = random.Random(2)
    journal, some = tmp_path / "accepted", tmp_path / "some"
    for life in range(KILLS):
        at = len(lines) * life // KILLS
        old = rng.sample(lines[: at + 1], min(at + 1, 9))  # an attacker repeats what went by
        some.write_text("\n".join([*old, *lines[at : at + 2 * len(lines) // KILLS]]))
        zygote.kill(rng, "open_for_ever", tmp_path / "plc", journal, some)
    accepted = [int(number) for (number,) in entries(journal)]
    assert len(accepted) > KILLS
    assert accepted == sorted(set(accepted))
    with Node.open(tmp_path / "plc") as plc:
        for line in lines:
            frame = bytes.fromhex(line)
            if parse(frame).sequence <= accepted[-1]:
                with pytest.raises(ReplayError):
                    plc.open(frame, context="line1/temp")


def test_a_frame_that_was_not_accepted_is_taken_once(
    sent: tuple[list[int], list[str]], devices: Path, tmp_path: Path, zygote: Zygote
) -> None:
    """A kill between the disk and the caller may lose a message; it never makes two of one."""
    _, lines = sent
    (tmp_path / "one").write_text("")
    copy(devices, tmp_path, "plc")
    rng = random.Random(3)
    results: list[tuple[int, bool]] = []
    for line in lines[: KILLS // 3]:
        (tmp_path / "one").write_text(line)
        journal = tmp_path / f"accepted{len(results)}"
        arguments = tmp_path / "plc", journal, tmp_path / "one"
        zygote.kill(rng, "open_for_ever", *arguments)
        with Node.open(tmp_path / "plc") as plc:
            try:
                plc.open(bytes.fromhex(line), context="line1/temp")
            except DuplicateError:
                again = False
            else:
                again = True
        results.append((len(entries(journal)), again))
    assert set(results) <= {(0, True), (1, False), (0, False)}
    assert {(0, True), (1, False)} <= set(results)
