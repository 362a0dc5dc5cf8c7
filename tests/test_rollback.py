"""An older copy of the whole state folder, against a counter that nobody can set back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emulated
from devices import events, make
from emulated import Device, fail_next
from pqc_iiot import Node, Policy, StateError
from pqc_iiot.envelope import parse
from pqc_iiot.errors import CounterRollbackError, ProviderError, UnavailableError
from pqc_iiot.providers import SCHEMES

BLOCK = 4


@pytest.fixture(autouse=True)
def _no_failures_left() -> Iterator[None]:
    Device.failures.clear()
    yield
    Device.failures.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed device with a counter, and a peer that it knows."""
    uri = f"{emulated.SCHEME}:{tmp_path / 'device'}"
    policy = Policy(sequence_block=BLOCK)
    state = tmp_path / "state"
    with (
        Node.create(state, name="plc", suite=3, provider=uri, policy=policy) as node,
        make(tmp_path, "peer", 3) as peer,
    ):
        node.peers.add_approved(peer.bundle)
    return state


def number(node: Node) -> int:
    return parse(node.seal(b"x", to="peer")).sequence


def copied(folder: Path) -> Path:
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.new"))  # half written
    return copy


def put_back(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    (folder / "lock").unlink(missing_ok=True)


def life(folder: Path, what: str) -> list[int]:
    """Runs `what(node)` of this file in a process of its own, on the open device, and kills
    the process: the numbers that it gave out."""
    script = f"import sys, test_rollback as t; t.live(sys.argv[1], t.{what})"
    made = subprocess.run(
        [sys.executable, "-c", script, folder],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert made.returncode == -signal.SIGKILL, made.stderr.decode()
    return [int(word) for word in made.stdout.split()]


def live(folder: str, what: Callable[[Node], object]) -> None:
    node = Node.open(folder)
    print("open", file=sys.stderr)
    copied(Path(folder))
    what(node)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def refused(folder: Path, match: str) -> None:
    """Refused with the command that recovers, in the log, and nothing has changed."""
    before = {file.name: file.read_bytes() for file in folder.iterdir() if "audit" not in file.name}
    with pytest.raises(CounterRollbackError, match=match) as caught:
        Node.open(folder)
    assert "pqc-iiot recover" in caught.value.hint
    logged = (folder / "audit.log").read_text().splitlines()
    assert any('"state_counter_rollback"' in line for line in logged)
    after = {file.name: file.read_bytes() for file in folder.iterdir() if "audit" not in file.name}
    for name in ("identity", "anchor", "bundle"):
        assert before[name] == after[name]


def use(node: Node) -> None:
    number(node)


def restart(node: Node) -> None:
    pass  # a life between two openings


def several_blocks(node: Node) -> None:
    for _ in range(3 * BLOCK):
        number(node)


@pytest.mark.parametrize("meanwhile", [restart, use, several_blocks])
def test_a_copy_of_the_whole_folder_is_refused(
    folder: Path, meanwhile: Callable[[Node], None]
) -> None:
    copy = copied(folder)
    with Node.open(folder) as node:
        meanwhile(node)
    put_back(folder, copy)
    refused(folder, "older than the hardware's counter says")
    with pytest.raises(CounterRollbackError):
        Node.open(folder)  # and stays refused


def revoke(node: Node) -> None:
    node.peers.revoke("peer")


def change_policy(node: Node) -> None:
    node.policy = Policy(sequence_block=BLOCK, max_payload=100)


def rotate(node: Node) -> None:
    node.rotate()


@pytest.mark.parametrize("change", ["several_blocks", "revoke", "change_policy", "rotate"])
def test_a_copy_of_a_running_device_is_refused_once_it_changed(folder: Path, change: str) -> None:
    """Made while it ran, put back after it was killed."""
    life(folder, change)
    put_back(folder, folder.with_name("copy"))
    refused(folder, "older")


def retire(node: Node) -> None:
    node.retire()


@pytest.mark.parametrize("change", [revoke, change_policy, rotate, retire])
def test_what_a_copy_must_not_undo_is_counted_at_once(
    folder: Path, change: Callable[[Node], None]
) -> None:
    counter = folder.with_name("device") / "counter"
    with Node.open(folder) as node:
        node.rotate()
        _, before = json.loads(counter.read_text())
        change(node)
        _, after = json.loads(counter.read_text())
        assert after > before


def test_recovery_makes_new_keys_that_the_copy_cannot_use(folder: Path) -> None:
    copy = copied(folder)
    with Node.open(folder) as node:
        several_blocks(node)
        before = node.bundle
    put_back(folder, copy)
    refused(folder, "older")
    with Node.recover(folder) as node:
        assert (node.bundle.serial, node.bundle.previous) == (2, before.fingerprint)
        assert any(event.event == "state_recovered" for event in events(node))
    with Node.open(folder) as node:
        assert node.status().rollback_protected
    put_back(folder, copy)
    refused(folder, "older")


@pytest.mark.parametrize("call", ["value", "increment", "incremented"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_device_that_fails_in_between_repeats_no_number(
    folder: Path, call: str, times: int
) -> None:
    """The same process tries again; nothing was given out that was not announced."""
    used = []
    with Node.open(folder) as node:
        used += [number(node) for _ in range(BLOCK)]
        for _ in range(times):
            fail_next(call)
        for _ in range(2 * BLOCK):
            with contextlib.suppress(UnavailableError):
                used.append(number(node))
        assert len(used) == 3 * BLOCK - times
    with Node.open(folder) as node:
        used.append(number(node))
    assert used == sorted(set(used))


def until_it_fails(call: str) -> Callable[[Node], None]:
    """Uses a block, and dies in the order of the next."""

    def what(node: Node) -> None:
        for _ in range(BLOCK):
            print(number(node))
        fail_next(call)
        with contextlib.suppress(UnavailableError):
            print(number(node))

    return what


@pytest.mark.parametrize("call", ["value", "increment", "incremented"])
@pytest.mark.parametrize("lives", [1, 3])
def test_killed_between_store_and_counter_it_comes_back(
    folder: Path, call: str, lives: int
) -> None:
    """At every point of the order, several times in a row: it is never refused for that."""
    used = []
    for _ in range(lives):
        used += life(folder, f"until_it_fails({call!r})")
    for _ in range(2):
        fail_next(call)
        with pytest.raises(UnavailableError):
            Node.open(folder)
    with Node.open(folder) as node:
        used.append(number(node))
    assert len(used) == lives * BLOCK + 1
    assert used == sorted(set(used))


def test_a_copy_made_between_store_and_counter_is_refused_later(folder: Path) -> None:
    life(folder, "until_it_fails('increment')")
    copy = copied(folder)  # the store is a step ahead of the counter
    with Node.open(folder) as node:
        number(node)
    put_back(folder, copy)
    refused(folder, "older")


def revoke_without_counting(node: Node) -> None:
    fail_next("increment")
    with pytest.raises(UnavailableError):
        node.peers.revoke("peer")
    assert node.peers.get("peer").state.value == "revoked"


def test_a_revocation_holds_though_the_counter_fails(folder: Path) -> None:
    life(folder, "revoke_without_counting")
    with Node.open(folder) as node:
        assert node.peers.get("peer").state.value == "revoked"


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda name, value: [name, value - 2], "set back"),
        (lambda name, value: [name, value + 1], "older"),
        (lambda name, value: [name, 0], "set back"),
    ],
)
def test_a_counter_that_is_elsewhere(
    folder: Path, edit: Callable[[str, int], list[object]], match: str
) -> None:
    file = folder.with_name("device") / "counter"
    file.write_text(json.dumps(edit(*json.loads(file.read_text()))))
    refused(folder, match)


def test_another_counter_opens_nothing(folder: Path) -> None:
    """The storage key is sealed to the counter's name."""
    file = folder.with_name("device") / "counter"
    _, value = json.loads(file.read_text())
    file.write_text(json.dumps(["00" * 8, value]))
    with pytest.raises(ProviderError):
        Node.open(folder)


def test_a_counter_shared_with_another_device_is_noticed(folder: Path) -> None:
    node = Node.open(folder)
    for _ in range(2):
        emulated.FileCounter(Device(folder.with_name("device"))).increment()
    with pytest.raises(CounterRollbackError, match="another device"):
        several_blocks(node)
    with pytest.raises(CounterRollbackError, match="another device"):
        node.close()


def test_without_a_counter_it_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Node.open(folder) as node:
        assert node.status().rollback_protected
    with make(tmp_path, "software", 3) as node:
        assert not node.status().rollback_protected

    class Unprotected(emulated.FileCounter):
        rollback_protected = False

    class Provider(emulated.EmulatedProvider):
        def counter(self) -> Unprotected:
            return Unprotected(self.device)

    monkeypatch.setitem(SCHEMES, "emulated", Provider)
    with pytest.raises(CounterRollbackError, match="does not have"):
        Node.open(folder)
    uri = f"emulated:{tmp_path / 'other'}"
    with Node.create(tmp_path / "unprotected", name="x", suite=3, provider=uri) as node:
        assert not node.status().rollback_protected


def test_a_folder_on_another_device_opens_nothing(folder: Path) -> None:
    device = folder.with_name("device")
    device.rename(folder.with_name("stolen"))
    with pytest.raises((ProviderError, StateError)):
        Node.open(folder)
