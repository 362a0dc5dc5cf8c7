"""A long run: durable messages through a real mosquitto while sender, receiver and broker are
ended at random moments: `python -m benchmarks.soak [MESSAGES] [--restarts SECONDS]`.

Sender and receiver are processes of their own, ended by SIGKILL. The broker is ended by
SIGTERM, upon which mosquitto writes down what it has promised to deliver. With
`--kill-broker` it gets SIGKILL, and then what it had acknowledged and not yet delivered is
lost with it: QoS 1 ends at the broker. Such messages are counted, not explained away. With
`--save-always` it writes down everything after every change, slowly, and keeps it.

What is accounted for: each message carries the life of its sender and its number there. The
sender notes each one after `send` has accepted it; the receiver notes each one that it was
given, and each batch that it has acknowledged. In the end every accepted message was given,
no message was given again after it had been acknowledged, and nothing was given that was not
sent. Memory is that of `VmRSS`; the last third of the run has no restarts, so that it shows
whether a process grows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pqc_iiot import Message, Node, Policy, TransportError
from pqc_iiot.audit import verify
from pqc_iiot.audit.search import Query, search
from pqc_iiot.transports.bus import Bus

TOPIC = "soak/readings"
SIZE = 64
"""Bytes of a payload."""
BATCH = 256
"""Messages in the hands of the sender at once, and acknowledged together at the receiver."""
PATIENCE = 60.0
"""Seconds without any progress after which a run is given up."""

_ENTRY = struct.Struct(">cIQ")  # what, life, number
_POLICY = Policy(inbox_messages=4 * BATCH, outbox_messages=8 * BATCH)
"""Small queues, so that they are full at times and memory is bounded by little."""
_PLAINTEXT = "software:insecure-plaintext-keys"


@dataclass
class Report:
    """What became of a run. `unheard` were accepted while the sender was ended before it
    could note it; `lost` are accepted messages that never came; `again` were given a second
    time because they had not been acknowledged, and `repeated` although they had."""

    messages: int = 0
    given: int = 0
    again: int = 0
    repeated: int = 0
    lost: int = 0
    unheard: int = 0
    unsent: int = 0
    restarts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    rss: dict[str, list[int]] = field(default_factory=dict)
    """KiB of each process: when it had warmed up, when the part without restarts had begun, at
    the end of it, and the greatest. An opening that reads a journal leaves its mark."""
    refusals: dict[str, int] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    logs_ok: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything is accounted for."""
        return not (self.lost or self.repeated or self.unsent) and self.logs_ok


