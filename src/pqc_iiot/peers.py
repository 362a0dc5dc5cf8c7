"""The allow-list as a node shows it: the keystore's rules, one at a time, each logged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from .bundle import MAX_BUNDLE_SIZE, Bundle, parse_bundle
from .errors import InvalidBundleError, InvalidInputError, PqcIiotError
from .keystore import Keystore, Peer, PeerState

_T = TypeVar("_T")


class Peers:
    """`node.peers`: who may send to this device and receive from it. Thread-safe."""

    def __init__(
        self,
        keystore: Keystore,
        refused: Callable[[PqcIiotError, Mapping[str, str | int]], None],
        lock: threading.RLock,
        check_usable: Callable[[], None],
        changed: Callable[[], None],
        outdate: Callable[[], None],
    ) -> None:
        self._keystore, self._refused = keystore, refused
        self._lock, self._check_usable, self._changed = lock, check_usable, changed
        self._outdate = outdate

    def add(self, bundle: bytes | Bundle, *, transport: str = "") -> Peer | None:
        """Takes in a bundle (encoded: at most 16,384 bytes).

        Under strict policy it waits for approval and None is returned; under TOFU the
        first one of a name is pinned. A signed successor of trusted keys replaces them.
        `InvalidBundleError`, `PolicyError`, `PeerKeyChangedError` or `RevokedPeerError`
        where it is refused.
        """

        def action(bundle: Bundle) -> Peer | None:
            return self._keystore.add(bundle, transport)

        return self._take(action, bundle, transport)

    def add_file(self, path: str | Path) -> Peer | None:
        """`add` for a file; `InvalidInputError` where it cannot be read."""
        return self.add(read_bundle(path))

    def add_approved(self, bundle: bytes | Bundle, name: str = "") -> Peer:
        """Adds and approves at once: the caller has compared the fingerprint."""
        return self._take(lambda bundle: self._keystore.add_approved(bundle, name), bundle, "")

    def approve(self, what: str, name: str = "") -> Peer:
        """Trusts a waiting bundle, by fingerprint (64 hex digits) or name."""
        return self._logged(lambda: self._keystore.approve(what, name), {})

    def revoke(self, what: str) -> tuple[Peer, ...]:
        """Refuses a peer at once, in both directions, and ends its sessions: its key sets,
        now revoked."""
        peers = self._logged(lambda: tuple(self._keystore.revoke(what)), {})
        with self._lock:
            self._outdate()
        return peers

    def get(self, what: str) -> Peer:
        """A peer in any state, by name or fingerprint; `UnknownPeerError` otherwise."""
        self._check_usable()
        with self._lock:
            return self._keystore.find(what)

    def list(self) -> tuple[Peer, ...]:
        """Every key set on the list, in any state."""
        self._check_usable()
        with self._lock:
            return tuple(self._keystore.peers())

    def pending(self) -> tuple[Bundle, ...]:
        """Bundles that wait for approval, oldest first; at most `policy.max_pending`."""
        self._check_usable()
        with self._lock:
            return tuple(self._keystore.pending())

    def counts(self) -> tuple[int, int]:
        """How many key sets are on the list, and how many bundles wait."""
        self._check_usable()
        with self._lock:
            return self._keystore.counts()

    def states(self) -> dict[PeerState, int]:
        """How many key sets are in which state. Reads the whole list, again only after a
        change; `StateTamperedError` where it is not authentic."""
        self._check_usable()
        with self._lock:
            found = self._keystore.states()
        return {state: found[state.value] for state in PeerState}

    def _take(self, action: Callable[[Bundle], _T], bundle: bytes | Bundle, transport: str) -> _T:
        known: dict[str, str | int] = {}
        if isinstance(bundle, bytes):
            known["length"] = len(bundle)
        if transport:
            known["transport"] = transport

        def parsed_first() -> _T:
            parsed = _parsed(bundle)
            presented = parsed.fingerprint.hex()
            known.update(name=parsed.name, presented=presented, serial=parsed.serial)
            return action(parsed)

        return self._logged(parsed_first, known)

    def _logged(self, action: Callable[[], _T], known: Mapping[str, str | int]) -> _T:
        self._check_usable()
        with self._lock:
            try:
                result = action()
            except PqcIiotError as error:
                self._refused(error, known)
                raise
            self._changed()
            return result


def read_bundle(path: str | Path) -> bytes:
    """A bundle file's content; `InvalidInputError` where it cannot be one."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BUNDLE_SIZE + 1)
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be read: {cause.strerror}") from cause
    if len(data) > MAX_BUNDLE_SIZE:
        raise InvalidBundleError(f"{path} is longer than any bundle")
    return data


def _parsed(bundle: bytes | Bundle) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else parse_bundle(bundle)
