"""Targets with a state: whatever the input does, nothing forged may change it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from bending import bend

from pqc_iiot import Message, Node
from pqc_iiot.audit import tail
from pqc_iiot.audit.find import find_line
from pqc_iiot.audit.head import Head, head_path
from pqc_iiot.audit.journal import checkpoints_path, last_checkpoint, read_checkpoints
from pqc_iiot.audit.search import read_all
from pqc_iiot.audit.sinks.spool import Cursor
from pqc_iiot.audit.verify import verify
from pqc_iiot.bundle import make_bundle
from pqc_iiot.errors import PqcIiotError
from pqc_iiot.folder import StateFolder
from pqc_iiot.identity import IDENTITY_FILE, Identity, OwnKeys
from pqc_iiot.keystore import Peer, PeerState, _peer
from pqc_iiot.providers import open_provider
from pqc_iiot.session import Fate, Outcome, Report, Send, Sessions
from pqc_iiot.store import SEEN
from pqc_iiot.suites import get_suite

PROVIDER = "software:insecure-plaintext-keys"
OPEN = contextlib.ExitStack()
"""What targets hold open, for whoever outlives them."""
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it

Target = Callable[[bytes], object]


def folder() -> Path:
    """A new one, in memory where there is some; it stays for the run."""
    return Path(tempfile.mkdtemp(prefix="pqc-iiot-fuzz-", dir=MEMORY if MEMORY.is_dir() else None))


def own_keys(name: str) -> OwnKeys:
    """A new device's."""
    keys, blob = open_provider(PROVIDER).generate(get_suite(3))
    return OwnKeys(keys, make_bundle(name, keys, 1), blob)


class Device:
    """One end: what it handed over, what came, and what it heard of that."""

    def __init__(self, keys: OwnKeys, peer: Peer, random: Callable[[int], bytes]) -> None:
        self.peer = peer
        self.handed: dict[int, bytes] = {}
        self.came: list[bytes] = []
        self.fates: dict[int, Fate] = {}
        self.out: list[Send] = []
        self.sessions = Sessions(
            lambda: keys, lambda kid: peer if kid == peer.bundle.kid else None, None, random
        )

    def send(self, now: float) -> None:
        """Hands one message over, with a payload of its own."""
        token = len(self.handed) + 1
        payload = self.peer.bundle.kid + token.to_bytes(2, "big")
        self.sessions.send(now, self.peer, "t", payload, token)
        self.handed[token] = payload

    def take(self) -> None:
        """What came of it."""
        for outcome in self.sessions.take():
            self._keep(outcome)

    def _keep(self, outcome: Outcome) -> None:
        match outcome:
            case Send():
                self.out.append(outcome)
            case Message():
                assert outcome.context == "t"
                assert outcome.fingerprint == self.peer.fingerprint
                assert outcome.payload not in self.came, "delivered twice"
                self.came.append(outcome.payload)
            case Report(tokens, fate):
                for token in tokens:
                    assert token not in self.fates, "a second report"
                    self.fates[token] = fate


class Network:
    """Two devices, and an input that owns everything between them."""

    def __init__(self, keys: tuple[OwnKeys, OwnKeys]) -> None:
        counter = iter(range(1, 1 << 20))
        a, b = keys
        as_peer = [_peer(k.bundle.name, PeerState.APPROVED, k.bundle) for k in keys]

        def ids(_: int) -> bytes:
            return next(counter).to_bytes(4, "big")

        self.now = 1000.0
        self.devices = (Device(a, as_peer[1], ids), Device(b, as_peer[0], ids))
        self.flying: list[tuple[int, Send]] = []
        self.history: list[tuple[int, Send]] = []

    def collect(self) -> None:
        """What the devices send is on its way, and never forgotten."""
        for index, device in enumerate(self.devices):
            device.take()
            sent = [(1 - index, send) for send in device.out]
            device.out.clear()
            self.flying += sent
            self.history += sent
            other = self.devices[1 - index]
            assert set(device.came) <= set(other.handed.values()), "nobody sent that"
            for token, fate in other.fates.items():
                arrived = other.handed[token] in device.came
                assert arrived or fate is not Fate.CONFIRMED
                assert not arrived or fate not in (Fate.LOST, Fate.UNSENT)

    def arrive(self, to: int, frame: bytes, context: str | None) -> None:
        """A frame at a device."""
        self.devices[to].sessions.receive(self.now, frame, context)

    def forge(self, to: int, frame: bytes, context: str | None) -> None:
        """A frame that nobody sent so: nothing comes of it, but for an answer to message 1."""
        if any((i, s.frame, s.context) == (to, frame, context) for i, s in self.history):
            return
        device = self.devices[to]
        device.take()
        before = self.state(device)
        self.arrive(to, frame, context)
        device.take()
        if frame[:1] != b"\x02":
            assert self.state(device) == before, "a forged frame changed something"

    @staticmethod
    def state(device: Device) -> tuple[object, ...]:
        """What a forged frame must leave alone."""
        sessions = device.sessions
        return sessions.count(), sessions.half_open, len(device.came), dict(device.fates)

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for device in self.devices:
            if device.sessions.due <= self.now:
                device.sessions.tick(self.now)

    def settle(self) -> None:
        """On a network that works again every message gets its fate, and after the bound
        that docs/sessions.md states new ones arrive."""
        self.flying.clear()
        for device in self.devices:
            device.send(self.now)
        self.calm(75)
        for device in self.devices:
            device.send(self.now)
        last = [device.handed[len(device.handed)] for device in self.devices]
        self.calm(200)
        for index, device in enumerate(self.devices):
            assert len(device.fates) == len(device.handed), "a message without a fate"
            assert last[1 - index] in device.came, "a message that did not arrive"

    def calm(self, seconds: float) -> None:
        """Everything arrives, in order."""
        until = self.now + seconds
        while self.now < until:
            self.collect()
            while self.flying:
                to, send = self.flying.pop(0)
                self.arrive(to, send.frame, send.context)
                self.collect()
            self.tick(0.5)