class Notes:
    """Entries in a file that outlives the process which wrote them."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, what: bytes, life: int = 0, number: int = 0) -> None:
        """One entry, at once or not at all."""
        os.write(self._fd, _ENTRY.pack(what, life, number))


def entries(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """What was noted."""
    data = path.read_bytes() if path.exists() else b""
    yield from _ENTRY.iter_unpack(data[: len(data) - len(data) % _ENTRY.size])


# The processes


async def send(folder: Path, url: str, target: int) -> None:
    """Sends until `target` messages were accepted, in all lives together."""
    noted = list(entries(folder / "sent"))
    life = 1 + sum(what == b"L" for what, _, _ in noted)
    left = target - sum(what == b"S" for what, _, _ in noted)
    del noted
    notes = Notes(folder / "sent")
    notes.write(b"L", life)
    with Node.open(folder / "sender") as node:
        async with connected(node, url, "soak-sender") as bus:
            numbers = iter(range(left))

            async def work() -> None:
                for number in numbers:
                    payload = struct.pack(">IQ", life, number).ljust(SIZE, b".")
                    await bus.send("receiver", TOPIC, payload, durable=True)
                    notes.write(b"S", life, number)

            await asyncio.gather(*(work() for _ in range(BATCH)))
            await bus.drained()
    notes.write(b"E", life)


async def receive(folder: Path, url: str) -> None:
    """Takes messages until it is ended."""
    notes = Notes(folder / "given")
    notes.write(b"L")
    taken: list[Message] = []
    with Node.open(folder / "receiver") as node:
        async with connected(node, url, "soak-receiver") as bus:
            messages = bus.listen(TOPIC, durable=True)
            await messages.ready()
            notes.write(b"R")
            async for message in messages:
                life, number = struct.unpack_from(">IQ", message.payload)
                notes.write(b"G", life, number)
                taken.append(message)
                if len(taken) == BATCH:
                    await bus.acknowledge(*taken)
                    notes.write(b"A")  # everything given so far in this life
                    taken.clear()


@contextlib.asynccontextmanager
async def connected(node: Node, url: str, client_id: str) -> AsyncIterator[Bus]:
    """A bus, as soon as there is a broker."""
    async with contextlib.AsyncExitStack() as stack:
        bus = None
        while bus is None:
            bus = node.mqtt(url, client_id=client_id, session_expiry=86400, max_reconnect_delay=1)
            try:
                await stack.enter_async_context(bus)
            except TransportError:
                bus = None
                await asyncio.sleep(0.2)
        yield bus


# The supervisor


class Run:
    """One run in a folder."""

    def __init__(
        self, folder: Path, messages: int, restarts: float, kill_broker: bool, save_always: bool
    ) -> None:
        self._folder, self._messages, self._every = folder, messages, restarts
        self._saving = ("autosave_on_changes true", "autosave_interval 1") if save_always else ()
        self._broker_signal = signal.SIGKILL if kill_broker else signal.SIGTERM
        self._random = random.Random(messages)
        self.report = Report(messages=messages)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self._make_devices()

    def _make_devices(self) -> None:
        with self._make_device("sender") as sender, self._make_device("receiver") as receiver:
            sender.peers.add_approved(receiver.bundle)
            receiver.peers.add_approved(sender.bundle)
        lines = (
            f"user {getpass.getuser()}",
            f"listener {self._port} 127.0.0.1",
            "allow_anonymous true",
            "log_dest none",
            "max_inflight_messages 1000",
            "max_queued_messages 0",
            "persistence true",
            f"persistence_location {self._folder}/",
            *self._saving,
        )
        (self._folder / "mosquitto.conf").write_text("\n".join((*lines, "")))

    def _make_device(self, name: str) -> Node:
        return Node.create(self._folder / name, name=name, provider=_PLAINTEXT, policy=_POLICY)

    def start(self, name: str) -> None:
        """Starts one of the three."""
        broker = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if broker is None:
            sys.exit("mosquitto is missing: apt-get install mosquitto")
        if name == "broker":
            command = [broker, "-c", str(self._folder / "mosquitto.conf")]
        else:
            url = f"mqtt://127.0.0.1:{self._port}"
            command = [sys.executable, __file__, name, str(self._folder), url]
            command.append(str(self._messages))
        self._processes[name] = subprocess.Popen(command)

    def restart(self, name: str) -> None:
        """Ends one of them without warning, waits for a moment, and starts it again."""
        process = self._processes[name]
        process.send_signal(self._broker_signal if name == "broker" else signal.SIGKILL)
        process.wait()
        self.report.restarts[name] = self.report.restarts.get(name, 0) + 1
        time.sleep(self._random.uniform(0, 0.5))
        self.start(name)

    def run(self) -> Report:
        """Until every message has come, or nothing comes any more."""
        begin = time.monotonic()
        try:
            for name in ("broker", "receiver"):
                self.start(name)
            # What is sent before somebody has subscribed is for nobody.
            while not any(what == b"R" for what, _, _ in entries(self._folder / "given")):
                time.sleep(0.05)
            self.start("sender")
            self._supervise()
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()
        self.report.seconds = time.monotonic() - begin
        self._account()
        return self.report

    def _supervise(self) -> None:
        given = self._folder / "given"
        moved = restarted = time.monotonic()
        before, wait = 0, self._random.expovariate(1 / self._every)
        while True:
            time.sleep(0.05)
            now = time.monotonic()
            size = given.stat().st_size // _ENTRY.size if given.exists() else 0
            if size != before:
                before, moved = size, now
            self._sample(size)
            if self._is_complete(idle=now - moved):
                return
            if now - moved > PATIENCE:
                return
            for name in ("sender", "receiver"):
                if self._processes[name].poll() not in (None, 0):
                    raise RuntimeError(f"the {name} ended by itself")
            if size < self._messages * 2 // 3 and now - restarted > wait:
                running = [name for name, each in self._processes.items() if each.poll() is None]
                self.restart(self._random.choice(running))
                restarted, wait = time.monotonic(), self._random.expovariate(1 / self._every)

    def _is_complete(self, idle: float) -> bool:
        """Whether the sender is done, and nothing was given for a second after that."""
        if self._processes["sender"].poll() is None or idle < 1:
            return False
        accepted = {(life, n) for what, life, n in entries(self._folder / "sent") if what == b"S"}
        got = {(life, n) for what, life, n in entries(self._folder / "given") if what == b"G"}
        return accepted <= got or idle > 10

    def _sample(self, size: int) -> None:
        for name, process in self._processes.items():
            rss = _rss(process.pid) if process.poll() is None else 0
            if rss and size > self._messages // 20:
                warm, quiet, _, most = self.report.rss.get(name, [rss, rss, rss, rss])
                if size < self._messages * 7 // 10:
                    quiet = rss
                self.report.rss[name] = [warm, quiet, rss, max(most, rss)]

    def _account(self) -> None:
        report = self.report
        accepted: set[tuple[int, int]] = set()
        lives = 0
        for what, life, number in entries(self._folder / "sent"):
            lives += what == b"L"
            if what == b"S":
                accepted.add((life, number))
        given: set[tuple[int, int]] = set()
        open_: set[tuple[int, int]] = set()  # given and not yet acknowledged
        for what, life, number in entries(self._folder / "given"):
            if what == b"A":
                open_.clear()
            elif what == b"G":
                if (life, number) in given:
                    report.again += 1
                    report.repeated += (life, number) not in open_
                given.add((life, number))
                open_.add((life, number))
                report.unsent += not 1 <= life <= lives
        report.given = len(given)
        report.lost = len(accepted - given)
        report.unheard = len(given - accepted)
        report.logs_ok = all(
            verify(self._folder / name / "audit.log").problem_count == 0
            for name in ("sender", "receiver")
        )
        self._look_inside()

    def _look_inside(self) -> None:
        for name in ("sender", "receiver"):
            with Node.open(self._folder / name) as node:
                queues = node.status().queues
                self.report.queues[f"{name} inbox"] = queues.inbox
                self.report.queues[f"{name} outbox"] = queues.outbox
        log = self._folder / "receiver" / "audit.log"
        refused = Counter(record.event for record in search(log, Query()) if record.reason)
        self.report.refusals = dict(refused)


def _rss(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line), 0)


def soak(
    folder: Path,
    messages: int,
    *,
    restarts: float = 20.0,
    kill_broker: bool = False,
    save_always: bool = False,
) -> Report:
    """Runs in an empty folder; `restarts` is the mean time between two, in seconds."""
    return Run(folder, messages, restarts, kill_broker, save_always).run()


def main(arguments: list[str]) -> int:
    """See the top of this file."""
    if arguments[:1] == ["sender"]:
        asyncio.run(send(Path(arguments[1]), arguments[2], int(arguments[3])))
        return 0
    if arguments[:1] == ["receiver"]:
        asyncio.run(receive(Path(arguments[1]), arguments[2]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("messages", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--restarts", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--kill-broker", action="store_true")
    parser.add_argument("--save-always", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pqc-iiot-soak-") as folder:
        report = soak(
            Path(folder),
            options.messages,
            restarts=options.restarts,
            kill_broker=options.kill_broker,
            save_always=options.save_always,
        )
    print(json.dumps(asdict(report) | {"ok": report.ok}, indent=2))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
