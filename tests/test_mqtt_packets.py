"""Bytes from a broker that nobody trusts: cut anywhere, of any size, of any content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import in_loop, payloads, until
from pqc_iiot.errors import TransportError
from pqc_iiot.transports import mqtt_packets as packets
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

CONNACK = b"\x20\x03\x00\x00\x00"


def publish(topic: str, payload: bytes, qos: int = 0, version: int = 5) -> bytes:
    return packets.encode_publish(
        topic.encode(),
        payload,
        version=version,
        qos=qos,
        retain=False,
        packet_id=7 if qos else 0,
        dup=False,
    )


@given(
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=300), st.integers(0, 2))),
    st.lists(st.integers(1, 50), min_size=1),
    st.sampled_from([4, 5]),
)
def test_packets_are_the_same_however_the_stream_is_cut(
    messages: list[tuple[str, bytes, int]], cuts: list[int], version: int
) -> None:
    stream = b"".join(publish(t, p, q, version) for t, p, q in messages) + packets.PINGREQ
    reader = packets.PacketReader(200)
    seen = []
    while stream:
        cuts = [*cuts[1:], cuts[0]]
        seen += list(reader.feed(stream[: cuts[0]]))
        stream = stream[cuts[0] :]
    assert seen.pop() == (0xC0, b"", 0)
    assert len(seen) == len(messages)
    for (first, body, skipped), (topic, payload, qos) in zip(seen, messages, strict=True):
        if skipped:
            assert len(body) + skipped > 200
            head = packets.decode_publish_head(first, body)
            assert (head.topic, head.qos, head.packet_id) == (topic, qos, 7 if qos else 0)
        else:
            message = packets.decode_publish(first, body, version)
            assert message == packets.Publish(topic, payload, qos, False, 7 if qos else 0)


def test_a_large_packet_is_never_stored() -> None:
    reader = packets.PacketReader(1000)
    size = 268_435_455
    stream = b"\x32\xff\xff\xff\x7f" + b"\x00\x01t\x00\x07"
    (found,) = reader.feed(stream)
    assert found == (0x32, b"\x00\x01t\x00\x07", size - 5)
    missing = size - 5
    while missing:
        chunk = bytes(min(missing, 1 << 20))
        missing -= len(chunk)
        assert list(reader.feed(chunk)) == []
        assert not reader._rest
    assert list(reader.feed(CONNACK)) == [(0x20, b"\0\0\0", 0)]
    with pytest.raises(TransportError):
        list(reader.feed(b"\x20\xff\xff\xff\x7f"))


def test_a_large_packet_may_come_byte_by_byte() -> None:
    reader = packets.PacketReader(1 << 20)
    packet = publish("t", bytes(1 << 17))
    found = [p for n in range(len(packet)) for p in reader.feed(packet[n : n + 1])]
    assert [len(body) for _, body, _ in found] == [(1 << 17) + 4]


@given(st.binary(max_size=200), st.sampled_from([4, 5]))
def test_any_bytes_are_packets_or_a_transport_error(data: bytes, version: int) -> None:
    decoders: list[Callable[[int, bytes], object]] = [
        lambda first, body: packets.decode_connack(body, version),
        lambda first, body: packets.decode_publish(first, body, version),
        lambda first, body: packets.decode_ack(body),
        lambda first, body: packets.decode_suback(body, version),
    ]
    for decode in decoders:
        try:
            decode(data[0] if data else 0, data[1:])
        except TransportError as error:
            assert str(error)  # noqa: PT017
    reader = packets.PacketReader(64)
    try:
        for _first, body, _skipped in reader.feed(data):
            assert len(body) <= max(64, len(data))
    except TransportError:
        pass


def test_connack_properties_are_read_around_texts() -> None:
    body = b"\x01\x00\x11\x1f\x00\x02hi\x21\x00\x05\x26\x00\x01a\x00\x01b\x24\x01"
    assert packets.decode_connack(body, 5) == packets.Connack(
        True, 0, {packets.RECEIVE_MAXIMUM: 5, packets.MAXIMUM_QOS: 1}
    )
    assert packets.decode_connack(b"\x00\x05", 4).reason == packets.NOT_AUTHORIZED
    assert packets.decode_connack(b"\x00\x01", 5).reason == packets.UNSUPPORTED_VERSION


# A broker that says what a test wants

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def broker(script: Script) -> AsyncIterator[str]:
    """A scripted broker, once it has read CONNECT; yields its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await packet(reader)
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def packet(reader: asyncio.StreamReader) -> bytes:
    """One packet of less than 16 KiB."""
    first, size = await reader.readexactly(2)
    if size > 127:
        size = size & 127 | (await reader.readexactly(1))[0] << 7
    return bytes((first,)) + await reader.readexactly(size)