def sessions_target() -> Target:
    """`Sessions` of two devices on a network that does what the input says."""
    keys = (own_keys("a"), own_keys("b"))

    def run(data: bytes) -> None:
        network = Network(keys)
        for at in range(0, min(len(data) - 4, 480), 5):
            kind, first, second, third, byte = data[at : at + 5]
            to, number = kind >> 7, first << 8 | second
            network.collect()
            chosen = network.history[number % len(network.history)] if network.history else None
            match kind & 7:
                case 0:
                    network.devices[to].send(network.now)
                case 1 | 2 if network.flying:
                    to, send = network.flying.pop(first % len(network.flying) if second else 0)
                    network.arrive(to, send.frame, send.context)
                case 3:
                    network.tick((first + 1) ** 2 / 256)
                case 4 if network.flying:
                    network.flying.pop(first % len(network.flying))
                case 5 if chosen:
                    network.arrive(chosen[0], chosen[1].frame, chosen[1].context)
                case 6 if chosen:
                    to, send = chosen
                    bent = bytearray(send.frame)
                    bent[(third << 8 | kind & 0x78) % len(bent)] ^= byte or 1
                    network.forge(to, bytes(bent), send.context)
                case _:
                    frame = data[at + 1 : at + 1 + first % 64]
                    if chosen and byte & 1:  # the head of a real one
                        frame = chosen[1].frame[:8] + frame
                    network.forge(to, frame, (None, "t", "u")[byte // 2 % 3])
        network.settle()

    return run


class _Folder:
    """A state folder that holds one file, in memory."""

    def __init__(self) -> None:
        self.path = Path("nowhere")
        self.files: dict[str, bytes] = {}

    def read(self, name: str, limit: int) -> bytes | None:
        """See `StateFolder`; the file is never too long here."""
        return self.files.get(name, b"")[:limit] or None

    def write(self, name: str, data: bytes) -> None:
        """See `StateFolder`."""
        self.files[name] = data


def identity_target() -> Target:
    """The identity file: changed from outside, and changed by somebody who has the key."""
    fake = _Folder()
    place = cast("StateFolder", fake)
    with Node.create(folder() / "device", name="device", suite=3, provider=PROVIDER) as node:
        assert node._state is not None
        identity = node._state.identity
        identity.write(place)
        files = dict(fake.files)
        genuine, key = files[IDENTITY_FILE], identity.storage_key
        name = identity.name

        def run(data: bytes) -> None:
            fake.files = dict(files)
            changed = bend([genuine], data)
            fake.files[IDENTITY_FILE] = changed
            if changed != genuine:
                try:
                    Identity.load(place, None)
                except PqcIiotError:
                    pass
                else:
                    raise AssertionError("a changed identity was taken")
            value = bend([genuine[:-32]], data)
            fake.files[IDENTITY_FILE] = value + key.mac(b"identity" + value)
            loaded = Identity.load(place, None)
            assert loaded.name == name or value != genuine[:-32]

        return run


def node_target() -> Target:
    """Frames at a device: bent ones are refused, and change nothing that it has accepted."""
    home = folder()
    sensor, plc = (
        OPEN.enter_context(Node.create(home / name, name=name, suite=3, provider=PROVIDER))
        for name in ("sensor", "plc")
    )
    sensor.peers.add_approved(plc.bundle)
    plc.peers.add_approved(sensor.bundle)
    genuine = [sensor.seal(b"x" * n, to="plc", context="t") for n in (0, 5, 40)]
    genuine.append(plc.seal(b"x", to="sensor", context="t"))
    assert plc._state is not None
    store = plc._state.store

    def run(data: bytes) -> None:
        frame = bend(genuine, data)
        context = "u" if frame in genuine else "t"
        before = list(store.rows(SEEN))
        try:
            plc.open(frame, context=context)
        except PqcIiotError:
            assert list(store.rows(SEEN)) == before
        else:
            raise AssertionError("a bent frame was taken")

    return run


def log_target() -> Target:
    """Everything that reads an audit log and the files beside it, over files that the input
    bent: problems are reported, never raised in another kind."""
    home = folder()
    with Node.create(home / "device", name="device", suite=3, provider=PROVIDER) as node:
        for number in range(3):
            node.audit.emit("peer_revoked", name=f"p{number}", operator="x")
        node.audit.flush()
    original = home / "device" / "audit.log"
    log = home / "bent" / "audit.log"
    log.parent.mkdir()
    kinds = (original, head_path(original), checkpoints_path(original))
    files = [file.read_bytes() for file in kinds if file.exists()]
    places = [log, head_path(log), checkpoints_path(log)]

    def run(data: bytes) -> None:
        which = data[0] % len(files) if data else 0
        for index, (place, content) in enumerate(zip(places, files, strict=False)):
            place.write_bytes(bend([content], data[1:]) if index == which else content)
        # The head file is the first one's: it knows how a changed log ended.
        assert verify(log).problem_count or log.read_bytes() == files[0]
        readers: tuple[Callable[[], object], ...] = (
            lambda: tail(log, 10),
            lambda: list(read_all(log)),
            lambda: list(read_checkpoints(log)),
            lambda: last_checkpoint(log),
            lambda: find_line(log, 2),
            lambda: Head.read(log),
            lambda: Cursor.read(head_path(log)),
        )
        for read in readers:
            with contextlib.suppress(PqcIiotError):
                read()

    return run
