"""Witnesses: peers countersign each other's checkpoints, over the normal protected channel.

A device shows a witness its newest checkpoint and a proof that it continues the one that
this witness saw last. The witness remembers one checkpoint per peer, durably, and signs
the next only if it continues that one. So a device that rewrites, cuts or replaces its own
log, with its own keys, cannot show the result to a neighbour that saw an earlier state.

The messages are those of c2sp.org/tlog-witness, each the payload of a frame under the
context `pqc-iiot/witness/` and the recipient's name:

    old 20852014\\n<proof, a base64 hash per line>\\n\\n<checkpoint>      a request
    200\\n<checkpoint with the cosignature>                             signed
    409\\n20852100\\n                                                   what the witness saw last
    422\\n<reason>\\n                                                   another history
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from . import cose
from .account import account
from .audit.checkpoint import MAX_CHECKPOINT, Checkpoint
from .audit.journal import last_checkpoint
from .audit.merkle import HASH_SIZE, consistency_proof, verify_consistency
from .audit.tiles import Tiles
from .errors import AuthenticationError, InvalidFrameError, StateError
from .identity import note_key, note_signer
from .keystore import Peer
from .state import State
from .store import META, Row
from .trail import AUDIT_FILE

WITNESS: Final = "pqc-iiot/witness/"
"""Context of these messages, in front of the recipient's name. Keep it for them alone."""

_MAX_PROOF: Final = 63
PEER_LOGS: Final = b"witness of "
"""How the rows begin that keep what was seen of peers' logs."""
_SHOWN: Final = b"witnessed by "


class Seal(Protocol):
    """`node.seal`."""

    def __call__(self, payload: bytes, *, to: str, context: str) -> bytes:
        """See `Node.seal`."""


class Received(Protocol):
    """What is needed of a `Message`."""

    @property
    def sender(self) -> str:
        """Its sender's name here."""

    @property
    def payload(self) -> bytes:
        """Its payload."""

    @property
    def context(self) -> str:
        """What it is bound to."""


