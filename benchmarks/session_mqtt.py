"""64-byte messages, publisher -> mosquitto -> subscriber, at QoS 0: our own client without
protection, the same through a session, and plain aiomqtt.

Publisher, broker and subscriber are a process each, on the cores there are. The clock runs
from the first message published to the last one received. The rounds alternate, so that a
busy moment is nobody's own; each ratio is of one round. The CPU time of both clients is from
when both were ready: start-up and handshake are not in it.

Where the time goes: the broker fills one core and sets the rate; both clients share the other.
A session costs them about 2 µs for a message together, Python's bookkeeping for the most part,
which fits into what the broker leaves. The subscriber's own time falls where it has to wait
less often.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pqc_iiot import Node
from pqc_iiot.bench import Row, row
from pqc_iiot.transports.bus import Bus
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

HOST, TOPIC, PAYLOAD = "127.0.0.1", "plant/line1/temperature", bytes(64)
MESSAGES, ROUNDS = 60_000, 7
PROVIDER = "software:insecure-plaintext-keys"

Side = Callable[[], Awaitable[None]]


def go() -> tuple[float, float]:
    """Tells the parent that this side is ready; the time, and CPU time, when both are."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.monotonic(), time.process_time()


def transport(port: int) -> MqttTransport:
    return MqttTransport(MqttOptions(f"mqtt://{HOST}:{port}"))


async def plain_pub(port: int, folder: Path) -> tuple[float, float]:
    async with transport(port) as client:
        begin = go()
        for _ in range(MESSAGES):
            await client.publish(TOPIC, PAYLOAD, qos=0)
        return begin


async def plain_sub(port: int, folder: Path) -> tuple[float, float]:
    async with transport(port) as client:
        await client.subscribe(TOPIC, qos=0)
        _, cpu = go()
        left = MESSAGES
        while left:
            left -= len(await client.receive())
        return time.monotonic(), cpu


async def session_pub(port: int, folder: Path) -> tuple[float, float]:
    with Node.open(folder / "pub") as node:
        async with Bus(node, transport(port)) as bus:
            # The subscriber's first frame; then the session is there.
            await bus.send("sub", TOPIC, b"")
            until = time.monotonic() + 10
            while not node.sessions.ready("sub"):
                if time.monotonic() > until:
                    raise RuntimeError("no session")
                await asyncio.sleep(0.001)
            begin = go()
            for _ in range(MESSAGES):
                if not await bus.send("sub", TOPIC, PAYLOAD, qos=0):
                    raise RuntimeError("not through the session")
            return begin


async def session_sub(port: int, folder: Path) -> tuple[float, float]:
    with Node.open(folder / "sub") as node:
        async with Bus(node, transport(port)) as bus, bus.listen(TOPIC, qos=0) as messages:
            print("listening", flush=True)
            await anext(messages)
            # In a thread: the handshake has to be answered meanwhile.
            _, cpu = await asyncio.get_running_loop().run_in_executor(None, go)
            left = MESSAGES
            while left:
                message = await anext(messages)
                left -= 1
            assert message.session
            return time.monotonic(), cpu


