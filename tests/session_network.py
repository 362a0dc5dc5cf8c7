"""A bad network between two devices: it drops, repeats, reorders, delays, replays and
damages, and an attacker injects. All of it from one seed, in simulated time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from pqc_iiot import Message, RevokedPeerError
from pqc_iiot._core import HandshakeInitiator, HandshakeResponder
from pqc_iiot.bundle import make_bundle
from pqc_iiot.identity import OwnKeys
from pqc_iiot.keystore import Peer, PeerState, _peer
from pqc_iiot.providers import open_provider
from pqc_iiot.session import (
    Established,
    Fate,
    Limits,
    Outcome,
    Refused,
    Report,
    Send,
    Sessions,
    frames,
)
from pqc_iiot.session.channel import Channel
from pqc_iiot.session.frames import Kind, credential
from pqc_iiot.suites import get_suite


def keys(name: str, suite: int = 1) -> OwnKeys:
    """A device's keys, made once for all tests; of "a" and "b", "a" has the lower key id,
    so that a seed does the same again."""
    return _keys(name, suite)


@lru_cache
def _keys(name: str, suite: int) -> OwnKeys:
    provider = open_provider("software:insecure-plaintext-keys")
    while True:
        made, blob = provider.generate(get_suite(suite))
        bundle = make_bundle(name, made, 1)
        if name not in ("a", "b") or (bundle.kid < b"\x80") == (name == "a"):
            return OwnKeys(made, bundle, blob)


def as_peer(name: str, suite: int = 1) -> Peer:
    """The same device as the others have it on their list."""
    return _peer(name, PeerState.APPROVED, keys(name, suite).bundle)


class Device:
    """A device that talks to one peer, and remembers what it handed over and what came."""

    def __init__(
        self, name: str, peer: str, limits: Limits, rng: random.Random, suites: tuple[int, int]
    ) -> None:
        self.name, self.limits, self.rng = name, limits, rng
        self.keys, self.peer = keys(name, suites[0]), as_peer(peer, suites[1])
        self.revoked = False
        self.handed: dict[int, tuple[str, bytes]] = {}
        self.fates: dict[int, Fate] = {}
        self.delivered: list[Message] = []
        self.refused: list[Refused] = []
        self.established: list[Established] = []
        self.tokens = 0
        self.before_reboot: set[int] = set()
        self.sessions = self._fresh()

    def _fresh(self) -> Sessions:
        return Sessions(lambda: self.keys, self._trusted, self.limits, self.rng.randbytes)

    def _trusted(self, kid: bytes) -> Peer | None:
        if kid != self.peer.bundle.kid:
            return None
        if self.revoked:
            raise RevokedPeerError("revoked")
        return self.peer

    def hand_over(self, now: float, context: str = "t") -> int:
        """One message with a payload of its own; its token."""
        self.tokens += 1
        token = self.tokens
        payload = b"%b %d" % (self.name.encode(), token)
        self.handed[token] = (context, payload)
        self.sessions.send(now, self.peer, context, payload, token)
        return token

    def reboot(self) -> None:
        """Everything in memory is gone; nobody is left to hear what became of messages."""
        self.before_reboot |= self.handed.keys() - self.fates.keys()
        self.sessions = self._fresh()

    def take(self) -> list[Send]:
        """What goes out now; keeps the rest."""
        out: list[Send] = []
        for outcome in self.sessions.take():
            self._keep(outcome, out)
        return out

    @property
    def session(self) -> Channel:
        """The one that it uses."""
        channel = self.sessions.current(self.peer.fingerprint)
        assert channel is not None
        return channel

    def answers(self, now: float, frame: bytes, context: str | None = None) -> list[bytes]:
        """The frames that it sends where one arrives."""
        self.sessions.receive(now, frame, context)
        return [each.frame for each in self.take()]

    def _keep(self, outcome: Outcome, out: list[Send]) -> None:
        match outcome:
            case Send():
                out.append(outcome)
            case Report(tokens, fate):
                for token in tokens:
                    assert token not in self.fates, "a second report"
                    self.fates[token] = fate
            case Message():
                self.delivered.append(outcome)
            case Refused():
                self.refused.append(outcome)
            case Established():
                self.established.append(outcome)

    @property
    def open(self) -> set[int]:
        """Messages whose fate is not known yet."""
        return self.handed.keys() - self.fates.keys() - self.before_reboot


@dataclass
class Weather:
    """How bad the network is: probabilities for each frame, and delays in seconds."""

    drop: float = 0.0
    repeat: float = 0.0
    damage: float = 0.0
    replay: float = 0.0
    inject: float = 0.0
    delay: float = 0.05
    jitter: float = 0.0

    @classmethod
    def bad(cls, rng: random.Random) -> Weather:
        """Some kind of bad."""
        return cls(
            drop=rng.choice((0.0, 0.1, 0.3, 0.5)),
            repeat=rng.choice((0.0, 0.1, 0.3)),
            damage=rng.choice((0.0, 0.05, 0.2)),
            replay=rng.choice((0.0, 0.1, 0.3)),
            inject=rng.choice((0.0, 0.1, 0.3)),
            delay=rng.choice((0.001, 0.05, 0.5)),
            jitter=rng.choice((0.0, 0.05, 1.0, 4.0)),
        )


@dataclass(order=True)
class Flight:
    """A frame on its way, or that was; `at` is when it arrives, or was sent."""

    at: float
    order: int
    to: str = field(compare=False)
    frame: bytes = field(compare=False)
    context: str | None = field(compare=False)


def begins(sent: Send | Flight) -> bool:
    """Whether something carries message 1, by itself or inside a session."""
    return sent.context is None and len(sent.frame) > 1000 and sent.frame[0] in (1, 2)


class Network:
    """Two devices and what is between them."""

    def __init__(
        self, seed: int, limits: Limits | None = None, suites: tuple[int, int] = (1, 1)
    ) -> None:
        self.rng = random.Random(seed)
        limits = limits or Limits()
        self.a = Device("a", "b", limits, self.rng, suites)
        self.b = Device("b", "a", limits, self.rng, suites[::-1])
        self.devices = {"a": self.a, "b": self.b}
        self.weather = Weather()
        self.loses: Callable[[Send], bool] = lambda _: False
        """What is lost in any weather."""
        self.now = 1000.0
        self.flights: list[Flight] = []
        self.history: list[Flight] = []
        self.sent = 0

    def other(self, device: Device) -> Device:
        """The one at the other end."""
        return self.b if device is self.a else self.a

    def _fly(self, to: str, frame: bytes, context: str | None) -> None:
        at = self.now + self.weather.delay + self.rng.random() * self.weather.jitter
        self.sent += 1
        heapq.heappush(self.flights, Flight(at, self.sent, to, frame, context))

    def collect(self) -> None:
        """Takes what the devices want to send on its way."""
        for device in (self.a, self.b):
            for send in device.take():
                assert send.kid == device.peer.bundle.kid
                self._pass(self.other(device).name, send)

    def _pass(self, to: str, send: Send) -> None:
        rng, weather = self.rng, self.weather
        self.history.append(Flight(self.now, 0, to, send.frame, send.context))
        if self.loses(send):
            return
        if rng.random() < weather.damage:
            self._fly(to, _damaged(rng, send.frame), send.context)
        elif rng.random() >= weather.drop:
            self._fly(to, send.frame, send.context)
        if rng.random() < weather.repeat:
            self._fly(to, send.frame, send.context)
        if rng.random() < weather.replay:
            old = rng.choice(self.history)
            self._fly(old.to, old.frame, old.context)
        if rng.random() < weather.inject:
            self._inject()

    def _inject(self) -> None:
        rng, old = self.rng, self.rng.choice(self.history)
        make: Callable[[], bytes] = rng.choice((
            lambda: _damaged(rng, old.frame),
            lambda: old.frame[:5] + rng.randbytes(len(old.frame) - 5),
            lambda: rng.randbytes(rng.randrange(40)),
            lambda: old.frame[: rng.randrange(len(old.frame))],
            lambda: self._impostor_begins(old.to),
            lambda: self._impostor_answers(old),
        ))  # fmt: skip
        context = None if old.context is None else rng.choice((None, "t", "u"))
        self._fly(old.to, make(), context)

    def _impostor_begins(self, to: str) -> bytes:
        """A proper message 1 in the name of the peer, by somebody else."""
        device = self.devices[to]
        caller, called = credential(device.peer.bundle), credential(device.keys.bundle)
        edhoc = device.keys.bundle.suite.edhoc
        handshake = HandshakeInitiator(edhoc, self.rng.randbytes(4), caller, called)
        return frames.make(Kind.MESSAGE_1, device.peer.bundle.kid, handshake.message_1)

    def _impostor_answers(self, old: Flight) -> bytes:
        """A proper message 2 to what was overheard, signed by somebody else's key."""
        if old.frame[:1] != b"\x02":
            return self._impostor_begins(old.to)
        device, message_1 = self.devices[old.to], frames.parse(old.frame).message
        handshake = HandshakeResponder(
            device.keys.bundle.suite.edhoc, message_1, b"evil", credential(device.keys.bundle)
        )
        message_2 = handshake.message_2(keys("evil").keys.sign(handshake.to_be_signed))
        self._fly(
            self.other(device).name, frames.make(Kind.MESSAGE_2, handshake.c_i, message_2), None
        )
        return frames.make(Kind.MESSAGE_2, handshake.c_i, message_2)

    def step(self, until: float) -> bool:
        """The next thing that happens before `until`; False if nothing does."""
        flight = self.flights[0].at if self.flights else float("inf")
        due = min(device.sessions.due for device in self.devices.values())
        at = min(flight, due)
        if at > until:
            self.now = max(self.now, until)
            return False
        self.now = max(self.now, at)
        if flight <= due:
            arrived = heapq.heappop(self.flights)
            device = self.devices[arrived.to]
            device.sessions.receive(self.now, arrived.frame, arrived.context)
        for device in self.devices.values():
            device.sessions.tick(self.now)
        self.collect()
        return True

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.collect()
        until = self.now + seconds
        while self.step(until):
            pass

    def settle(self, limit: float = 600.0) -> float:
        """Lets time pass until every message has its fate; the seconds that took."""
        self.collect()
        start = self.now
        while (self.a.open or self.b.open) and self.step(start + limit):
            pass
        assert not self.a.open, f"no fate for {self.a.open}"
        assert not self.b.open, f"no fate for {self.b.open}"
        return self.now - start


def _damaged(rng: random.Random, frame: bytes) -> bytes:
    damaged = bytearray(frame)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)
