"""One device, without network: every rule, in order.

A frame that comes in (`open`) must pass, and each refusal leaves one audit event:

 1. it is a frame of this protocol, and not too large;
 2. its recipient is a key set of this device;
 3. its suite is allowed by policy;
 4. its sender is trusted: approved or pinned, not revoked, and if its keys were replaced,
    still within the overlap;
 5. its sequence number is above the last one seen;
 6. it decrypts and its signature verifies, for this context;
 7. under the lock, 4 and 5 still hold;
 8. the number is durable. Only then is the message handed over.

Nothing changes before 7. A frame that goes out (`seal`): the recipient is trusted, the
suite allowed, the number reserved durably, then signed and encrypted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, overload

from . import envelope
from .audit import AuditLog
from .bundle import KID_SIZE, Bundle
from .errors import (
    DuplicateError,
    InvalidFrameError,
    InvalidInputError,
    PqcIiotError,
    ReplayError,
    RevokedPeerError,
    StateError,
    WrongRecipientError,
)
from .freshness import Freshness, frame_digest
from .identity import OwnKeys
from .keystore import Peer, PeerState
from .meter import Meter
from .peers import Peers
from .policy import Policy
from .providers import PassphraseSource
from .state import (
    DEFAULT_STORE,
    State,
    create_state,
    load_state,
    recover_state,
    reload_sinks,
    retire_keys,
    rotate_keys,
    store_policy,
)
from .status import Status, status_of
from .suites import DEFAULT_SUITE
from .witness import Witness

if TYPE_CHECKING:
    from .transports.bus import Bus

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Message:
    """What `open` returns: verified, fresh, from a trusted peer.

    `sender` is the peer's name here, `fingerprint` its key set's (32 bytes), `sequence`
    the sender's number for it, `context` what it is bound to (an MQTT topic).
    """

    sender: str
    sequence: int
    payload: bytes
    context: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """A frame as a transport brings it. `redelivered`: the transport says that it may
    have brought it before (retained); this only ever makes a refusal quieter. `transport`
    is the transport's name, for the log."""

    frame: bytes
    context: str
    redelivered: bool = False
    transport: str = ""


class _Admitted(NamedTuple):
    header: envelope.Header
    peer: Peer
    digest: bytes
    payload: bytes
    context: str
    trust: int
    """The keystore's count of changes when `peer` was found trusted."""
    transport: str


_AnyNode = TypeVar("_AnyNode", bound="Node")
_Step = TypeVar("_Step", Incoming, _Admitted)
_Result = TypeVar("_Result", _Admitted, Message)


class OpenNode(Protocol):
    """`Node.open(folder)`: opens a device's state folder."""

    def __call__(
        self,
        path: Path,
        *,
        passphrase: PassphraseSource | None = None,
        store: str = DEFAULT_STORE,
    ) -> Node:
        """See `Node.load`."""


class OpenFrame(Protocol):
    """`node.open(frame)`: opens a frame."""

    def __call__(self, frame: bytes, *, context: str = "", redelivered: bool = False) -> Message:
        """See `Node.open_frame`."""


class _Open:
    """`open`, as both faces are drawn: of the class a folder, of a node a frame."""

    @overload
    def __get__(self, node: None, owner: type[Node]) -> OpenNode: ...
    @overload
    def __get__(self, node: Node, owner: type[Node]) -> OpenFrame: ...
    def __get__(self, node: Node | None, owner: type[Node]) -> OpenNode | OpenFrame:
        return owner.load if node is None else node.open_frame


