"""What really causes the events of the catalogue: of the device's state, its log, its queues and
sessions."""

from __future__ import annotations

import contextlib
import http.server
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from devices import PLAINTEXT, Pair
from event_causes import (
    CONTEXT,
    PASSPHRASE,
    PAYLOAD,
    TIME_LIMIT,
    causes,
    deliver,
    frame,
    in_process,
    plc_folder,
    refused,
)
from pqc_iiot import Incoming, Node, Policy, sinks
from pqc_iiot.audit import tail
from pqc_iiot.audit.segments import Retention
from pqc_iiot.audit.sinks import SETTINGS_FILE, AuditSettings, SinkConfig
from pqc_iiot.errors import UnknownPeerError
from pqc_iiot.providers.passphrase import from_file
from test_sessions import pump

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