def says(*answers: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            writer.write(answer)
            await packet(reader)

    return script


@pytest.mark.parametrize(
    ("answer", "problem", "hint"),
    [
        (b"\x20\x02\x00\x01", "unsupported protocol version", "version=4"),
        (b"\x20\x03\x00\x84\x00", "unsupported protocol version", "version=4"),
        (b"\x20\x03\x00\x86\x00", "bad user name", "password_file"),
        (b"\x20\x03\x00\x85\x00", "client identifier", "client_id"),
        (b"\x20\x03\x00\x88\x00", "unavailable", "log"),
        (b"\x20\x00", "truncated", ""),
        (b"\x20\x03\x00\x00\x05", "truncated", ""),
        (b"\x20\x05\x00\x00\x02\x7f\x00", "unknown property", ""),
        (b"\xff\xff\xff\xff\xff", "malformed", ""),
        (publish("t", b"x"), "out of order", ""),
        (b"HTTP/1.1 400 Bad Request\r\n" * 4, "out of order", ""),
        (CONNACK + CONNACK, "out of order", ""),
        (b"", "no answer within", ""),
    ],
)
@in_loop
async def test_answers_to_connect(answer: bytes, problem: str, hint: str) -> None:
    async with broker(says(answer)) as url:
        with pytest.raises(TransportError, match=problem) as refused:
            await MqttTransport(MqttOptions(url, connect_timeout=0.2)).connect()
        assert hint in refused.value.hint
        assert refused.value.hint


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [
        (CONNACK, "out of order"),
        (b"\xe0\x01\x8e", "same client identifier"),
        (b"\xe0\x00", "disconnected"),
        (b"\x36\x04\x00\x01t\x00", "QoS 3"),
        (b"\x30\x04\x00\x09t\x00", "truncated"),
        (b"\x40\x01\x00", "truncated"),
        (b"\xf0\x00", "type 15"),
        (b"\x00\x00", "type 0"),
        (b"\xd0\x84\x80\x80\x7f", "266338308 bytes"),
        (b"", "closed"),
    ],
)
@in_loop
async def test_nonsense_ends_the_connection_and_only_that(nonsense: bytes, reason: str) -> None:
    turns = iter([nonsense, publish("t", b"sane")])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        await packet(reader)
        writer.write(next(turns))
        if nonsense:
            await packet(reader)

    reasons = []
    async with broker(script) as url:
        options = MqttOptions(url, max_reconnect_delay=0.01)
        async with MqttTransport(options, on_state=lambda _, why: reasons.append(why)) as transport:
            await transport.publish("go", b"", qos=0)
            waiting = asyncio.create_task(transport.receive())
            await until(lambda: len(reasons) == 3)
            await transport.publish("go", b"", qos=0)
            assert [d.payload for d in await waiting] == [b"sane"]
        assert reason in reasons[1]


@in_loop
async def test_a_topic_that_is_not_utf8_stops_nobody() -> None:
    script = says(CONNACK + b"\x30\x05\x00\x01\xff\x00x" + publish("t", b"y"))
    async with broker(script) as url, MqttTransport(MqttOptions(url)) as transport:
        assert [d.topic for d in await transport.receive()] == ["\ufffd", "t"]


@in_loop
async def test_a_refused_subscription_is_an_error() -> None:
    script = says(CONNACK, b"\x90\x04\x00\x01\x00\x87")
    async with broker(script) as url, MqttTransport(MqttOptions(url)) as transport:
        with pytest.raises(TransportError, match="not authorized") as refused:
            await transport.subscribe("line1/#")
        assert refused.value.hint


@in_loop
async def test_what_the_broker_cannot_do_is_not_sent() -> None:
    limits = b"\x24\x00\x25\x00\x27\x00\x00\x00\x64"
    connack = b"\x20\x0c\x00\x00\x09" + limits
    async with broker(says(connack)) as url, MqttTransport(MqttOptions(url)) as transport:
        with pytest.raises(TransportError, match="QoS 1"):
            await transport.publish("t", b"x", qos=1)
        for qos in (0, 1):
            with pytest.raises(TransportError, match="packet too large"):
                await transport.publish("t", bytes(100), qos=qos)
        with pytest.raises(TransportError, match="retain"):
            await transport.publish("t", b"x", qos=0, retain=True)


