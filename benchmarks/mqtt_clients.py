"""MQTT clients for Python side by side: 64-byte messages, publisher -> mosquitto -> subscriber.

    python benchmarks/mqtt_clients.py [CLIENT ...]

Publisher, broker and subscriber are a process each. The clock runs from the first message
published to the last one received; at QoS 1 the publisher keeps 256 messages in flight, and
the subscriber acknowledges each message itself where its library lets it. Prints medians of
three runs of 30,000 messages, and the CPU time of both clients. Clients that are not installed
are skipped; versions and verdicts stand in docs/decisions/0003-mqtt-client.md.
"""

# Libraries with and without types, installed or not:
# mypy: ignore-errors

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import logging
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOPIC, PAYLOAD = "bench/t", bytes(64)
MESSAGES, RUNS, IN_FLIGHT = 30_000, 3, 256
HOST = "127.0.0.1"


def go() -> float:
    """Tell the parent that this side is ready; return the time when both are."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.monotonic()


async def publish_all(publish, qos: int) -> float:
    # For clients with a coroutine: one after the other, or `IN_FLIGHT` at a time.
    numbers = itertools.repeat(None, MESSAGES)

    async def work() -> None:
        for _ in numbers:
            await publish()

    started = go()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT if qos else 1)))
    return started


class Count:  # for clients with a callback
    def __init__(self) -> None:
        self.left = MESSAGES
        self.all = threading.Event()

    def __call__(self, *_: object, **__: object) -> int:
        self.left -= 1
        if not self.left:
            self.all.set()
        return 0


def ours(port: int, version: int):
    from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

    return MqttTransport(MqttOptions(f"mqtt://{HOST}:{port}", version=version))


async def ours_pub(port: int, version: int, qos: int) -> float:
    async with ours(port, version) as client:
        return await publish_all(lambda: client.publish(TOPIC, PAYLOAD, qos=qos), qos)


async def ours_sub(port: int, version: int, qos: int) -> float:
    async with ours(port, version) as client:
        await client.subscribe(TOPIC, qos=qos)
        go()
        left = MESSAGES
        while left:
            for delivery in await client.receive():
                delivery.ack()
                left -= 1
        return time.monotonic()


def paho(version: int):
    import paho.mqtt.client as mqtt

    api, level = mqtt.CallbackAPIVersion.VERSION2, mqtt.MQTTProtocolVersion(version)
    client = mqtt.Client(api, protocol=level, manual_ack=True)
    client.max_inflight_messages_set(IN_FLIGHT)
    loop = asyncio.get_running_loop()
    client.on_socket_open = lambda c, _u, sock: loop.add_reader(sock, c.loop_read)
    client.on_socket_close = lambda _c, _u, sock: loop.remove_reader(sock)
    client.on_socket_register_write = lambda c, _u, sock: loop.add_writer(sock, c.loop_write)
    client.on_socket_unregister_write = lambda _c, _u, sock: loop.remove_writer(sock)
    return client


async def paho_pub(port: int, version: int, qos: int) -> float:
    client, places, connected = paho(version), asyncio.Semaphore(IN_FLIGHT), asyncio.Event()
    client.on_publish = lambda *_: places.release()
    client.on_connect = lambda *_: connected.set()
    client.connect(HOST, port)
    await connected.wait()
    started = go()
    for _ in range(MESSAGES):
        await places.acquire()
        client.publish(TOPIC, PAYLOAD, qos)
    for _ in range(IN_FLIGHT):
        await places.acquire()
    return started


async def paho_sub(port: int, version: int, qos: int) -> float:
    client, subscribed, inbox = paho(version), asyncio.Event(), asyncio.Queue()
    client.on_connect = lambda *_: client.subscribe(TOPIC, qos)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _c, _u, message: inbox.put_nowait(message)
    client.connect(HOST, port)
    await subscribed.wait()
    go()
    for _ in range(MESSAGES):
        message = await inbox.get()
        client.ack(message.mid, message.qos)
    return time.monotonic()


def aiomqtt(port: int, version: int):
    import aiomqtt

    logging.disable()
    level = aiomqtt.ProtocolVersion(version)
    return aiomqtt.Client(HOST, port, protocol=level, max_inflight_messages=IN_FLIGHT)


async def aiomqtt_pub(port: int, version: int, qos: int) -> float:
    async with aiomqtt(port, version) as client:
        return await publish_all(lambda: client.publish(TOPIC, PAYLOAD, qos), qos)


async def aiomqtt_sub(port: int, version: int, qos: int) -> float:
    async with aiomqtt(port, version) as client:
        await client.subscribe(TOPIC, qos)
        go()
        left = MESSAGES
        async for _ in client.messages:
            left -= 1
            if not left:
                break
        return time.monotonic()


async def gmqtt_pub(port: int, version: int, qos: int) -> float:
    import gmqtt
    from gmqtt.storage import PersistentStorage

    places = asyncio.Semaphore(IN_FLIGHT)  # all of them are free at QoS 0

    class Storage(PersistentStorage):
        def remove_message_by_mid(self, mid: int) -> None:
            super().remove_message_by_mid(mid)
            places.release()

    client = gmqtt.Client("publisher", persistent_storage=Storage())
    await client.connect(HOST, port, version=version)
    started = go()
    for number in range(MESSAGES):
        if qos:
            await places.acquire()
        elif number % 64 == 0:
            await asyncio.sleep(0)
        client.publish(TOPIC, PAYLOAD, qos)
    for _ in range(IN_FLIGHT):
        await places.acquire()
    await client.disconnect()
    return started


async def gmqtt_sub(port: int, version: int, qos: int) -> float:
    import gmqtt

    client, count = gmqtt.Client("subscriber", optimistic_acknowledgement=False), Count()
    subscribed = asyncio.Event()

    async def on_message(*_: object) -> int:
        return count()

    client.on_message = on_message if qos else count
    client.on_subscribe = lambda *_: subscribed.set()
    await client.connect(HOST, port, version=version)
    client.subscribe(TOPIC, qos)
    await subscribed.wait()
    go()
    while not count.all.is_set():
        await asyncio.sleep(0.001)
    return time.monotonic()


def awscrt(port: int, on_publish):
    from awscrt import mqtt5

    connected = threading.Event()
    options = mqtt5.ClientOptions(
        HOST,
        port,
        connect_options=mqtt5.ConnectPacket(client_id="s" if on_publish else "p"),
        on_lifecycle_event_connection_success_fn=lambda _: connected.set(),
        on_publish_callback_fn=on_publish,
        disable_metrics=True,
    )
    client = mqtt5.Client(options)
    client.start()
    connected.wait()
    return client


def awscrt_pub(port: int, version: int, qos: int) -> float:
    from awscrt import mqtt5

    if version != 5:
        raise NotImplementedError("no manual acknowledgement")
    client, places = awscrt(port, None), threading.Semaphore(IN_FLIGHT)
    started = go()
    for _ in range(MESSAGES):
        places.acquire()
        publishing = client.publish(mqtt5.PublishPacket(topic=TOPIC, payload=PAYLOAD, qos=qos))
        publishing.add_done_callback(lambda _: places.release())
    for _ in range(IN_FLIGHT):
        places.acquire()
    return started


def awscrt_sub(port: int, version: int, qos: int) -> float:
    from awscrt import mqtt5

    if version != 5:
        raise NotImplementedError("no manual acknowledgement")
    count = Count()

    def on_publish(data) -> None:
        if qos:
            handle = data.acquire_publish_acknowledgement_control()
            client.invoke_publish_acknowledgement(handle)
        count()

    client = awscrt(port, on_publish)
    subscription = mqtt5.Subscription(TOPIC, mqtt5.QoS(qos))
    client.subscribe(mqtt5.SubscribePacket([subscription])).result()
    go()
    count.all.wait()
    return time.monotonic()


async def zmqtt_pub(port: int, version: int, qos: int) -> float:
    import zmqtt

    level = zmqtt.QoS(qos)
    async with zmqtt.create_client(HOST, port, version=spelled(version)) as client:
        return await publish_all(lambda: client.publish(TOPIC, PAYLOAD, qos=level), qos)


async def zmqtt_sub(port: int, version: int, qos: int) -> float:
    import zmqtt

    async with (
        zmqtt.create_client(HOST, port, version=spelled(version)) as client,
        client.subscribe(TOPIC, qos=zmqtt.QoS(qos), auto_ack=False) as messages,
    ):
        go()
        for _ in range(MESSAGES):
            await (await messages.get_message()).ack()
        return time.monotonic()


def mqttium(version: int):
    from mqttium import MQTTProtocolVersion
    from mqttium.api import AsyncClient

    return AsyncClient(protocol=MQTTProtocolVersion(version), manual_ack=True)


async def mqttium_pub(port: int, version: int, qos: int) -> float:
    client = mqttium(version)
    await client.connect(HOST, port)

    async def publish() -> None:
        receipt = await client.publish(TOPIC, PAYLOAD, qos=qos)
        if qos:
            await receipt.wait()

    started = await publish_all(publish, qos)
    await client.disconnect()
    return started


async def mqttium_sub(port: int, version: int, qos: int) -> float:
    client = mqttium(version)
    await client.connect(HOST, port)
    await client.subscribe(TOPIC, qos=qos)
    go()
    left = MESSAGES
    async for message in client.messages():
        if qos:
            await client.ack(message)
        left -= 1
        if not left:
            break
    return time.monotonic()


CLIENTS = ("ours", "aiomqtt", "paho", "gmqtt", "awscrt", "zmqtt", "mqttium")


def spelled(version: int) -> str:
    return "5.0" if version == 5 else "3.1.1"


def play(client: str, role: str, port: int, version: int, qos: int) -> None:
    when = globals()[f"{client}_{role}"](port, version, qos)
    if inspect.iscoroutine(when):
        when = asyncio.run(when)
    print(json.dumps([when, time.process_time()]), flush=True)


def measure(client: str, port: int, version: int, qos: int) -> tuple[float, float, float]:
    """Messages a second, and CPU microseconds a message of publisher and subscriber."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    sides = []
    for role in ("sub", "pub"):
        arguments = [client, role, str(port), str(version), str(qos)]
        sides.append(subprocess.Popen([sys.executable, __file__, *arguments], text=True, **pipes))
    try:
        if any(side.stdout.readline() != "ready\n" for side in sides):
            raise RuntimeError("a side did not start")
        for side in sides:
            side.stdin.write("go\n")
            side.stdin.flush()
        answers = [json.loads(side.communicate(timeout=60)[0] or "[]") for side in sides]
    finally:
        for side in sides:
            side.kill()
            side.communicate()
    if not all(answers):
        raise RuntimeError("a side gave up")
    (ended, sub_cpu), (started, pub_cpu) = answers
    scale = 1e6 / MESSAGES
    return MESSAGES / (ended - started), pub_cpu * scale, sub_cpu * scale


def main(clients: list[str]) -> None:
    """Start a broker, and measure."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        sys.exit("mosquitto is missing: apt-get install mosquitto")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {port} {HOST}\nallow_anonymous true\nlog_type none\n"
            "max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
        )
        broker = subprocess.Popen([program, "-c", config])
        try:
            results = {}  # round after round, so that a busy moment is nobody's own
            for _ in range(RUNS):
                for qos, client, version in itertools.product((0, 1), clients, (5, 4)):
                    runs = results.setdefault((qos, client, version), [])
                    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                        runs.append(measure(client, port, version, qos))
        finally:
            broker.terminate()
            broker.wait()
    for (qos, client, version), runs in results.items():
        name = f"{client:8} {spelled(version):5} QoS {qos}"
        if not runs:
            print(f"{name}: not installed, or it cannot do this")
            continue
        rates, publisher, subscriber = zip(*runs, strict=True)
        print(
            f"{name} {statistics.median(rates):8,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f}); "
            f"CPU µs: publisher {statistics.median(publisher):.1f}, "
            f"subscriber {statistics.median(subscriber):.1f}"
        )


if __name__ == "__main__":
    if len(sys.argv) == 6:
        play(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main(sys.argv[1:] or list(CLIENTS))
