"""What every transport owes its users, asked of all of them; and the topic rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import Mosquitto, in_loop, until
from pqc_iiot.errors import InvalidInputError, TransportError
from pqc_iiot.transports import Delivery, Transport, check_filter, check_topic, topic_matches
from pqc_iiot.transports.memory import MemoryBroker
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

Client = Callable[..., Transport]


@pytest.fixture(params=["mqtt5", "mqtt311", "memory"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Makes transports of one kind: `client()`, or `client(name)` with a lasting session."""
    if request.param == "memory":
        yield MemoryBroker(max_queued=16).client
        return
    mosquitto = Mosquitto(
        tmp_path, "allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 16"
    )

    def make(client_id: str = "") -> Transport:
        return MqttTransport(
            MqttOptions(
                mosquitto.url,
                version=5 if request.param == "mqtt5" else 4,
                client_id=client_id,
                session_expiry=600 if client_id else 0,
                max_incoming=16,
                max_outgoing=4,
            )
        )

    yield make
    mosquitto.stop()


async def receive(transport: Transport, count: int) -> list[Delivery]:
    """Exactly `count` messages, acknowledged."""
    received: list[Delivery] = []
    while len(received) < count:
        batch = await transport.receive(count - len(received))
        assert 1 <= len(batch) <= count - len(received)
        for delivery in batch:
            delivery.ack()
        received += batch
    return received


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 64, 1 << 20])
@in_loop
async def test_a_message_arrives_as_it_was_sent(client: Client, qos: int, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with client() as sender, client() as receiver:
        await receiver.subscribe("line1/+/setpoint", qos=qos)
        await sender.publish("line1/übung/setpoint", payload, qos=qos)
        (delivery,) = await receive(receiver, 1)
        assert delivery[:3] == ("line1/übung/setpoint", payload, False)


@in_loop
async def test_messages_keep_their_order_across_batches(client: Client) -> None:
    async with client() as sender, client() as receiver:
        await receiver.subscribe("t/#")
        tasks = [asyncio.create_task(sender.publish("t/x", bytes((n,)))) for n in range(200)]
        assert [d.payload[0] for d in await receive(receiver, 200)] == list(range(200))
        await asyncio.gather(*tasks)


@in_loop
async def test_a_retained_message_waits_for_subscribers(client: Client) -> None:
    async with client() as sender, client() as early, client() as late:
        await early.subscribe("bundle")
        await sender.publish("bundle", b"1", retain=True)
        assert [d.retained for d in await receive(early, 1)] == [False]
        await late.subscribe("bundle")
        assert (await receive(late, 1))[0][:3] == ("bundle", b"1", True)
        await sender.publish("bundle", b"", retain=True)
        await receive(late, 1)
        async with client() as later:
            await later.subscribe("bundle")
            await sender.publish("bundle", b"2")
            assert (await receive(later, 1))[0][:3] == ("bundle", b"2", False)


@pytest.mark.parametrize("qos", [1, 2])
@in_loop
async def test_only_what_was_not_acknowledged_comes_again(client: Client, qos: int) -> None:
    async with client() as sender:
        async with client("plc-7") as receiver:
            await receiver.subscribe("t", qos=qos)
            for n in range(4):
                await sender.publish("t", bytes((n,)), qos=qos)
            old = [(await receiver.receive(1))[0] for _ in range(4)]
            assert [d.payload for d in old] == [b"\0", b"\1", b"\2", b"\3"]
            old[1].ack()
            old[1].ack()
        old[0].ack()  # too late, and harmless
        await sender.publish("t", b"\4", qos=qos)
        async with client("plc-7") as receiver:
            again = await receive(receiver, 4)
            assert [d.payload for d in again] == [b"\0", b"\2", b"\3", b"\4"]
            old[2].ack()
        async with client("plc-7") as receiver:
            await sender.publish("t", b"\5", qos=qos)
            assert [d.payload for d in await receive(receiver, 1)] == [b"\5"]


@in_loop
async def test_a_receiver_that_sleeps_loses_nothing(client: Client) -> None:
    async with client() as sender, client() as receiver:
        await receiver.subscribe("t")

        async def publish() -> None:
            for n in range(300):
                await sender.publish("t", n.to_bytes(2, "big"))

        publishing = asyncio.create_task(publish())
        session = getattr(receiver, "_session")  # noqa: B009
        await until(lambda: len(session.inbox) == 16)
        for _ in range(100):
            await asyncio.sleep(0)
            assert len(session.inbox) == 16
        numbers = [int.from_bytes(d.payload, "big") for d in await receive(receiver, 300)]
        assert numbers == list(range(300))
        await publishing


@in_loop
async def test_closing_wakes_whoever_waits(client: Client) -> None:
    transport = client()
    for early in (transport.receive(), transport.publish("t", b""), transport.subscribe("t")):
        with pytest.raises(TransportError):
            await early
    async with transport:
        waiting = asyncio.create_task(transport.receive())
        await asyncio.sleep(0)
    with pytest.raises(TransportError):
        await waiting
    await transport.aclose()
    for late in (transport.receive(), transport.publish("t", b""), transport.subscribe("t")):
        with pytest.raises(TransportError):
            await late
    with pytest.raises(TransportError):
        await transport.connect()


@in_loop
async def test_impossible_requests_are_refused_before_anything_is_sent(client: Client) -> None:
    async with client() as transport:
        for topic in ("", "a/+", "#", "a\0b", "a\x1fb", "\ud800", "a" * 65536):
            with pytest.raises(InvalidInputError) as refused:
                await transport.publish(topic, b"")
            assert refused.value.hint
        for topic_filter in ("", "a#", "#/a", "a/b+", "$share/g", "$share//a", "$share/+/a"):
            with pytest.raises(InvalidInputError) as refused:
                await transport.subscribe(topic_filter)
            assert refused.value.hint
        with pytest.raises(InvalidInputError):
            await transport.publish("t", b"", qos=3)
        with pytest.raises(InvalidInputError):
            await transport.subscribe("t", qos=-1)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [  # MQTT 5, 4.7.1 to 4.7.3
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("$SYS/+", "$SYS/monitor", True),
        ("sport", "Sport", False),
        ("$share/plcs/line1/+", "line1/x", True),
        ("$share/plcs/#", "$SYS/x", False),
    ],
)
def test_topics_match_as_the_standard_says(topic_filter: str, topic: str, matches: bool) -> None:
    check_filter(topic_filter)
    check_topic(topic)
    assert topic_matches(topic_filter, topic) is matches


LEVELS = st.sampled_from(["", "a", "b", "$x"])


@given(
    st.lists(st.one_of(LEVELS, st.just("+")), min_size=1, max_size=4),
    st.booleans(),
    st.lists(LEVELS, min_size=1, max_size=4),
)
def test_topics_match_as_in_a_naive_model(pattern: list[str], rest: bool, names: list[str]) -> None:
    def model(pattern: list[str], names: list[str]) -> bool:
        if pattern == ["#"]:
            return True
        if not pattern or not names:
            return pattern == names
        return pattern[0] in ("+", names[0]) and model(pattern[1:], names[1:])

    pattern = [*pattern, "#"] if rest else pattern
    system = names[0].startswith("$") and pattern[0] in ("+", "#")
    expected = model(pattern, names) and not system
    assert topic_matches("/".join(pattern), "/".join(names)) is expected