@in_loop
async def test_no_more_is_in_flight_than_the_broker_takes() -> None:
    in_flight: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x06\x00\x00\x03\x21\x00\x02")  # Receive Maximum 2
        ids: list[bytes] = []
        for _ in range(5):
            while len(ids) < 2 and len(in_flight) + len(ids) < 10:
                ids.append((await packet(reader))[4:6])
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(packet(reader), 0.01)
            in_flight.append(len(ids))
            writer.write(b"".join(b"\x40\x02" + packet_id for packet_id in ids))
            ids = []
        await packet(reader)

    async with broker(script) as url, MqttTransport(MqttOptions(url)) as transport:
        await asyncio.gather(*(transport.publish("t", b"x") for _ in range(10)))
    assert in_flight == [2] * 5


@in_loop
async def test_a_message_that_costs_every_connection_is_given_up() -> None:
    seen = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        seen.append((await packet(reader))[0])

    async with broker(script) as url:
        options = MqttOptions(url, max_reconnect_delay=0.01)
        async with MqttTransport(options) as transport:
            with pytest.raises(TransportError, match="hung up"):
                await transport.publish("t", b"poison")
    assert seen == [0x32] + [0x3A] * 4  # DUP from the second on


@in_loop
async def test_qos_2_goes_on_where_it_was_if_the_broker_remembers() -> None:
    turns = iter([False, True, False])
    seen: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x03" + bytes((next(turns), 0, 0)))
        seen.append((await packet(reader))[0] >> 4)
        if len(seen) == 1:  # PUBREC, then gone
            writer.write(b"\x50\x02\x00\x01")
            await packet(reader)
        elif len(seen) == 3:
            writer.write(b"\x50\x02\x00\x01")
            await packet(reader)
            writer.write(b"\x70\x02\x00\x01")
            await packet(reader)

    async with broker(script) as url:
        options = MqttOptions(url, max_reconnect_delay=0.01)
        async with MqttTransport(options) as transport:
            await transport.publish("t", b"x", qos=2)
    # PUBLISH; PUBREL alone to a broker that kept the session; PUBLISH to one that lost it
    assert seen == [packets.PUBLISH, packets.PUBREL, packets.PUBLISH]


@in_loop
async def test_qos_2_is_delivered_once_however_often_it_is_sent() -> None:
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK + publish("t", b"x", 2) + publish("t", b"x", 2))
        got.append(await packet(reader))
        writer.write(publish("t", b"x", 2))
        got.append(await packet(reader))
        writer.write(b"\x62\x02\x00\x07")
        got.append(await packet(reader))
        writer.write(publish("u", b"y"))
        await packet(reader)

    async with broker(script) as url, MqttTransport(MqttOptions(url)) as transport:
        (delivery,) = await transport.receive()
        assert got == []
        delivery.ack()
        assert [d.topic for d in await transport.receive()] == ["u"]
    assert got == [b"\x50\x00\x07", b"\x50\x00\x07", b"\x70\x00\x07"]


@pytest.mark.parametrize("remembers", [False, True])
@in_loop
async def test_qos_2_identifiers_mean_nothing_to_a_broker_that_forgot(remembers: bool) -> None:
    turns = iter([(0, b"old"), (remembers, b"again")])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session_present, payload = next(turns)
        writer.write(b"\x20\x03" + bytes((session_present, 0, 0)) + publish("t", payload, 2))
        await packet(reader)  # PUBREC
        if payload == b"again":
            writer.write(publish("t", b"end"))
            await packet(reader)

    received: list[bytes] = []
    async with broker(script) as url:
        options = MqttOptions(url, max_reconnect_delay=0.01)
        async with MqttTransport(options) as transport:
            while b"end" not in received:
                received += await payloads(transport, 1)
    assert received == ([b"old", b"end"] if remembers else [b"old", b"again", b"end"])


@in_loop
async def test_the_broker_hangs_up_first() -> None:
    # Else what it has sent meanwhile resets the connection, and it loses our last words.
    said: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK + publish("t", b"x", 1) + publish("t", bytes(9000)) * 500)
        said.extend([await packet(reader), await packet(reader)])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        said.append(b"done")

    async with (
        broker(script) as url,
        MqttTransport(MqttOptions(url, max_incoming=1)) as transport,
    ):
        (await transport.receive(1))[0].ack()
    assert said == [b"\x40\x00\x07", b"\xe0\x00\x05\x11\0\0\0\0", b"done"]