class Witness:
    """`node.witness`: gets checkpoints countersigned, and countersigns. Thread-safe."""

    def __init__(self, state: Callable[[], State], lock: threading.RLock, seal: Seal) -> None:
        self._state, self._lock, self._seal = state, lock, seal
        self._cosigned: dict[str, Checkpoint] = {}

    def context(self, peer: str) -> str:
        """The context, and so the topic, of messages to the peer with this name."""
        with self._lock:
            return WITNESS + self._peer(peer).bundle.name

    @property
    def own_context(self) -> str:
        """The context, and so the topic, of messages to this device."""
        return WITNESS + self._state().identity.name

    def request(self, peer: str) -> bytes:
        """A frame for `peer`, under `context(peer)`: everything logged so far, signed, and
        the proof that it continues what the peer saw last.

        Errors as `Node.seal`; `StateError` where no checkpoint can be signed.
        """
        checkpoint = self._state().audit.checkpoint()
        if checkpoint is None:
            raise StateError(
                "the audit log cannot be signed", hint="pqc-iiot audit verify shows why"
            )
        return self._request(peer, checkpoint, self._shown(peer))

    def receive(self, message: Received) -> bytes | None:
        """Takes a message under `own_context`; the answer, a frame for its sender, or None.

        Whatever contradicts an earlier checkpoint leaves an event of severity critical, here
        and at the sender. `InvalidFrameError` or `AuthenticationError` for anything that is
        not of these messages.
        """
        try:
            return self._receive(message)
        except (InvalidFrameError, AuthenticationError) as error:
            self._state().audit.emit_error(error, context=message.context)
            raise

    def cosigned(self, peer: str) -> Checkpoint | None:
        """The newest checkpoint that `peer` has countersigned for this device since the node
        was opened; older ones are in the file of checkpoints."""
        return self._cosigned.get(peer)

    def seen(self, peer: str) -> Checkpoint | None:
        """The checkpoint that this device countersigned last for a peer."""
        with self._lock:
            return self._load(peer)[0]

    def contradiction(self, peer: str) -> Checkpoint | None:
        """The first checkpoint, signed by the peer, that does not continue `seen`: with it,
        evidence that the peer has two histories."""
        with self._lock:
            return self._load(peer)[1]

    def forget(self, peer: str) -> None:
        """Starts anew with a peer whose log was rightly replaced."""
        with self._lock:
            state = self._state()
            with state.store.transaction():
                state.store.delete(META, PEER_LOGS + peer.encode())
            state.audit.emit("peer_forgotten", name=peer, operator=account())

    def _receive(self, message: Received) -> bytes | None:
        if message.context != self.own_context:
            raise InvalidFrameError("a message to a witness has another context")
        kind, _, rest = message.payload.partition(b"\n")
        if kind.startswith(b"old "):
            answer = self._witness(message.sender, message.payload)
            return self._seal(answer, to=message.sender, context=self.context(message.sender))
        if kind == b"200":
            self._take_cosigned(message.sender, rest)
        elif kind == b"409":
            return self._catch_up(message.sender, _number(rest.removesuffix(b"\n")))
        elif kind == b"422":
            self._emit_refused(message.sender, rest.decode("utf-8", "replace").strip())
        else:
            raise InvalidFrameError("these bytes are no message of a witness")
        return None

    # The witness's side

    def _witness(self, name: str, payload: bytes) -> bytes:
        """The answer to a request."""
        old, path, checkpoint = _parse_request(payload)
        with self._lock:
            state, peer = self._state(), self._peer(name)
            if checkpoint.signed_by([note_key(peer.bundle)]) is None:
                raise AuthenticationError("the checkpoint is not signed by its sender")
            seen, forked = self._load(name)
            size, root = (seen.size, seen.root) if seen else (0, b"")
            about: dict[str, str | int] = {
                "name": peer.name,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
            }
            same = seen is not None and (checkpoint.size, checkpoint.root) == (size, root)
            problem = _contradiction(seen, checkpoint) if seen else ""
            if not problem and not same:
                if old != size:
                    return b"409\n%d\n" % size
                if seen and not verify_consistency(
                    size, checkpoint.size, path, root, checkpoint.root
                ):
                    problem = "it does not continue the checkpoint before"
            if problem and seen:
                if forked is None:
                    self._store(name, seen, checkpoint)
                about |= {"last_size": size, "last_root": root.hex(), "contradiction": problem}
                state.audit.emit("peer_history_changed", peer=peer.fingerprint.hex(), **about)
                return f"422\n{problem}\n".encode()
            if not same:
                self._store(name, checkpoint, forked)  # durable before it is signed
            cosigned = checkpoint.cosigned(note_signer(state.identity.current))
            state.audit.emit("peer_witnessed", peer=peer.fingerprint.hex(), **about)
            return b"200\n" + cosigned.encode()

    def _load(self, peer: str) -> tuple[Checkpoint | None, Checkpoint | None]:
        row = self._state().store.get(META, PEER_LOGS + peer.encode())
        if row is None:
            return None, None
        match cose.loads(row.value, 4 * MAX_CHECKPOINT, "a witness's row", StateError):
            case [bytes(seen), bytes(forked)]:
                return Checkpoint.parse(seen), Checkpoint.parse(forked) if forked else None
        raise StateError("a witness's row has another shape")

    def _store(self, peer: str, seen: Checkpoint, forked: Checkpoint | None) -> None:
        value = cose.dumps([seen.encode(), forked.encode() if forked else b""])
        store = self._state().store
        with store.transaction():
            store.put(META, Row(PEER_LOGS + peer.encode(), value))

    # The device's side

    def _request(self, peer: str, checkpoint: Checkpoint, old: int) -> bytes:
        path: list[bytes] = []
        if old < checkpoint.size:
            tiles = Tiles(self._log, checkpoint.size)
            path = consistency_proof(old, checkpoint.size, tiles.root)
        lines = [f"old {old}", *(b64encode(part).decode() for part in path)]
        payload = "".join(f"{line}\n" for line in lines).encode() + b"\n" + checkpoint.encode()
        return self._seal(payload, to=peer, context=self.context(peer))

    def _take_cosigned(self, name: str, note: bytes) -> None:
        checkpoint = Checkpoint.parse(note)
        with self._lock:
            state, peer = self._state(), self._peer(name)
            own = [state.identity.current, state.identity.previous]
            signer = checkpoint.signed_by([note_key(keys.bundle) for keys in own if keys])
            key = note_key(peer.bundle)
            if signer is None or not checkpoint.cosigned_by([key]):
                raise AuthenticationError("no checkpoint of this device, countersigned by a peer")
            self._store_shown(name, checkpoint.size)
        self._cosigned[name] = checkpoint.only(signer, key)
        state.audit.add_cosigned(self._cosigned[name])
        state.audit.emit(
            "checkpoint_cosigned",
            peer=peer.fingerprint.hex(),
            name=name,
            size=checkpoint.size,
            root=checkpoint.root.hex(),
        )

    def _catch_up(self, peer: str, size: int) -> bytes | None:
        """The witness saw another checkpoint last than this device thought."""
        checkpoint = last_checkpoint(self._log)
        if checkpoint is None or size > checkpoint.size:
            self._emit_refused(peer, f"it has seen {size} records, this log has fewer")
            return None
        with self._lock:
            self._store_shown(peer, size)
        return self._request(peer, checkpoint, size)

    def _emit_refused(self, name: str, reason: str) -> None:
        state = self._state()
        with self._lock:
            fingerprint = self._peer(name).fingerprint.hex()
        last = last_checkpoint(self._log)
        state.audit.emit(
            "witness_refused",
            peer=fingerprint,
            name=name,
            contradiction=reason,
            size=last.size if last else 0,
            root=last.root.hex() if last else "",
        )

    def _shown(self, peer: str) -> int:
        with self._lock:
            row = self._state().store.get(META, _SHOWN + peer.encode())
        return int.from_bytes(row.value, "big") if row else 0

    def _store_shown(self, peer: str, size: int) -> None:
        store = self._state().store
        with store.transaction():
            store.put(META, Row(_SHOWN + peer.encode(), size.to_bytes(8, "big")))

    def _peer(self, name: str) -> Peer:
        return self._state().keystore.recipient(name)

    @property
    def _log(self) -> Path:
        return self._state().folder.path / AUDIT_FILE


def _contradiction(seen: Checkpoint, checkpoint: Checkpoint) -> str:
    """What cannot be of two checkpoints of one peer, whatever their proof."""
    if checkpoint.origin != seen.origin:
        return "it is of another log"
    if checkpoint.size < seen.size:
        return "it covers fewer records than the checkpoint before"
    if checkpoint.size == seen.size and checkpoint.root != seen.root:
        return "it has another root for the same records"
    return ""


def _parse_request(payload: bytes) -> tuple[int, list[bytes], Checkpoint]:
    head, empty, note = payload.partition(b"\n\n")
    old, *lines = head.split(b"\n")
    try:
        path = [b64decode(line, validate=True) for line in lines]
    except ValueError as cause:
        raise InvalidFrameError("a request to a witness has another shape") from cause
    if not empty or len(path) > _MAX_PROOF or any(len(part) != HASH_SIZE for part in path):
        raise InvalidFrameError("a request to a witness has another shape")
    return _number(old.removeprefix(b"old ")), path, Checkpoint.parse(note)


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or (text[:1] == b"0" and text != b"0"):
        raise InvalidFrameError("a message of a witness has no number where one belongs")
    return int(text)
