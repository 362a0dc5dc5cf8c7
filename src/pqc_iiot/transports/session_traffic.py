"""Sessions on a bus: handshakes and control go through inboxes, packets on their topics.

Everything here happens in the event loop, except for handshakes, which compute and look
peers up: those are done by the bus's worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import PqcIiotError, TransportError
from ..message import Message
from ..node import Node
from ..policy import SessionUse
from ..session import Established, Report, Send
from ..sessions import PACKET
from . import Transport

INBOXES = "pqc-iiot/session/"
"""Topics on which devices get handshakes, followed by the hex of their key id."""

_FRAMES = 1024
"""Frames of ours that wait for the network; handshakes repeat what is dropped."""

_FAR = float("inf")

log = logging.getLogger("pqc_iiot.transports.bus")
_T = TypeVar("_T")
Run = Callable[[Callable[[], _T]], Awaitable[_T]]
"""Runs something in the bus's worker."""


class _NoSession(Exception):  # noqa: N818 - it is no error
    """No session takes the message now."""


class SessionTraffic:
    """The sessions of a node, carried by one transport.

    `on_report` hears what became of messages.
    """

    def __init__(
        self,
        node: Node,
        transport: Transport,
        run: Run[object],
        on_report: Callable[[Report], None],
    ) -> None:
        self._node, self._transport, self._run = node, transport, run
        self._sessions = node.sessions
        self._on_report = on_report
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._frames: deque[tuple[str, bytes]] = deque(maxlen=_FRAMES)
        self._to_say = asyncio.Event()
        self._established = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._inboxes: set[str] = set()
        self.holding = False
        """Whether the peers must not hear yet what arrived."""

    async def start(self) -> bool:
        """Listens in this device's inbox. False where there are no sessions on this bus:
        another one of the node's carries them, or the broker does not let us."""
        if not self._sessions.claim(self):
            return False
        try:
            await self.follow_keys()
        except TransportError as error:
            log.warning("no sessions: %s", error)
            self._sessions.release(self)
            return False
        self._speaking = asyncio.create_task(self._speak(), name="pqc-iiot-sessions")
        self._arm()
        return True

    async def aclose(self) -> None:
        """Carries nothing any more. Sessions stay, for the next bus."""
        self._sessions.release(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._speaking is not None:
            self._speaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._speaking

    async def follow_keys(self) -> None:
        """Listens in the inbox of the present keys, too, if they are new."""
        inbox = INBOXES + self._node.bundle.kid.hex()
        if inbox not in self._inboxes:
            await self._transport.subscribe(inbox, qos=0)
            self._inboxes.add(inbox)

    # Out

    async def send(self, to: str, topic: str, payload: bytes, qos: int) -> int:
        """Publishes a message through a session: its token, or 0 where it has to go as a
        frame of its own. `TransportError` where policy wants a session and there is none."""
        token, sessions = 0, self._sessions

        def packet() -> bytes:
            nonlocal token
            now = self._time()
            sealed = sessions.seal_at_ease(now, payload, to, topic)
            if sealed is None:
                if self._node.policy.sessions is not SessionUse.NEVER:
                    sealed = sessions.seal(now, payload, to=to, context=topic)
                    self._loop.call_soon(self.flush)
                if sealed is None:
                    raise _NoSession
            made, token = sealed
            return made

        while True:
            try:
                await self._transport.publish(topic, packet, qos=qos)
            except _NoSession:
                if self._node.policy.sessions is not SessionUse.ALWAYS:
                    return 0
                await self._session(to)
            else:
                if (meter := self._node.meter) is not None:
                    meter.accepted("out", self._transport.name)
                return token

    def want(self, to: str) -> None:
        """There is something for this peer: let there be a session. For the worker."""
        if self._node.policy.sessions is not SessionUse.NEVER:
            self._sessions.want(self._time(), to=to)

    async def _session(self, to: str) -> None:
        """Returns when messages to this peer can be sent."""
        until = self._time() + self._sessions.patience
        while True:
            self._established.clear()
            await self._run(lambda: self._sessions.want(self._time(), to=to, patient=False))
            self.flush()
            if self._sessions.ready(to):
                return
            left = until - self._time()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._established.wait(), max(left, 0))
                continue
            raise TransportError(
                f"no session with {to} came about",
                hint="is it online, and does it trust this device? Without a session: "
                "pqc-iiot policy set --sessions auto",
            )

    # In

    def is_inbox(self, topic: str) -> bool:
        """Whether handshakes come under this topic."""
        return topic in self._inboxes

    def open(self, topics: list[str], packets: list[bytes]) -> list[Message | PqcIiotError]:
        """Opens packets that came on topics: a message or the refusal each. `flush` tells the
        peer."""
        results = self._sessions.receive_many(self._time(), topics, packets)
        if (meter := self._node.meter) is not None:
            refused = [each for each in results if isinstance(each, PqcIiotError)]
            meter.accepted("in", self._transport.name, len(results) - len(refused))
            for error in refused:
                meter.refused("in", self._transport.name, error.code)
        return results

    async def take_in(self, frames: list[bytes]) -> None:
        """Takes what came into the inbox."""
        now = self._time()
        if all(frame[:1] == PACKET for frame in frames):
            self._sessions.receive_inbox(now, frames)
        else:
            await self._run(lambda: self._sessions.receive_inbox(now, frames))
        await self.follow_keys()
        self.flush()

    # What comes of it

    def flush(self) -> None:
        """Carries out what the sessions ask for."""
        if self.holding:
            return
        for outcome in self._sessions.take():
            if isinstance(outcome, Send):
                topic = outcome.context or INBOXES + outcome.kid.hex()
                self._frames.append((topic, outcome.frame))
                self._to_say.set()
            elif isinstance(outcome, Report):
                self._on_report(outcome)
            elif isinstance(outcome, Established):
                self._established.set()
        self._arm()

    async def _speak(self) -> None:
        while True:
            while self._frames:
                topic, frame = self._frames.popleft()
                try:
                    await self._transport.publish(topic, frame, qos=0)
                except PqcIiotError as error:
                    log.info("a frame of a session was not sent: %s", error)
            self._to_say.clear()
            await self._to_say.wait()

    def _arm(self) -> None:
        due = self._sessions.due
        timer = self._timer
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timer = self._loop.call_at(due, self._tick) if due < _FAR else None

    def _tick(self) -> None:
        self._timer = None
        try:
            self._sessions.tick(self._time())
            self.flush()
        except PqcIiotError as error:
            log.warning("sessions stand still: %s", error)
