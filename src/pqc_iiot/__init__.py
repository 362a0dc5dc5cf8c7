"""Post-quantum end-to-end protection for industrial messages.

    from pqc_iiot import Node

    with Node.open("/var/lib/pqc-iiot") as node:
        frame = node.seal(b"21.5", to="plc-7", context="line1/setpoint")

`Node` holds every rule and no network; `node.peers` is the allow-list; `node.mqtt(url)`
connects to a broker. Everything raises kinds of `PqcIiotError`.
"""

from __future__ import annotations

from .bundle import Bundle, format_fingerprint
from .errors import (
    AuthenticationError,
    BrokerRefusedError,
    DuplicateError,
    InvalidBundleError,
    InvalidFrameError,
    InvalidInputError,
    PeerKeyChangedError,
    PolicyError,
    PqcIiotError,
    ProviderError,
    QueueFullError,
    ReplayError,
    RevokedPeerError,
    StateError,
    TransportError,
    UnknownPeerError,
)
from .keystore import Peer, PeerState, TofuWarning
from .message import Incoming, Message, Outgoing
from .node import Node
from .policy import Policy, SessionUse, Trust

__all__ = [
    "AuthenticationError",
    "BrokerRefusedError",
    "Bundle",
    "DuplicateError",
    "Incoming",
    "InvalidBundleError",
    "InvalidFrameError",
    "InvalidInputError",
    "Message",
    "Node",
    "Outgoing",
    "Peer",
    "PeerKeyChangedError",
    "PeerState",
    "Policy",
    "PolicyError",
    "PqcIiotError",
    "ProviderError",
    "QueueFullError",
    "ReplayError",
    "RevokedPeerError",
    "SessionUse",
    "StateError",
    "TofuWarning",
    "TransportError",
    "Trust",
    "UnknownPeerError",
    "format_fingerprint",
]
