"""No event exists only on paper: each one of the catalogue is caused, through the public face
or from outside, with every field that it may have; and none of them tells a secret."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import emulated
from devices import PLAINTEXT, Pair, make
from foreign import Foreign
from pqc_iiot import Incoming, Node, Policy, _core, errors, sinks
from pqc_iiot.audit import EVENTS, AuditRecord, tail
from pqc_iiot.audit.formats import FORMATS
from pqc_iiot.audit.segments import Retention
from pqc_iiot.audit.sinks import SETTINGS_FILE, AuditSettings, SinkConfig
from pqc_iiot.errors import PqcIiotError, UnknownPeerError
from pqc_iiot.keystore import TofuWarning
from pqc_iiot.policy import Trust
from pqc_iiot.providers import Custody
from pqc_iiot.providers.passphrase import from_file
from test_sessions import pump
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
    """Runs a function of this file in a process of its own, in a device's folder."""
    call = f"test_audit_events.{function.__name__}()"
    subprocess.run(
        [*wrapper, sys.executable, "-c", f"import test_audit_events; {call}"],
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


# State


def open_refused(pair: Pair, harm: Callable[[Path], object]) -> None:
    pair.plc.close()
    harm(plc_folder(pair))
    refused(lambda: Node.open(plc_folder(pair)))


@causes("state_missing")
def _missing(pair: Pair) -> None:
    def harm(folder: Path) -> None:
        (folder / "anchor").unlink()
        (folder / "anchor").mkdir(0o700)

    open_refused(pair, harm)


@causes("state_unsafe_permissions")
def _readable(pair: Pair) -> None:
    open_refused(pair, lambda folder: (folder / "identity").chmod(0o644))


@causes("state_tampered")
def _tampered(pair: Pair) -> None:
    open_refused(pair, lambda folder: (folder / "anchor").write_bytes(b""))


@causes("state_rollback")
def _rollback(pair: Pair) -> None:
    def harm(folder: Path) -> None:
        old = (folder / "state.db").read_bytes()
        with Node.open(folder):
            pass
        (folder / "state.db").write_bytes(old)

    open_refused(pair, harm)


@causes("state_recovered")
def _recover(pair: Pair) -> None:
    pair.plc.close()
    pair.plc = Node.recover(plc_folder(pair))


# The log itself


def settle(pair: Pair, *configured: SinkConfig, heartbeat: int = 0, **bounds: int) -> None:
    """Gives the controller another `audit.json` and opens it again."""
    pair.plc.close()
    settings = AuditSettings(configured, heartbeat, Retention(**bounds))
    file = plc_folder(pair) / SETTINGS_FILE
    file.write_bytes(settings.encode())
    file.chmod(0o600)
    pair.plc = Node.open(plc_folder(pair))


def until(node: Node, event: str) -> None:
    """Waits until an event stands in the log."""
    seq = -1
    for _ in range(TIME_LIMIT * 2):
        path = node.audit._path
        if any(record.event == event for record in tail(path, 1000)):
            return
        seq = node.audit.durable(seq, 0.5).seq
    raise AssertionError(f"no {event}")


def chatter(node: Node, count: int) -> None:
    """Operators' events in any number: nothing limits those."""
    for _ in range(count):
        node.witness.forget("x" * 256)


@causes("audit_rotated", "audit_expired")
def _rotated(pair: Pair) -> None:
    settle(pair, file_bytes=64 * 1024, closed_files=1)
    for _ in range(3):
        chatter(pair.plc, 150)
        assert pair.plc.audit.flush()


@causes("audit_torn_tail")
def _torn(pair: Pair) -> None:
    pair.plc.close()
    with (plc_folder(pair) / "audit.log").open("ab") as file:
        file.write(b'{"v":1,"seq":')
    pair.plc = Node.open(plc_folder(pair))


@causes("audit_head_mismatch")
def _cut(pair: Pair) -> None:
    pair.plc.close()
    log = plc_folder(pair) / "audit.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    pair.plc = Node.open(plc_folder(pair))


def in_process_on_a_full_disk() -> None:
    with Node.open(".") as node:
        assert node.audit.flush()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path("audit.log").stat().st_size, limits[1]))
        while not node.audit.stats().dropped:
            chatter(node, 1000)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert node.audit.flush(TIME_LIMIT)


@causes("audit_recovered", "events_dropped")
def _full_disk(pair: Pair) -> None:
    pair.plc.close()
    in_process(in_process_on_a_full_disk, plc_folder(pair))


@causes("events_suppressed")
def _flood(pair: Pair) -> None:
    for _ in range(200):
        refused(lambda: deliver(pair.plc, b"junk"))
    pair.plc.close()


