"""What really causes the events of the catalogue, through the public face or from outside: of the
device, its peers and frames. `event_causes_log` has those of its state, its log and its queues."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import emulated
from devices import Pair, make
from foreign import Foreign
from pqc_iiot import Incoming, Node, Policy, _core, errors
from pqc_iiot.errors import PqcIiotError
from pqc_iiot.keystore import TofuWarning
from pqc_iiot.policy import Trust
from pqc_iiot.providers import Custody
from pqc_iiot.providers.passphrase import from_file
from test_witness import begin_another_log, exchange

CONTEXT = "line1/temp"
PAYLOAD = b"payload that nobody may read 0123456789"
PASSPHRASE = b"passphrase that nobody may read"
TIME_LIMIT = 30

Cause = Callable[[Pair], object]
CAUSES: dict[str, Cause] = {}


def causes(*events: str) -> Callable[[Cause], Cause]:
    """Registers what really causes these events."""

    def register(cause: Cause) -> Cause:
        CAUSES.update(dict.fromkeys(events, cause))
        return cause

    return register


def refused(action: Callable[[], object]) -> None:
    with pytest.raises(PqcIiotError):
        action()


def frame(pair: Pair) -> bytes:
    return pair.frame(PAYLOAD, CONTEXT)


def deliver(plc: Node, *frames: bytes) -> None:
    for result in plc.open_many([Incoming(each, CONTEXT, transport="mqtt") for each in frames]):
        if isinstance(result, PqcIiotError):
            raise result


def plc_folder(pair: Pair) -> Path:
    return pair.folder / "plc"


def in_process(function: Callable[[], None], folder: Path, *wrapper: str) -> None:
    """Runs a function of a file here in a process of its own, in a device's folder."""
    module = function.__module__
    subprocess.run(
        [*wrapper, sys.executable, "-c", f"import {module}; {module}.{function.__name__}()"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        check=True,
        timeout=TIME_LIMIT,
    )


# The device


@causes("started", "self_test_passed", "key_loaded", "audit_opened", "stopped")
def _restart(pair: Pair) -> None:
    pair.reopen()


def in_process_after_a_failed_self_test() -> None:
    _core.fail_closed()
    refused(lambda: Node.open("."))


@causes("self_test_failed")
def _self_test(pair: Pair) -> None:
    pair.plc.close()
    in_process(in_process_after_a_failed_self_test, plc_folder(pair))


@causes("policy_changed")
def _policy(pair: Pair) -> None:
    pair.plc.policy = Policy(max_payload=100)


@causes("key_made")
def _make(pair: Pair) -> None:
    make(pair.folder, "third").close()


@causes("key_rotated")
def _rotate(pair: Pair) -> None:
    pair.plc.rotate()


@causes("key_unlock_failed")
def _wrong_passphrase(pair: Pair) -> None:
    files = pair.folder / "right", pair.folder / "wrong"
    for file, content in zip(files, (PASSPHRASE, PASSPHRASE[::-1]), strict=True):
        file.write_bytes(content)
        file.chmod(0o600)
    right, wrong = map(from_file, files)
    Node.create(pair.folder / "sealed", name="sealed", passphrase=right).close()
    refused(lambda: Node.open(pair.folder / "sealed", passphrase=wrong))


@causes(
    "key_device_refused",
    "key_device_locked_out",
    "key_policy_mismatch",
    "key_integrity_failed",
    "key_not_in_device",
)
def _device_refuses(pair: Pair) -> None:
    uri = f"{emulated.SCHEME}:{pair.folder / 'hardware'}"
    Node.create(pair.folder / "hard", name="hard", suite=3, provider=uri).close()
    for error in (
        errors.AuthFailedError,
        errors.LockedOutError,
        errors.PolicyMismatchError,
        errors.IntegrityFailedError,
        errors.KeyNotFoundError,
    ):
        emulated.fail_next("unseal", error("refused", native="0x98e"))
        refused(lambda: Node.open(pair.folder / "hard"))


@causes("refused_custody_too_low")
def _custody(pair: Pair) -> None:
    sealed = Policy(min_custody=Custody.SEALED)
    refused(lambda: make(pair.folder, "sealed", 3, sealed))


@causes("state_counter_rollback")
def _put_back(pair: Pair) -> None:
    uri, state = f"{emulated.SCHEME}:{pair.folder / 'hardware'}", pair.folder / "hard"
    Node.create(state, name="hard", suite=3, provider=uri).close()
    shutil.copytree(state, pair.folder / "copy")
    Node.open(state).close()
    refused(lambda: Node.open(pair.folder / "copy"))


def in_process_that_may_not_lock_memory() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    Node.open(".").close()


@causes("memory_lock_limited")
def _no_memory_to_lock(pair: Pair) -> None:
    pair.plc.close()
    # Root has no such limit, unless it is taken away.
    limited = ["setpriv", "--bounding-set=-ipc_lock"] if os.getuid() == 0 else []
    in_process(in_process_that_may_not_lock_memory, plc_folder(pair), *limited)


# Peers


@causes("peer_pending", "peer_pending_seen", "peer_pending_dropped")
def _wait(pair: Pair) -> None:
    pair.plc.policy = Policy(max_pending=1)
    first, second = Foreign(3, "press"), Foreign(3, "oven")
    for device in (first, first, second):
        pair.plc.peers.add(device.bundle(), transport="mqtt")


@causes("peer_added")
def _add(pair: Pair) -> None:
    pair.plc.peers.add_approved(Foreign(3, "press").bundle())


@causes("peer_approved")
def _approve(pair: Pair) -> None:
    pair.plc.peers.add(Foreign(3, "press").bundle())
    pair.plc.peers.approve("press")


@causes("peer_pinned")
def _tofu(pair: Pair) -> None:
    pair.plc.policy = Policy(trust=Trust.TOFU)
    with pytest.warns(TofuWarning):
        pair.plc.peers.add(Foreign(3, "press").bundle(), transport="mqtt")


@causes("peer_rotated")
def _peer_rotates(pair: Pair) -> None:
    pair.plc.peers.add(pair.sensor.rotate(), transport="mqtt")


@causes("peer_revoked")
def _revoke(pair: Pair) -> None:
    pair.plc.peers.revoke("sensor")


@causes("peer_witnessed", "checkpoint_cosigned", "checkpoint_signed")
def _witness(pair: Pair) -> None:
    exchange(pair.sensor, pair.plc)


@causes("peer_history_changed", "witness_refused")
def _rewrite(pair: Pair) -> None:
    exchange(pair.sensor, pair.plc)
    pair.sensor.close()
    begin_another_log(pair.folder / "sensor")
    pair.sensor = Node.open(pair.folder / "sensor")
    exchange(pair.sensor, pair.plc)


@causes("peer_forgotten")
def _forget(pair: Pair) -> None:
    pair.plc.witness.forget("sensor")


# Refusals


@causes("refused_invalid_frame")
def _junk(pair: Pair) -> None:
    refused(lambda: deliver(pair.plc, b"junk"))


@causes("refused_wrong_recipient")
def _another_device(pair: Pair) -> None:
    refused(lambda: deliver(pair.sensor, frame(pair)))


@causes("refused_invalid_bundle")
def _bad_bundle(pair: Pair) -> None:
    bundle = bytearray(pair.sensor.bundle.encoded)
    bundle[-1] ^= 1
    refused(lambda: pair.plc.peers.add(bytes(bundle), transport="mqtt"))


@causes("refused_authentication_failed")
def _forged(pair: Pair) -> None:
    altered = bytearray(frame(pair))
    altered[-1] ^= 1
    refused(lambda: deliver(pair.plc, bytes(altered)))


@causes("refused_unknown_peer")
def _stranger(pair: Pair) -> None:
    with make(pair.folder, "stranger") as stranger:
        stranger.peers.add_approved(pair.plc.bundle)
        unknown = stranger.seal(PAYLOAD, to="plc", context=CONTEXT)
        refused(lambda: stranger.seal(PAYLOAD, to="nobody"))
    refused(lambda: deliver(pair.plc, unknown))


@causes("refused_revoked_peer")
def _revoked(pair: Pair) -> None:
    sealed = frame(pair)
    pair.plc.peers.revoke("sensor")
    refused(lambda: deliver(pair.plc, sealed))
    refused(lambda: pair.plc.seal(PAYLOAD, to="sensor"))


@causes("refused_replay")
def _replay(pair: Pair) -> None:
    old, new = frame(pair), frame(pair)
    deliver(pair.plc, new)
    refused(lambda: deliver(pair.plc, old))


@causes("refused_duplicate")
def _again(pair: Pair) -> None:
    same = frame(pair)
    deliver(pair.plc, same)
    refused(lambda: deliver(pair.plc, same))


@causes("refused_policy")
def _forbidden(pair: Pair) -> None:
    sealed = frame(pair)
    pair.plc.policy = Policy(suites="cnsa2")
    refused(lambda: deliver(pair.plc, sealed))


@causes("refused_peer_key_changed")
def _other_keys(pair: Pair) -> None:
    refused(lambda: pair.plc.peers.add(Foreign(3, "sensor").bundle(), transport="mqtt"))
