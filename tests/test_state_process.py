"""A state folder and the processes around it: other owners, forks, full disks."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from devices import Pair, copy, events, seen_rows
from pqc_iiot import DuplicateError, Incoming, Message, Node, StateError
from pqc_iiot.errors import StateLockedError


def run(program: str, *arguments: object) -> str:
    """A program of its own: pytest's process has threads, which do not mix with forks."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_one_process_owns_a_folder(pair: Pair) -> None:
    with pytest.raises(StateLockedError, match=f"process {os.getpid()} owns"):
        Node.open(pair.folder / "plc")
    program = (
        "import sys; from pqc_iiot import Node, StateError\n"
        "try: Node.open(sys.argv[1])\n"
        "except StateError as error: print(error.code, error)"
    )
    assert f"state_locked process {os.getpid()} owns" in run(program, pair.folder / "plc")
    pair.plc.close()
    assert run(program, pair.folder / "plc") == ""
    pair.plc = Node.open(pair.folder / "plc")


def test_a_lock_file_that_somebody_removed(pair: Pair) -> None:
    """ "The lock is stale, remove it": the log and the store know better."""
    frame = pair.frame()
    (pair.folder / "plc" / "lock").unlink()
    before = (pair.folder / "plc" / "identity").read_bytes()
    for open_ in (Node.open, Node.recover):
        with pytest.raises(StateError):
            open_(pair.folder / "plc")
    assert (pair.folder / "plc" / "identity").read_bytes() == before
    assert pair.plc.open(frame, context="line1/temp")
    pair.reopen()
    with pytest.raises(DuplicateError):
        pair.plc.open(frame, context="line1/temp")


FORK = """
import gc, os, sys
from pqc_iiot import Node, Policy, StateError
folder, frame = sys.argv[1], bytes.fromhex(sys.argv[2])
node = Node.open(folder)
child = os.fork()
if child == 0:
    calls = [
        lambda: node.open(frame, context="line1/temp"),
        lambda: node.seal(b"x", to="sensor"),
        lambda: node.rotate(),
        lambda: node.retire(),
        lambda: node.status(),
        lambda: setattr(node, "policy", Policy()),
        lambda: node.peers.revoke("sensor"),
        lambda: node.peers.add(b""),
        lambda: node.peers.list(),
    ]
    for call in calls:
        try:
            call()
            os._exit(1)
        except StateError as error:
            if "fork" not in str(error):
                os._exit(2)
    node.close()
    del node
    gc.collect()
    sys.exit(0)  # with everything that an interpreter does at its end
assert os.waitpid(child, 0)[1] == 0
print(node.open(frame, context="line1/temp").sequence)
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_is_refused_and_harms_nothing(pair: Pair) -> None:
    """Above all, SQLite in the child must not remove the log that the parent writes."""
    first, second = pair.frame(), pair.frame()
    pair.plc.close()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, str(pair.folder / "plc"), first.hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, "1\n"), ran.stderr
    pair.plc = Node.open(pair.folder / "plc")
    with pytest.raises(DuplicateError):
        pair.plc.open(first, context="line1/temp")
    assert pair.plc.open(second, context="line1/temp").sequence == 2


HOLD = """
import os, sys
from pqc_iiot import Node
node = Node.open(sys.argv[1])
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(writer)
    os.read(reader, 1)  # lives on until the parent has ended
    os._exit(0)
node.close()
Node.open(sys.argv[1]).close()
print("reopened")
"""


def test_a_child_that_lives_on_does_not_hold_the_folder(pair: Pair) -> None:
    pair.plc.close()
    assert run(HOLD, pair.folder / "plc") == "reopened\n"
    pair.plc = Node.open(pair.folder / "plc")


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow: the nearest thing to a full disk that needs no privilege."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def full(pair: Pair, disk: Callable[[], AbstractContextManager[None]]) -> None:
    """While nothing can be written nothing is accepted or sent; afterwards all works."""
    frames = [pair.frame(b"%d" % i) for i in range(3)]
    incoming = [Incoming(frame, "line1/temp") for frame in frames]
    assert pair.plc.open(frames[0], context="line1/temp")
    before = seen_rows(pair.plc), pair.plc.peers.list()
    with disk():
        for _ in range(2):
            with pytest.raises(StateError) as caught:
                pair.plc.open(frames[1], context="line1/temp")
            assert type(caught.value) is StateError
            assert "free space" in caught.value.hint
            with pytest.raises(StateError):
                pair.plc.open_many(incoming)
        with pytest.raises(StateError):
            pair.plc.peers.revoke("sensor")
        with pytest.raises(StateError):
            pair.plc.rotate()
        with pytest.raises(StateError):
            pair.plc.seal(b"x", to="sensor")  # the first block of numbers
    assert (seen_rows(pair.plc), [peer.state for peer in pair.plc.peers.list()]) == (
        before[0],
        [peer.state for peer in before[1]],
    )
    results = pair.plc.open_many(incoming)
    assert [type(result) for result in results] == [DuplicateError, Message, Message]
    assert pair.sensor.open(pair.plc.seal(b"x", to="sensor")).payload == b"x"
    assert "state" in {event.reason for event in events(pair.plc)}
    pair.reopen()
    with pytest.raises(DuplicateError):
        pair.plc.open(frames[2], context="line1/temp")


def test_files_that_cannot_grow(pair: Pair) -> None:
    full(pair, small_files)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "false", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount; test_files_that_cannot_grow ran without it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(devices: Path, disk: Path) -> None:
    copy(devices, disk, "sensor", "plc")
    pair = Pair(disk, Node.open(disk / "sensor"), Node.open(disk / "plc"))
    filler = disk / "filler"

    @contextmanager
    def filled() -> Iterator[None]:
        with filler.open("wb", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue
        try:
            yield
        finally:
            filler.unlink()

    full(pair, filled)
    pair.plc.close()
    with filled(), pytest.raises(StateError):
        Node.open(disk / "plc")
    pair.plc = Node.open(disk / "plc")
    with filled(), pytest.raises(StateError):
        pair.plc.close()  # the end cannot be made durable, but it is an end
    pair.plc = Node.open(disk / "plc")
    assert pair.plc.open(pair.frame(), context="line1/temp")
    pair.close()