async def aiomqtt_pub(port: int, folder: Path) -> tuple[float, float]:
    import aiomqtt

    async with aiomqtt.Client(HOST, port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        begin = go()
        for _ in range(MESSAGES):
            await client.publish(TOPIC, PAYLOAD, 0)
        return begin


async def aiomqtt_sub(port: int, folder: Path) -> tuple[float, float]:
    import aiomqtt

    async with aiomqtt.Client(HOST, port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(TOPIC, 0)
        _, cpu = go()
        left = MESSAGES
        async for _ in client.messages:
            left -= 1
            if not left:
                break
        return time.monotonic(), cpu


def play(client: str, role: str, port: int, folder: Path, count: int) -> None:
    """One side, in a process of its own."""
    global MESSAGES  # noqa: PLW0603 - this process is for nothing else
    MESSAGES = count
    when, cpu = asyncio.run(globals()[f"{client}_{role}"](port, folder))
    print(json.dumps([when, time.process_time() - cpu]), flush=True)


def measure(client: str, port: int, folder: Path, count: int) -> tuple[float, float, float]:
    """Messages a second, and CPU microseconds a message of publisher and subscriber."""

    def start(role: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.session_mqtt", client, role]
        return subprocess.Popen(
            [*command, str(port), str(folder), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def expect(side: subprocess.Popen[str], word: str) -> None:
        assert side.stdout is not None
        if side.stdout.readline() != f"{word}\n":
            raise RuntimeError("a side did not start")

    sides = [start("sub")]
    try:
        expect(sides[0], "listening" if client == "session" else "ready")
        sides.append(start("pub"))
        expect(sides[1], "ready")
        if client == "session":
            expect(sides[0], "ready")
        answers = []
        for side in sides:
            assert side.stdin is not None
            side.stdin.write("go\n")
            side.stdin.flush()
        answers = [json.loads(side.communicate(timeout=60)[0]) for side in sides]
    finally:
        for side in sides:
            side.kill()
            side.communicate()
    (ended, sub_cpu), (started, pub_cpu) = answers
    return count / (ended - started), pub_cpu * 1e6 / count, sub_cpu * 1e6 / count


def _await(port: int) -> None:
    """Returns when somebody listens."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            socket.create_connection((HOST, port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError("the broker did not start")


def measure_mqtt(_: Path | None = None, rounds: int = ROUNDS, count: int = MESSAGES) -> list[Row]:
    """Rates and ratios of all clients that are installed; mosquitto has to be."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        raise SystemExit("mosquitto is missing: apt-get install mosquitto")
    clients = ["plain", "session"] + ["aiomqtt"] * (find_spec("aiomqtt") is not None)
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mosquitto.conf").write_text(
            f"listener {port} {HOST}\nallow_anonymous true\nlog_type none\n"
            "max_queued_messages 0\nset_tcp_nodelay true\n"
        )
        with (
            Node.create(folder / "pub", name="pub", provider=PROVIDER) as pub,
            Node.create(folder / "sub", name="sub", provider=PROVIDER) as sub,
        ):
            pub.peers.add_approved(sub.bundle)
            sub.peers.add_approved(pub.bundle)
        one = os.sched_getaffinity(0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # three processes, all cores
        broker = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")])
        try:
            _await(port)
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in clients}
            for at in range(rounds):
                for client in clients if at % 2 else clients[::-1]:
                    few = count // 6 if client == "aiomqtt" else count
                    found[client].append(measure(client, port, folder, few))
        finally:
            broker.terminate()
            broker.wait()
            os.sched_setaffinity(0, one)
    rows = []
    names = {"plain": "our client, unprotected", "session": "the same, through a session"}
    for client in clients:
        rates, pubs, subs = zip(*found[client], strict=True)
        what = f"64 B over mosquitto, QoS 0, {names.get(client, client)}"
        rows.append(row(what, list(rates), "1/s"))
        rows.append(row("  … CPU of its publisher, a message", list(pubs), "µs"))
        rows.append(row("  … CPU of its subscriber, a message", list(subs), "µs"))
        if client == "session":
            pairs = zip(rates, found["plain"], strict=True)
            ratios = [rate / base[0] for rate, base in pairs]
            rows.append(row("  … against the same client unprotected", ratios, "x", (">=", 0.95)))
        if client == "aiomqtt":
            pairs = zip(found["session"], rates, strict=True)
            ratios = [ours[0] / rate for ours, rate in pairs]
            version = f"aiomqtt {metadata.version('aiomqtt')}"
            rows.append(row("protected, against plain aiomqtt", ratios, "x", (">=", 3), version))
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 6:
        play(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
    else:
        from pqc_iiot.bench import noise, report

        raise SystemExit(report(measure_mqtt(), noise(), 0, json=False))