class Node:
    """A device: its keys, its allow-list, its numbers and its log. Thread-safe.

    Every method raises `StateError` after `close`, in a forked child, and where the state
    cannot be made durable.
    """

    open = _Open()

    def __init__(self, state: State) -> None:
        self._state: State | None = state
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._identity, self._keystore = state.identity, state.keystore
        self._freshness: Freshness = state.freshness
        self.audit: AuditLog = state.audit
        self.meter: Meter | None = None
        """Counts messages while there is one; see `pqc_iiot.metrics`."""
        self.peers = Peers(self._keystore, self._refused_peer, self._lock, self._check_usable)
        self.witness = Witness(self._usable_state, self._lock, self.seal)

    # Making and opening

    @classmethod
    def create(
        cls: type[_AnyNode],
        path: Path,
        *,
        name: str,
        suite: int = DEFAULT_SUITE,
        provider: str = "software:",
        policy: Policy | None = None,
        passphrase: PassphraseSource | None = None,
        store: str = DEFAULT_STORE,
    ) -> _AnyNode:
        """Makes a device in an empty or new folder.

        `passphrase` gives the secret that protects the keys at rest (see
        `pqc_iiot.providers.passphrase`); `store` is `sqlite:FILE`, or `memory:` for tests
        and measurements, which keeps nothing. `InvalidInputError` for a bad name or a folder in
        use, `PolicyError` where suite or custody are not allowed, `ProviderError` from the
        provider, `StateError` where it cannot be stored.
        """
        return cls(create_state(path, name, suite, provider, policy or Policy(), passphrase, store))

    @classmethod
    def load(
        cls: type[_AnyNode],
        path: Path,
        *,
        passphrase: PassphraseSource | None = None,
        store: str = DEFAULT_STORE,
    ) -> _AnyNode:
        """Opens the device in a folder; also written `Node.open(path)`.

        `StateError` and its kinds where the folder is locked, unsafe, missing a file,
        changed from outside or older than it must be; `ProviderError` for the keys.
        """
        return cls(load_state(path, passphrase, store))

    @classmethod
    def recover(
        cls: type[_AnyNode], path: Path, *, passphrase: PassphraseSource | None = None
    ) -> _AnyNode:
        """Makes a device usable whose state was lost, changed or put back to an old copy.

        New keys (signed by the old ones) make every captured frame worthless, and the
        allow-list starts empty: what was approved and revoked is unknown. The old files
        are kept beside with the ending `.old`.
        """
        return cls(recover_state(path, passphrase))

    # Out

    def seal(self, payload: bytes, *, to: str, context: str = "", transport: str = "") -> bytes:
        """A frame that only the peer named `to` can open, under the same context.

        `payload` has at most `policy.max_payload` bytes; `transport` is the name of the one
        that will carry it, for the log. `UnknownPeerError`, `RevokedPeerError`,
        `PolicyError` or `InvalidInputError` where it must not be sent.
        """
        self._check_usable()
        meter = self.meter
        begin = perf_counter() if meter is not None else 0.0
        encoded = envelope.encode_context(context)
        try:
            with self._lock:
                if len(payload) > self.policy.max_payload:
                    raise InvalidInputError(
                        f"the payload has {len(payload)} bytes,"
                        f" policy allows {self.policy.max_payload}"
                    )
                peer = self._keystore.recipient(to)
                self.policy.require_suite(peer.bundle.suite)
                own = self._identity.current
                self.policy.require_suite(own.bundle.suite)
                sequence = self._freshness.next_number()
        except PqcIiotError as error:
            known: dict[str, str | int] = {"name": to, "context": context}
            self._refused(error, known | ({"transport": transport} if transport else {}))
            if meter is not None:
                meter.refused("out", transport, error.code)
            raise
        frame = envelope.seal(own, peer, sequence, encoded, bytes(payload))
        if meter is not None:
            meter.accepted("out", transport)
            meter.took("seal", begin)
        return frame

    # In

    def open_frame(self, frame: bytes, *, context: str = "", redelivered: bool = False) -> Message:
        """Opens one frame; also written `node.open(frame)`.

        Raises `InvalidFrameError`, `WrongRecipientError`, `PolicyError`,
        `UnknownPeerError`, `RevokedPeerError`, `DuplicateError`, `ReplayError` or
        `AuthenticationError`; never returns something doubtful. Costs one commit: for many
        frames at once `open_many` shares it.
        """
        (result,) = self.open_many([Incoming(frame, context, redelivered)])
        if isinstance(result, PqcIiotError):
            raise result
        return result

    def open_many(self, frames: Iterable[Incoming]) -> list[Message | PqcIiotError]:
        """Opens frames in order, with one commit for all: a message or the refusal each.

        `StateError` where the commit fails: then none of them has been accepted.
        """
        self._check_usable()
        begin = perf_counter() if self.meter is not None else 0.0
        try:
            admitted = [self._attempt(self._admit, incoming) for incoming in frames]
            with self._lock:
                results = self._accept_all(admitted)
        except StateError as error:
            self._refused(error)
            raise
        if self.meter is not None:
            self.meter.took("open", begin)
        return results

    def _accept_all(self, admitted: list[_Admitted | PqcIiotError]) -> list[Message | PqcIiotError]:
        self._check_usable()
        try:
            results = [
                item if isinstance(item, PqcIiotError) else self._attempt(self._accept, item)
                for item in admitted
            ]
            begin = perf_counter()
            self._freshness.commit()
        except BaseException:
            self._freshness.forget_staged()
            raise
        if self.meter is not None:
            self.meter.took("commit", begin)
            for item, result in zip(admitted, results, strict=True):
                if isinstance(item, _Admitted) and isinstance(result, Message):
                    self.meter.accepted("in", item.transport)
        return results

    def _attempt(self, step: Callable[[_Step], _Result], item: _Step) -> _Result | PqcIiotError:
        try:
            return step(item)
        except StateError:
            raise
        except PqcIiotError as error:
            self._refused(error, partial(self._known, error, item))
            if self.meter is not None:
                self.meter.refused("in", item.transport, error.code)
            return error

    def _known(self, error: PqcIiotError, item: Incoming | _Admitted) -> dict[str, str | int]:
        known = _described(item)
        if isinstance(error, ReplayError):
            with self._lock:
                known["last_sequence"] = self._freshness.seen(bytes.fromhex(error.peer))[1]
        return known

    def _admit(self, incoming: Incoming) -> _Admitted:
        frame, policy = incoming.frame, self.policy
        if len(frame) > policy.max_payload + envelope.MAX_OVERHEAD:  # 1
            raise InvalidFrameError(f"the frame has {len(frame)} bytes, more than policy allows")
        header = envelope.parse(frame)
        context = envelope.encode_context(incoming.context)
        digest = frame_digest(frame, context)
        stale = False
        with self._lock:
            trust = self._keystore.changes
            own = self._own(header)  # 2
            policy.require_suite(header.suite)  # 3
            peer = self._trusted(header)  # 4
            try:
                self._freshness.check(peer.fingerprint, header.sequence, digest)  # 5
            except DuplicateError:
                raise
            except ReplayError:
                if not incoming.redelivered:
                    raise
                stale = True
        payload = envelope.open_(header, own, peer, context)  # 6
        if len(payload) > policy.max_payload:  # 1, exactly
            raise InvalidFrameError(f"the payload has {len(payload)} bytes, more than allowed")
        if stale:
            # A retained message may be older than the frames that are remembered. It is
            # authentic, and the sender uses no number twice: it is the identical one.
            raise DuplicateError(
                f"frame {header.sequence} came again, unchanged", peer=peer.fingerprint.hex()
            )
        return _Admitted(header, peer, digest, payload, incoming.context, trust, incoming.transport)

    def _accept(self, item: _Admitted) -> Message:
        header, peer, digest, payload, context, trust, _ = item
        sender, sequence = peer.bundle.fingerprint, header.sequence
        if trust != self._keystore.changes or peer.state is PeerState.SUPERSEDED:
            peer = self._trusted(header)  # 7
        self._freshness.check(sender, sequence, digest)
        self._freshness.stage(sender, sequence, digest)
        return Message(peer.name, sequence, payload, context, sender)

    def _own(self, header: envelope.Header) -> OwnKeys:
        own = self._identity.own_keys(header.recipient)
        if own is None or own.bundle.suite is not header.suite:
            raise WrongRecipientError("the frame is addressed to other keys than this device's")
        return own

    def _trusted(self, header: envelope.Header) -> Peer:
        peer = self._keystore.sender(header.sender)
        self.policy.require_suite(peer.bundle.suite)
        if peer.state is PeerState.SUPERSEDED:
            successor = self._keystore.sender(peer.successor[:KID_SIZE])
            first, last = self._freshness.seen(peer.successor)
            if successor.state is PeerState.SUPERSEDED or (
                last and last >= first + self.policy.rotation_overlap
            ):
                raise RevokedPeerError(
                    f"{peer.name} has new keys, and the overlap for the old ones is over",
                    peer=peer.fingerprint.hex(),
                )
        return peer

    # The device itself

    @property
    def name(self) -> str:
        """The device's name."""
        return self._identity.name

    @property
    def bundle(self) -> Bundle:
        """The public bundle of the current keys; `bundle.encoded` is what peers need."""
        return self._identity.current.bundle

    @property
    def policy(self) -> Policy:
        """What this device allows; assign a new one to change it, durably."""
        return self._keystore.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        with self._lock:
            store_policy(self._usable_state(), policy)

    def rotate(self, suite: int | None = None) -> Bundle:
        """New keys, signed by the current ones: the bundle to announce to peers.

        Frames to the old keys are opened until the next rotation or `retire`; frames out
        are signed with the new ones from now on. `PolicyError` or `ProviderError` where
        the new keys cannot be made; nothing has changed then.
        """
        with self._lock:
            self._state = rotate_keys(self._usable_state(), suite)
            self._identity = self._state.identity
            return self._identity.current.bundle

    def retire(self) -> None:
        """Gives up the keys before the last rotation: frames to them open no more."""
        with self._lock:
            self._state = retire_keys(self._usable_state())
            self._identity = self._state.identity

    def reload(self) -> None:
        """Reads the sinks' settings (`audit.json`) again: what is new there begins, what is
        gone ends. `InvalidInputError` where they cannot be used; nothing has changed then."""
        sinks = reload_sinks(self._usable_state())
        with self._lock:
            self._state = replace(self._usable_state(), sinks=sinks)

    def status(self) -> Status:
        """Facts and counters for people and monitoring."""
        self._check_usable()
        with self._lock:
            return status_of(self._usable_state())

    def mqtt(self, url: str, **options: str | int | bool) -> Bus:
        """An MQTT connection for this device, to be used as an asynchronous context
        manager; `options` as in `pqc_iiot.transports.mqtt.MqttOptions.from_url`."""
        # The one import that looks upwards, and only when somebody asks for it.
        from .transports.bus import mqtt_bus

        return mqtt_bus(self, url, **options)

    def close(self) -> None:
        """Ends cleanly; idempotent. In a forked child it only lets go."""
        if os.getpid() != self._pid:  # The lock may be held for ever.
            self._state = None
            return
        with self._lock:
            state, self._state = self._state, None
            if state is not None:
                state.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _usable_state(self) -> State:
        if self._state is None:
            raise StateError("the node is closed", hint="open it again: Node.open(path)")
        if os.getpid() != self._pid:
            raise StateError(
                "this process is a fork of the one that owns the state",
                hint="open the node after forking, in one process only",
            )
        return self._state

    def _check_usable(self) -> None:
        self._usable_state()

    def _refused_peer(self, error: PqcIiotError, known: Mapping[str, str | int]) -> None:
        self._refused(error, known)
        if self.meter is not None and not isinstance(error, InvalidInputError):
            self.meter.refused_bundle(error.code)

    def _refused(
        self,
        error: PqcIiotError,
        known: Mapping[str, str | int] | Callable[[], dict[str, str | int]] | None = None,
    ) -> None:
        if not isinstance(error, InvalidInputError):
            details = known if known is None or callable(known) else partial(dict, known)
            self.audit.emit_error(error, details, peer=error.peer)


def _described(item: Incoming | _Admitted) -> dict[str, str | int]:
    """What a refusal's event says of a frame: its claims, never its payload."""
    known: dict[str, str | int] = {"context": item.context}
    if item.transport:
        known["transport"] = item.transport
    if isinstance(item, _Admitted):
        header = item.header
    else:
        known["length"] = len(item.frame)
        try:
            header = envelope.parse(item.frame)
        except InvalidFrameError:
            return known
    return known | {
        "key": header.recipient.hex(),
        "sender": header.sender.hex(),
        "sequence": header.sequence,
        "suite": header.suite.id,
    }
