"""A device whose file system really becomes read-only while it runs: a program for a mount
namespace of its own, `unshare -m python remounted.py KIND FOLDER`, which ends with 77 where it
may not mount.

The kernel refuses to remount a file system read-only in which a file is open for writing, so
there are two kinds. `ext4`: one that gives up, as after an error of its disk
(`errors=remount-ro`): no write at all, until it is mounted anew. `bind`: another mount of the
same folder, read-only, over it: files that are open stay writable, no file is made or replaced.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from devices import introduce, make
from pqc_iiot import DuplicateError, Incoming, Message, Node, StateError

NOT_PERMITTED = 77
TOPIC = "line1/temp"


def mount(*arguments: str | Path) -> None:
    """As the command, which says why it fails."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr.decode())
        sys.exit(NOT_PERMITTED)


def refused(call: Callable[[], object]) -> None:
    """A typed error that says what to do."""
    with pytest.raises(StateError) as caught:
        call()
    assert type(caught.value) is StateError
    assert caught.value.hint


def ext4(folder: Path) -> None:
    """No write at all: nothing is accepted, and nothing is lost."""
    image, disk = folder / "image", folder / "disk"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    disk.mkdir()
    mount("-o", "loop,errors=remount-ro", image, disk)
    sensor, plc = make(folder, "sensor"), make(disk, "plc")
    introduce(sensor, plc)

    taken = [incoming(sensor, b"taken"), incoming(sensor, b"kept")]
    assert plc.open(taken[0].frame, context=TOPIC).payload == b"taken"
    plc.open_many(taken[1:], durable=True)
    waits = plc.outbox.put(b"waits", to="sensor")

    mount("-o", "remount,abort", disk)
    later = [incoming(sensor, b"later"), incoming(sensor, b"later, to be kept")]
    for _ in range(2):
        refused(lambda: plc.open(later[0].frame, context=TOPIC))
        refused(lambda: plc.open_many(later[1:], durable=True))
        refused(lambda: plc.outbox.put(b"x", to="sensor"))
        refused(lambda: plc.peers.revoke("sensor"))
        refused(plc.rotate)
        refused(lambda: setattr(plc, "policy", replace(plc.policy, max_pending=9)))
        # Numbers that were made durable before still go out.
        assert sensor.open(plc.seal(b"still", to="sensor")).payload == b"still"
    refused(plc.close)
    subprocess.run(["umount", str(disk)], check=True)  # every file was let go of

    mount("-o", "loop", image, disk)
    with Node.open(disk / "plc") as plc:
        assert [message.payload for message in plc.inbox.messages()] == [b"kept"]
        assert plc.outbox.waiting() == [waits]
        assert plc.peers.get("sensor").state.value == "approved"
        assert sensor.open(plc.seal(b"again", to="sensor")).payload == b"again"
        went_on(plc, taken, later)
    sensor.close()


def bind(folder: Path) -> None:
    """No file is made or replaced, so no keys and no block of numbers; messages are still
    taken. The same process goes on with the rest when it may again."""
    disk, aside = folder / "disk", folder / "aside"
    disk.mkdir()
    aside.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", disk)
    sensor, plc = make(folder, "sensor"), make(disk, "plc")
    introduce(sensor, plc)
    plc.policy = replace(plc.policy, sequence_block=2)
    plc.close()
    plc = Node.open(disk / "plc")
    sent, bundle = [plc.seal(b"", to="sensor")], plc.bundle

    # Read-only before anybody can open a file in it, for then it would be busy.
    mount("--bind", disk, aside)
    mount("-o", "remount,bind,ro", aside)
    mount("--bind", aside, disk)
    sent += list(iter(lambda: sealed(plc), b""))
    for _ in range(2):
        refused(plc.rotate)
        with pytest.raises(StateError, match="Read-only file system"):
            plc.seal(b"", to="sensor")
    assert plc.bundle == bundle
    taken = [incoming(sensor, b"taken")]
    assert plc.open(taken[0].frame, context=TOPIC).payload == b"taken"
    subprocess.run(["umount", str(disk)], check=True)

    sent.append(plc.seal(b"", to="sensor"))
    for frame in sent:
        sensor.open(frame)  # no number was used twice
    went_on(plc, taken, [incoming(sensor, b"later")])
    sensor.peers.add(plc.rotate())
    plc.close()
    with Node.open(disk / "plc") as plc:
        went_on(plc, taken, [incoming(sensor, b"anew")])
    sensor.close()


def incoming(sensor: Node, text: bytes) -> Incoming:
    """A frame on its way."""
    return Incoming(sensor.seal(text, to="plc", context=TOPIC), TOPIC)


def sealed(plc: Node) -> bytes:
    """A frame with a number that is left; empty where there is none."""
    try:
        return plc.seal(b"", to="sensor")
    except StateError:
        return b""


def went_on(plc: Node, taken: list[Incoming], later: list[Incoming]) -> None:
    """What was accepted comes no second time; what was refused for the disk's sake comes."""
    for item in taken:
        with pytest.raises(DuplicateError):
            plc.open(item.frame, context=TOPIC)
    results = plc.open_many(later, durable=True)
    assert all(isinstance(result, Message) for result in results), results


if __name__ == "__main__":
    {"ext4": ext4, "bind": bind}[sys.argv[1]](Path(sys.argv[2]))
