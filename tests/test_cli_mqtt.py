"""`send` and `listen` through a real mosquitto, as transcripts."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from brokers import Mosquitto, Start, payloads
from certificates import Authority
from command import PROGRAM, TIME_LIMIT, Result, environment, pqc, program, shell, words
from devices import copy, make
from pqc_iiot import Node
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

SESSION = "--client-id plc --session-expiry 600"


@pytest.fixture
def folder(devices: Path, tmp_path: Path) -> Path:
    copy(devices, tmp_path, "sensor", "plc")
    return tmp_path


@pytest.fixture
def broker(start: Start) -> Mosquitto:
    return start()


def sensor(folder: Path, broker: Mosquitto, line: str, stdin: bytes = b"") -> Result:
    """The sensor sends to the controller."""
    return pqc(f"--state {folder}/sensor send --to plc --broker {broker.url} {line}", stdin)


def plc(folder: Path, broker: Mosquitto, line: str) -> Result:
    """The controller listens to what the broker keeps for it."""
    listen = f"listen --broker {broker.url} {SESSION} --timeout {TIME_LIMIT}"
    return pqc(f"--state {folder}/plc {listen} {line}")


def subscribe(broker: Mosquitto, topic_filter: str, *publish: tuple[str, bytes]) -> None:
    """Lets the broker keep messages for the controller, and publishes some."""

    async def work() -> None:
        options = MqttOptions(broker.url, client_id="plc", session_expiry=600)
        async with MqttTransport(options) as transport:
            await transport.subscribe(topic_filter)
        async with MqttTransport(MqttOptions(broker.url)) as transport:
            for topic, payload in publish:
                await transport.publish(topic, payload)

    asyncio.run(work())


def test_from_device_to_device(folder: Path, broker: Mosquitto) -> None:
    subscribe(broker, "line1/#")
    sent = sensor(folder, broker, "--topic line1/temp 21.5")
    assert (sent.code, sent.out, sent.err) == (0, "", "1 sent to plc\n")
    piped = sensor(folder, broker, "--topic line1/raw --qos 2 --json", b"\x00\xff\n")
    assert (piped.data, piped.err) == ({"to": "plc", "topic": "line1/raw", "sent": 1}, "")
    received = plc(folder, broker, "--topic 'line1/#' --count 2 --json")
    assert received.code == 0
    first, second = received.lines
    fingerprint = pqc(f"--state {folder}/sensor id show --json").data["fingerprint"]
    assert first == {
        "sender": "sensor",
        "fingerprint": fingerprint,
        "topic": "line1/temp",
        "sequence": 1,
        "id": fingerprint[:16] + f"{1:016x}",
        "payload": "21.5",
        "encoding": "utf-8",
    }
    assert (second["topic"], second["encoding"]) == ("line1/raw", "base64")
    assert b64decode(second["payload"]) == b"\x00\xff\n"


def test_lines_for_people_obey_nothing_from_the_wire(folder: Path, broker: Mosquitto) -> None:
    subscribe(broker, "#")
    sensor(folder, broker, "--topic t", "21.5 °C\n\x1b[2J\x9b1m\u202e".encode())
    sensor(folder, broker, "--topic 'line\u202e1'", b"\xff\x1b[2J")
    received = plc(folder, broker, "--topic '#' --count 2")
    assert received.out == (
        "sensor  #1  t  21.5 °C\\n\\x1b[2J\\x9b1m\\u202e\n"
        "sensor  #1025  line\\u202e1  0xff1b5b324a (5 bytes)\n"
    )


def test_what_is_refused_is_told_and_stops_nothing(folder: Path, broker: Mosquitto) -> None:
    with (
        make(folder, "stranger") as stranger,
        Node.open(folder / "sensor") as node,
        Node.open(folder / "plc") as controller,
    ):
        stranger.peers.add_approved(controller.bundle)
        controller.peers.add(stranger.bundle)
        frame, forged = (node.seal(b"1", to="plc", context="t") for _ in range(2))
        unknown = [stranger.seal(b"x", to="plc", context="t") for _ in range(3)]
    subscribe(
        broker,
        "t",
        ("t", b"junk"),
        ("t", frame),
        ("t", frame),  # a redelivery: nothing to tell
        ("t", forged[:-1] + bytes([forged[-1] ^ 1])),
        *(("t", each) for each in unknown),  # told once
    )
    sensor(folder, broker, "--topic t 2")
    received = plc(folder, broker, "--topic t --count 2")
    assert (received.code, received.out) == (0, "sensor  #1  t  1\nsensor  #1025  t  2\n")
    told = re.findall(r"^warning: a frame on 't' was refused: (.*)$", received.err, re.M)
    assert len(told) == 3
    assert "not a frame" in told[0]
    assert told[1] == "authentication failed"
    assert re.match(r"stranger \([0-9a-f ]{79}\) waits for approval", told[2])
    hint = re.search(r"then: (pqc-iiot .* peer approve [0-9a-f]{64})$", received.err, re.M)
    assert hint
    assert shell(hint[1], folder).code == 0
    with Node.open(folder / "plc") as controller:
        assert controller.open(unknown[0], context="t").sender == "stranger"


def test_refusals_for_programs(folder: Path, broker: Mosquitto) -> None:
    subscribe(broker, "t", ("t", b"junk"))
    sensor(folder, broker, "--topic t 2")
    received = plc(folder, broker, "--topic t --count 1 --json")
    assert [line["payload"] for line in received.lines] == ["2"]
    (warning,) = received.messages
    assert warning["warning"] == "invalid_frame"


def test_lines_go_out_as_they_come(folder: Path, broker: Mosquitto) -> None:
    async def work() -> None:
        async with MqttTransport(MqttOptions(broker.url)) as spy:
            await spy.subscribe("t")
            line = f"--state {folder}/sensor send --to plc --topic t --line --broker {broker.url}"
            sender = await asyncio.create_subprocess_exec(
                PROGRAM,
                *words(line),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
            )
            assert sender.stdin is not None
            frames = []
            for piece in (b"1\r\n", b"2\n\n", b"no end"):
                sender.stdin.write(piece)
                if piece.endswith(b"\n"):
                    frames += await payloads(spy, piece.count(b"\n"))
            sender.stdin.close()
            frames += await payloads(spy, 1)
            _, said = await sender.communicate()
            assert (sender.returncode, said) == (0, b"4 sent to plc\n")
            with Node.open(folder / "plc") as node:
                opened = [node.open(frame, context="t").payload for frame in frames]
            assert opened == [b"1", b"2", b"", b"no end"]

    asyncio.run(asyncio.wait_for(work(), TIME_LIMIT))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_listener_ends_cleanly(
    folder: Path, broker: Mosquitto, number: signal.Signals, code: int
) -> None:
    sensor(folder, broker, "--topic t --retain 21.5")
    line = f"--state {folder}/plc listen --topic t --broker {broker.url}"
    with subprocess.Popen(
        [PROGRAM, *words(line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as listener:
        assert listener.stdout is not None
        assert listener.stderr is not None
        assert listener.stderr.readline() == "listening on t\n"
        assert listener.stdout.readline() == "sensor  #1  t  21.5\n"
        assert program(f"--state {folder}/plc status").code == 4
        listener.send_signal(number)
        assert listener.wait(TIME_LIMIT) == code
        assert listener.stderr.read() == ""
    assert pqc(f"--state {folder}/plc audit tail -n 1 --json").lines[0]["event"] == "stopped"


def test_announcements_only_ever_wait(folder: Path, broker: Mosquitto) -> None:
    make(folder, "new").close()
    shown = pqc(
        f"--state {folder}/new listen --announce --topic t --timeout 2 --broker {broker.url}"
    )
    assert (shown.code, shown.out) == (0, "")
    listen = f"--state {folder}/plc listen --announcements --topic t --timeout 1"
    waiting: list[dict[str, str]] = []
    while not waiting:  # A second may be too short.
        assert pqc(f"{listen} --broker {broker.url}").code == 0
        waiting = pqc(f"--state {folder}/plc peer pending --json").data
    assert [each["name"] for each in waiting] == ["new"]
    assert len(pqc(f"--state {folder}/plc peer list --json").data) == 1


def test_mutual_tls_with_a_password(start: Start, folder: Path) -> None:
    authority = Authority(folder, "ca")
    server, client = authority.issue("localhost"), authority.issue("plc")
    users, password = folder / "users", folder / "password"
    subprocess.run(["mosquitto_passwd", "-c", "-b", users, "line", "s3cret-pw"], check=True)
    password.write_text("s3cret-pw")
    password.chmod(0o600)
    broker = start(
        f"password_file {users}",
        f"cafile {authority.ca_file}",
        f"certfile {server[0]}",
        f"keyfile {server[1]}",
        "require_certificate true",
    )
    url = broker.tls_url.replace("//", "//line@")
    access = (
        f"--broker {url} --ca-file {authority.ca_file} --cert-file {client[0]}"
        f" --key-file {client[1]} --password-file {password} --mqtt-version 3.1.1"
    )
    sent = pqc(f"--state {folder}/sensor send --to plc --topic t --retain {access} 21.5")
    assert sent.code == 0
    received = pqc(f"--state {folder}/plc listen --topic t --count 1 {access}")
    assert received.out == "sensor  #1  t  21.5\n"
    password.write_text("wrong-pw")
    refused = pqc(f"--state {folder}/plc doctor --json {access}")
    assert refused.code == 1
    assert "s3cret-pw" not in sent.err + received.err + refused.out
    assert "wrong-pw" not in refused.out + refused.err
    refused = pqc(f"--state {folder}/plc listen --topic t {access}")
    assert refused.code == 1
    assert "--password-file" in refused.err


def test_too_few_messages_in_time(folder: Path, broker: Mosquitto) -> None:
    line = f"--state {folder}/plc listen --topic t --broker {broker.url} --timeout 0.5"
    late = pqc(f"{line} --count 1")
    assert (late.code, late.out) == (1, "")
    assert "error: 0 of 1 messages came within 0.5 seconds" in late.err
    assert pqc(line).code == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("send --to plc --topic a/+ x", 2),
        ("send --to plc --topic '' x", 2),
        ("send --to nobody --topic t x", 3),
        ("send --to plc x", 2),
        ("send --to plc --topic t --qos 3 x", 2),
        ("send --to plc --topic t --line x", 2),
        ("send --to plc --topic t --mqtt-version 4 x", 2),
        ("listen --topic 'a/#/b'", 2),
        ("listen", 2),
        ("listen --topic t --count 0", 2),
        ("listen --topic t --timeout -1", 2),
    ],
)
def test_what_cannot_be_sent_or_heard(
    folder: Path, broker: Mosquitto, line: str, code: int
) -> None:
    result = pqc(f"--state {folder}/sensor {line} --broker {broker.url}")
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")


@pytest.mark.parametrize(
    ("access", "code"),
    [
        ("--broker mqtt://127.0.0.1:1", 1),
        ("--broker http://127.0.0.1", 2),
        ("--broker mqtt://127.0.0.1:x", 2),
        ("--broker mqtt://user:secret-pw@127.0.0.1", 2),
        ("--broker mqtt://127.0.0.1 --ca-file /nonexistent", 2),
        ("--broker mqtt://127.0.0.1 --session-expiry 5", 2),
    ],
)
def test_brokers_that_cannot_be_reached(folder: Path, access: str, code: int) -> None:
    for command in ("send --to plc --topic t x", "listen --topic t"):
        result = pqc(f"--state {folder}/sensor {command} {access}")
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith("error: ")
        assert "secret-pw" not in result.err


def test_what_was_shown_is_not_shown_again_and_the_rest_is(folder: Path, broker: Mosquitto) -> None:
    subscribe(broker, "line1/#")
    for payload in "123":
        sensor(folder, broker, f"--topic line1/temp {payload}")
    first = plc(folder, broker, "--topic 'line1/#' --count 1")
    status = pqc(f"--state {folder}/plc status --json").data["queues"]
    second = plc(folder, broker, "--topic 'line1/#' --count 2")
    shown = [line.split()[-1] for line in (first.out + second.out).splitlines()]
    assert shown == ["1", "2", "3"], first.err + second.err
    assert status["inbox"] <= 2  # the broker has the others
    assert pqc(f"--state {folder}/plc status --json").data["queues"]["inbox"] == 0


def test_without_a_broker_durable_messages_wait(folder: Path, start: Start) -> None:
    broker = start()
    subscribe(broker, "line1/#")
    broker.stop()
    for number in (1, 2):
        kept = sensor(folder, broker, f"--topic line1/temp --durable {number}")
        assert (kept.code, kept.out) == (1, "")
        assert f"{number} wait in the outbox" in kept.err
    assert pqc(f"--state {folder}/sensor status --json").data["queues"]["outbox"] == 2
    broker.start()
    sent = sensor(folder, broker, "--topic line1/temp --durable 3")
    assert (sent.code, sent.err) == (0, "1 sent to plc\n")
    received = plc(folder, broker, "--topic 'line1/#' --count 3")
    assert [line.split()[-1] for line in received.out.splitlines()] == ["1", "2", "3"]
    assert pqc(f"--state {folder}/sensor status --json").data["queues"]["outbox"] == 0
