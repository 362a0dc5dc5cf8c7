"""`send` and `listen`: protected messages through a broker."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import check_name
from ..errors import DuplicateError, InvalidInputError, PqcIiotError, TransportError
from ..policy import MAX_PAYLOAD
from ..transports import check_filter, check_topic
from . import output
from .base import Shell, command
from .broker import Broker, with_broker
from .files import STDIO, read_input
from .values import checked

if TYPE_CHECKING:
    from ..message import Incoming, Message
    from ..node import Node
    from .broker import OnRefused

Qos = Annotated[int, typer.Option(min=0, max=2, help="0 at most, 1 at least, 2 exactly once.")]
Announce = Annotated[bool, typer.Option("--announce", help="Show this device's bundle first.")]

_MAX_TOLD = 100


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "send", panel="Messages")(with_broker(send))
    command(app, "listen", panel="Messages")(with_broker(listen))


def send(
    shell: Shell,
    broker: Broker,
    to: Annotated[
        str, typer.Option(parser=checked(check_name), metavar="NAME", help="The peer it is for.")
    ],
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="Where to, and what it is bound to.")],
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="PAYLOAD",
            help="Others can see it in the process list: standard input if left out.",
        ),
    ] = None,
    line: Annotated[
        bool, typer.Option("--line", help="Each line of standard input is a message.")
    ] = False,
    qos: Qos = 1,
    retain: Annotated[
        bool, typer.Option("--retain", help="The broker keeps the last one.")
    ] = False,
    durable: Annotated[
        bool, typer.Option("--durable", help="Keep them on disk until the broker has them.")
    ] = False,
    announce: Announce = False,
) -> None:
    """Protects messages for a peer and publishes them."""
    check_topic(topic)
    if payload is not None and line:
        raise InvalidInputError("--line is for messages from standard input")
    if payload is not None:
        messages = _once(os.fsencode(payload))
    elif not line:
        messages = _once(read_input(STDIO, MAX_PAYLOAD))
    else:
        messages = _lines(sys.stdin.fileno())
    sent = 0

    async def work(node: Node) -> None:
        nonlocal sent
        # A handshake for one message would cost more than it saves.
        async with broker.bus(node, sessions=line) as bus:
            if announce:
                await bus.announce()
            async for message in messages:
                await bus.send(to, topic, message, qos=qos, retain=retain, durable=durable)
                sent += 1
            await bus.drained()

    async def work_durably(node: Node) -> None:
        nonlocal sent
        try:
            await work(node)
        except TransportError as error:
            async for message in messages:
                node.outbox.put(message, to=to, context=topic, qos=qos, retain=retain)
                sent += 1
            waiting = len(node.outbox)
            raise TransportError(
                f"{error}; {waiting} wait in the outbox",
                hint="they go out with the next pqc-iiot send or listen to this broker",
            ) from error

    with shell.node() as node:
        run_until_stopped(work_durably(node) if durable else work(node))
    if shell.json:
        output.print_json({"to": to, "topic": topic, "sent": sent})
    shell.note(f"{sent} sent to {to}")


def listen(
    shell: Shell,
    broker: Broker,
    topic: Annotated[
        list[str], typer.Option(metavar="FILTER", help="Topics; + and # allowed. May be repeated.")
    ],
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after N messages.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="End after this time.")
    ] = None,
    qos: Qos = 1,
    durable: Annotated[
        bool,
        typer.Option(
            "--durable/--no-durable",
            help="Keep messages on disk until they were shown; what a crash left comes first.",
        ),
    ] = True,
    announce: Announce = False,
    announcements: Annotated[
        bool, typer.Option("--announcements", help="Take in bundles that devices show.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="For Prometheus: a port on loopback, such as 9464, or a file ending in .prom.",
        ),
    ] = None,
) -> None:
    """Shows messages from peers, each verified, fresh and bound to its topic."""
    import asyncio

    from .service import serving

    for each in topic:
        check_filter(each)
    received = 0

    async def work(node: Node) -> None:
        nonlocal received
        async with broker.bus(node, _tell_refusals(shell)) as bus:
            if announce:
                await bus.announce()
            if announcements:
                await bus.watch_announcements()
            async with bus.listen(*topic, qos=qos, durable=durable) as messages:
                shell.note(f"listening on {', '.join(topic)}")
                with serving(shell, node):
                    async for message in messages:
                        print_message(shell, message)
                        node.inbox.ack_later(message)
                        received += 1
                        if received == count:
                            return

    with shell.node() as node, _metrics(node, metrics):
        try:
            run_until_stopped(asyncio.wait_for(work(node), timeout))
        except asyncio.TimeoutError:
            if count is None:
                return
            raise TransportError(
                f"{received} of {count} messages came within {timeout:g} seconds",
                hint="what was refused is in the audit log: pqc-iiot audit tail",
            ) from None


def run_until_stopped(work: Coroutine[None, None, None]) -> None:
    """Runs to the end, or until a service manager ends it: that is a clean end too."""
    import asyncio

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped())


def _metrics(node: Node, where: str | None) -> contextlib.AbstractContextManager[object]:
    if where is None:
        return contextlib.nullcontext()
    from ..metrics import exported

    return exported(node, where)


def print_message(shell: Shell, message: Message) -> None:
    """One message on one line, for people or for programs."""
    if shell.json:
        output.print_json(described(message) | output.payload_json(message.payload), line=True)
    else:
        topic, payload = output.escape(message.context), output.payload_text(message.payload)
        print(f"{message.sender}  #{message.sequence}  {topic}  {payload}", flush=True)


def described(message: Message) -> dict[str, object]:
    """A message for programs, without its payload."""
    document: dict[str, object] = {
        "sender": message.sender,
        "fingerprint": message.fingerprint.hex(),
        "topic": message.context,
        "sequence": message.sequence,
        "id": message.id.hex(),
    }
    return document | ({"session": message.session.hex()} if message.session else {})


async def _once(payload: bytes) -> AsyncIterator[bytes]:
    yield payload


async def _lines(fd: int) -> AsyncIterator[bytes]:
    """Lines as they come. A thread of its own reads them: the connection stays alive while
    none comes, and nobody waits for that thread in the end."""
    import asyncio

    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | PqcIiotError | None] = asyncio.Queue(64)

    def put(item: bytes | PqcIiotError | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def read() -> None:
        rest = b""
        try:
            while chunk := os.read(fd, 65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    put(line.removesuffix(b"\r"))
                if len(rest) > MAX_PAYLOAD:
                    raise InvalidInputError(f"a line is longer than {MAX_PAYLOAD} bytes")
            if rest:
                put(rest)
            put(None)
        except OSError as error:
            put(InvalidInputError(f"standard input cannot be read: {error.strerror}"))
        except PqcIiotError as error:
            put(error)

    threading.Thread(target=read, daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, PqcIiotError):
            raise item
        yield item


def _tell_refusals(shell: Shell) -> OnRefused:
    """Tells a person which frames were refused: each reason once per peer, since whoever
    sends them chooses how many there are. The audit log has them all."""
    told: set[tuple[str, str]] = set()

    def tell(incoming: Incoming, error: PqcIiotError) -> None:
        reason = (error.code, error.peer)
        # The identical frame again is no news: a redelivery, or a retained message.
        if isinstance(error, DuplicateError) or reason in told or len(told) == _MAX_TOLD:
            return
        told.add(reason)
        message = f"a frame on {incoming.context!r} was refused: {error}"
        shell.warn(error.code, message, error.hint)

    return tell
