"""What may go out, and to whom: asked before a message is protected in any way."""

from __future__ import annotations

from .errors import InvalidInputError
from .keystore import Peer
from .state import State
from .trail import require_log


def require_recipient(state: State, to: str, size: int) -> Peer:
    """The trusted peer named `to`, if a payload of `size` bytes may be sent there.

    `InvalidInputError`, `UnknownPeerError`, `RevokedPeerError` or `PolicyError` otherwise,
    `StateError` where policy demands a log and there is none.
    """
    policy = state.keystore.policy
    require_log(state.audit, policy)
    if size > policy.max_payload:
        raise InvalidInputError(f"the payload has {size} bytes, policy allows {policy.max_payload}")
    peer = state.keystore.recipient(to)
    policy.require_suite(peer.bundle.suite)
    policy.require_suite(state.identity.current.bundle.suite)
    return peer
