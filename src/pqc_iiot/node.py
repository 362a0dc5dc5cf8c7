"""One device, without network: its keys, its allow-list, its numbers, its log.

A frame that comes in (`open`) passes the rules of `reception.py`, and each refusal leaves one
audit event; its number is durable before its message is handed over. A frame that goes out
(`seal`): the recipient is trusted, the suite allowed, the number reserved durably, then
signed and encrypted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from . import envelope
from .audit import AuditLog
from .backup import make_backup, restore_backup
from .bundle import Bundle
from .errors import (
    InvalidInputError,
    NotSupportedError,
    PqcIiotError,
    ReplayError,
    StateError,
)
from .inbox import Inbox
from .message import Incoming, Message
from .meter import Meter
from .opening import Open, Path
from .outbox import Outbox
from .peers import Peers
from .policy import Policy
from .presence import Presence
from .providers import PassphraseSource
from .reception import Admitted, Reception, described
from .sending import require_recipient
from .sessions import NodeSessions, PeerSession
from .starting import create_state, load_state, recover_state
from .state import (
    DEFAULT_STORE,
    State,
    reload_sinks,
    retire_keys,
    rotate_keys,
    store_policy,
)
from .status import HeldKey, Status, held_keys, status_of
from .suites import DEFAULT_SUITE
from .trail import require_log
from .witness import Witness

if TYPE_CHECKING:
    from .transports.bus import Bus


_AnyNode = TypeVar("_AnyNode", bound="Node")
_Step = TypeVar("_Step", Incoming, Admitted)
_Result = TypeVar("_Result", Admitted, Message)


class Node:
    """A device: its keys, its allow-list, its numbers and its log. Thread-safe.

    Every method raises `StateError` after `close`, in a forked child, and where the state
    cannot be made durable.
    """

    open = Open()

    def __init__(self, state: State) -> None:
        self._state: State | None = state
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._keystore = state.keystore
        self._freshness = state.freshness
        self._reception = Reception(state, self._lock)
        self.audit: AuditLog = state.audit
        self.meter: Meter | None = None
        """Counts messages while there is one; see `pqc_iiot.metrics`."""
        self.sessions = NodeSessions(self._usable_state, self._lock, self._refused)
        self.peers = Peers(
            self._keystore,
            self._refused_peer,
            self._lock,
            self._check_usable,
            self.sessions.refresh,
            self._freshness.outdate,
        )
        self.inbox = Inbox(self._usable_state, self._lock)
        self.outbox = Outbox(self._usable_state, self._lock, self.seal, self._refused)
        self.witness = Witness(self._usable_state, self._lock, self.seal)
        self.presence = Presence(self._usable_state, self._lock, self._refused)

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

    @classmethod
    def restore(
        cls: type[_AnyNode],
        path: Path,
        backup: bytes,
        backup_passphrase: PassphraseSource | None,
        *,
        provider: str = "software:",
        passphrase: PassphraseSource | None = None,
    ) -> _AnyNode:
        """Makes the device of a backup again, in an empty or new folder, with new keys that
        the old ones signed: peers take its bundle as that of a rotation.

        `provider` and `passphrase` are for the new keys, as for `create`; a signature key
        that stayed in hardware is opened by `passphrase`, too. `InvalidInputError` for what
        is no backup, `WrongPassphraseError` where it does not open; else as `create`.
        """
        return cls(restore_backup(path, backup, backup_passphrase, provider, passphrase))

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
                peer = require_recipient(self._usable_state(), to, len(payload))
                own = self._reception.identity.current
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

    def open_many(
        self, frames: Iterable[Incoming], *, durable: bool = False
    ) -> list[Message | PqcIiotError]:
        """Opens frames in order, with one commit for all: a message or the refusal each.

        With `durable`, messages go into the `inbox` in the same commit, and stay there until
        they are acknowledged; `QueueFullError` where it is full. `StateError` where the
        commit fails: then none of them has been accepted.
        """
        self._check_usable()
        if durable:
            self.inbox.check_room()
        begin = perf_counter() if self.meter is not None else 0.0
        try:
            require_log(self.audit, self.policy)
            admitted = [self._attempt(self._reception.admit, incoming) for incoming in frames]
            with self._lock:
                results = self._accept_all(admitted, durable)
        except StateError as error:
            self._refused(error)
            raise
        if self.meter is not None:
            self.meter.took("open", begin)
        return results

    def _accept_all(
        self, admitted: list[Admitted | PqcIiotError], durable: bool
    ) -> list[Message | PqcIiotError]:
        state = self._usable_state()
        try:
            results = [
                item
                if isinstance(item, PqcIiotError)
                else self._attempt(self._reception.accept, item)
                for item in admitted
            ]
            begin = perf_counter()
            if durable:
                accepted = zip(admitted, results, strict=True)
                state.queues.put(
                    (result, item.digest)
                    for item, result in accepted
                    if isinstance(item, Admitted) and isinstance(result, Message)
                )
            else:
                self._freshness.commit()
        except BaseException:
            self._freshness.forget_staged()
            raise
        if self.meter is not None:
            self.meter.took("commit", begin)
            for item, result in zip(admitted, results, strict=True):
                if isinstance(item, Admitted) and isinstance(result, Message):
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

    def _known(self, error: PqcIiotError, item: Incoming | Admitted) -> dict[str, str | int]:
        known = described(item)
        if isinstance(error, ReplayError):
            with self._lock:
                known["last_sequence"] = self._freshness.seen(bytes.fromhex(error.peer))[1]
        return known

    # Sessions

    def session(self, peer: str) -> PeerSession:
        """The session with the peer named so, set up when it is first used; `sessions` has
        them all."""
        self._check_usable()
        return PeerSession(self.sessions, peer)

    # The device itself

    @property
    def name(self) -> str:
        """The device's name."""
        return self._reception.identity.name

    @property
    def bundle(self) -> Bundle:
        """The public bundle of the current keys; `bundle.encoded` is what peers need."""
        return self._reception.identity.current.bundle

    @property
    def policy(self) -> Policy:
        """What this device allows; assign a new one to change it, durably."""
        return self._keystore.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        with self._lock:
            store_policy(self._usable_state(), policy)
            self.sessions.refresh()
            self._freshness.outdate()

    def rotate(self, suite: int | None = None) -> Bundle:
        """New keys, signed by the current ones: the bundle to announce to peers.

        Frames to the old keys are opened until the next rotation or `retire`; frames out
        are signed with the new ones from now on. `PolicyError` or `ProviderError` where
        the new keys cannot be made; nothing has changed then.
        """
        with self._lock:
            self._state = rotate_keys(self._usable_state(), suite)
            self._reception.identity = self._state.identity
            self._freshness.outdate()
            return self._reception.identity.current.bundle

    def retire(self) -> None:
        """Gives up the keys before the last rotation: frames to them open no more."""
        with self._lock:
            self._state = retire_keys(self._usable_state())
            self._reception.identity = self._state.identity
            self._freshness.outdate()

    def backup(self, passphrase: PassphraseSource) -> bytes:
        """Identity, policy and allow-list, encrypted under a passphrase of their own, for
        `restore`. Keys in hardware stay there, and are restored only beside it."""
        with self._lock:
            return make_backup(self._usable_state(), passphrase)

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
            return status_of(self._usable_state(), self.sessions.status())

    def held_keys(self) -> tuple[HeldKey, ...]:
        """How each private key is held, with the evidence: runs the hardware to find out."""
        with self._lock:
            return held_keys(self._usable_state())

    def quote(self, nonce: bytes) -> bytes:
        """Evidence for a verifier on another machine: the hardware's state, signed inside
        it, over the verifier's `nonce` (8 to 64 bytes, used once) and this device's
        fingerprint; with the bundle. `NotSupportedError` where the hardware cannot."""
        from .providers.evidence import encode_evidence, quote_nonce

        with self._lock:
            identity = self._usable_state().identity
            bundle = identity.current.bundle
            evidence = identity.provider.quote(quote_nonce(nonce, bundle.fingerprint))
        if evidence is None:
            raise NotSupportedError(
                f"{identity.provider.scheme}: cannot state anything of itself",
                hint="a TPM can: pqc-iiot init --provider tpm:",
            )
        return encode_evidence(evidence, bundle.encoded)

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
            self.sessions.close()
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
        count: int = 1,
    ) -> None:
        if not isinstance(error, InvalidInputError):
            details = known if known is None or callable(known) else partial(dict, known)
            self.audit.emit_error(error, details, count, peer=error.peer)