@causes("checkpoint_refused")
def _another_log(pair: Pair) -> None:
    pair.plc.close()
    for name in ("audit.log", "audit.head"):
        (plc_folder(pair) / name).unlink()
    pair.plc = Node.open(plc_folder(pair))


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers every batch with the server's `status`."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(vars(self.server)["status"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def receiver(pair: Pair, status: int) -> Iterator[dict[str, Any]]:
    """A sink of the controller, and a receiver for it, whose `status` can be changed."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        vars(server)["status"] = status
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        settle(pair, SinkConfig("siem", f"otlp+http://127.0.0.1:{server.server_port}"))
        try:
            yield vars(server)
            pair.plc.close()
        finally:
            server.shutdown()
            thread.join()


@causes("sink_failed", "sink_recovered")
def _outage(pair: Pair) -> None:
    with receiver(pair, 503) as server:
        until(pair.plc, "sink_failed")
        server["status"] = 200
        until(pair.plc, "sink_recovered")


@causes("sink_lost")
def _unusable(pair: Pair) -> None:
    with receiver(pair, 400):
        until(pair.plc, "sink_lost")


@causes("sink_added", "sink_removed", "sink_test")
def _sinks(pair: Pair) -> None:
    pair.plc.close()
    sinks.add_sink(plc_folder(pair), SinkConfig("file", f"file://{pair.folder}/copy.log"))
    sinks.check_sinks(plc_folder(pair))
    sinks.remove_sink(plc_folder(pair), "file")


@causes("backup_made", "state_restored", "refused_cloned_identity")
def _restore(pair: Pair) -> None:
    file = pair.folder / "passphrase"
    file.touch(0o600)
    file.write_bytes(PASSPHRASE)
    secret = from_file(file)
    data = pair.plc.backup(secret)
    with Node.restore(pair.folder / "restored", data, secret, provider=PLAINTEXT) as restored:
        refused(lambda: pair.plc.peers.add(restored.bundle.encoded, transport="mqtt"))
    shutil.copytree(plc_folder(pair), pair.folder / "clone")
    with Node.open(pair.folder / "clone") as clone:
        record = clone.presence.record()
    refused(lambda: pair.plc.presence.take(record, transport="mqtt"))


@causes("state_copied")
def _copy(pair: Pair) -> None:
    pair.plc.close()
    shutil.copytree(plc_folder(pair), pair.folder / "copied")
    Node.open(pair.folder / "copied").close()


@causes("outbox_refused", "outbox_expired")
def _outbox(pair: Pair) -> None:
    outbox = pair.plc.outbox
    outbox.give_up(outbox.put(PAYLOAD, to="sensor", context=CONTEXT), UnknownPeerError("gone"))
    outbox.put(PAYLOAD, to="sensor", context=CONTEXT)
    pair.plc.policy = Policy(outbox_age=1)
    while not outbox.expire():
        threading.Event().wait(0.05)


@causes("inbox_dropped")
def _drop(pair: Pair) -> None:
    pair.plc.open_many([Incoming(frame(pair), CONTEXT)], durable=True)
    pair.plc.inbox.drop(*pair.plc.inbox.messages())


@causes("audit_heartbeat")
def _beat(pair: Pair) -> None:
    settle(pair, SinkConfig("file", f"file://{pair.folder}/copy.log"), heartbeat=1)
    until(pair.plc, "audit_heartbeat")


@causes("session_established", "session_ended", "messages_lost")
def _revoked_in_mid_session(pair: Pair) -> None:
    pair.sensor.sessions.send(0.0, PAYLOAD, to="plc", context=CONTEXT)
    pump(pair.sensor, pair.plc, 0.0)
    pair.sensor.peers.revoke("plc")
    pair.sensor.sessions.take()


def in_process_flooded_after_a_failed_self_test() -> None:
    node, sealed = Node.open("."), Path("frame").read_bytes()
    _core.fail_closed()
    for _ in range(300):
        refused(lambda: node.open(sealed))
    refused(node.close)


def test_frames_at_a_device_that_failed_its_self_test_do_not_fill_its_log(pair: Pair) -> None:
    (plc_folder(pair) / "frame").write_bytes(frame(pair))
    (plc_folder(pair) / "frame").chmod(0o600)
    pair.plc.close()
    in_process(in_process_flooded_after_a_failed_self_test, plc_folder(pair))
    found = tail(plc_folder(pair) / "audit.log", 1000)
    failed = [record for record in found if record.event == "self_test_failed"]
    assert 100 <= len(failed) < 110
    (summary,) = [record for record in found if record.event == "events_suppressed"]
    assert summary.detail["suppressed"] == "self_test_failed"
    assert summary.detail["count"] == 300 - len(failed)


# All of them


def lines(folder: Path) -> dict[str, AuditRecord]:
    """Every record of every device in a folder, by its line."""
    logs = [path for path in folder.rglob("audit*.log") if path.is_file()]
    records = [record for log in logs for record in tail(log, 1_000_000)]
    return {record.encode().decode(): record for record in records}


def test_every_event_has_a_cause() -> None:
    assert CAUSES.keys() == EVENTS.keys()


def spellings(secret: bytes) -> list[str]:
    """How a secret might stand in a text."""
    encoded = base64.b64encode(secret).decode().rstrip("=")[:-1]
    return [secret.decode("latin-1"), secret.hex(), encoded, repr(secret)[2:-1]]


@pytest.mark.parametrize("cause", dict.fromkeys(CAUSES.values()), ids=lambda each: each.__name__)
def test_it_is_recorded_whole_and_tells_no_secret(cause: Cause, pair: Pair) -> None:
    keys = pair.sensor.bundle, pair.plc.bundle
    before = lines(pair.folder)
    cause(pair)
    pair.close()
    found = [record for line, record in lines(pair.folder).items() if line not in before]
    for event in (name for name, own in CAUSES.items() if own is cause):
        records = [record for record in found if record.event == event]
        assert records, f"{event} was not recorded"
        fields = {name for record in records for name in record.detail}
        assert fields == set(EVENTS[event].fields), event

    secrets = [PAYLOAD, PASSPHRASE, *(key.sig_public_key[:24] for key in keys)]
    secrets += [key.kem_public_key[:24] for key in keys]
    said = "\n".join(format_(record) for format_ in FORMATS.values() for record in found)
    said += "".join(path.read_text() for path in pair.folder.glob("copy*.log"))
    for secret in secrets:
        assert not any(spelling in said for spelling in spellings(secret))
