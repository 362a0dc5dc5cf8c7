"""What an event is called elsewhere: its OCSF class and its ECS categories, in one table.

Every event has a row by its kind (the first digit of its id); an event that differs from
its kind has its own. So new events of the catalogue are classified without being named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Classes:
    """`ocsf` is the class_uid and `activity` its activity_id (OCSF 1.8); `category` and
    `type` are ECS's `event.category` and `event.type`, `outcome` its `event.outcome`."""

    ocsf: int
    activity: int
    category: str
    type: str
    outcome: str = "success"


AUTHENTICATION: Final = 3002
ENTITY_MANAGEMENT: Final = 3004
TUNNEL_ACTIVITY: Final = 4014
DETECTION_FINDING: Final = 2004
CONFIG_STATE: Final = 5019

_LOG, _LOGON, _OPEN, _OTHER, _FOUND = 1, 1, 1, 99, 1
_CREATE, _READ, _UPDATE, _DELETE, _ENROLL, _ENABLE, _DISABLE = 1, 2, 3, 4, 6, 8, 9

_DENIED = Classes(TUNNEL_ACTIVITY, _OPEN, "network", "denied", "failure")
_NO_LOGON = Classes(AUTHENTICATION, _LOGON, "authentication", "start", "failure")
_ATTACK = Classes(DETECTION_FINDING, _FOUND, "intrusion_detection", "denied", "failure")
_INTEGRITY = Classes(DETECTION_FINDING, _FOUND, "configuration", "change", "failure")

_BY_KIND: Final[Mapping[str, Classes]] = MappingProxyType(
    {
        "1": Classes(CONFIG_STATE, _LOG, "configuration", "info"),
        "2": Classes(ENTITY_MANAGEMENT, _UPDATE, "iam", "change"),
        "3": Classes(ENTITY_MANAGEMENT, _UPDATE, "iam", "change"),
        "4": _DENIED,
        "5": Classes(CONFIG_STATE, _LOG, "configuration", "info", "failure"),
        "6": Classes(CONFIG_STATE, _LOG, "configuration", "info"),
    }
)

_UNKNOWN: Final = Classes(CONFIG_STATE, 0, "configuration", "info", "unknown")

_BY_EVENT: Final[Mapping[str, Classes]] = MappingProxyType(
    {
        "started": Classes(CONFIG_STATE, _LOG, "process", "start"),
        "stopped": Classes(CONFIG_STATE, _LOG, "process", "end"),
        "self_test_failed": _INTEGRITY,
        "policy_changed": Classes(CONFIG_STATE, _LOG, "configuration", "change"),
        "key_made": Classes(ENTITY_MANAGEMENT, _CREATE, "iam", "creation"),
        "key_loaded": Classes(ENTITY_MANAGEMENT, _READ, "iam", "info"),
        "key_unlock_failed": Classes(AUTHENTICATION, _LOGON, "authentication", "start", "failure"),
        "key_device_refused": _NO_LOGON,
        "key_device_locked_out": _NO_LOGON,
        "key_policy_mismatch": _INTEGRITY,
        "key_integrity_failed": _INTEGRITY,
        "peer_pending": Classes(ENTITY_MANAGEMENT, _CREATE, "iam", "creation"),
        "peer_pending_seen": Classes(ENTITY_MANAGEMENT, _READ, "iam", "info"),
        "peer_pending_dropped": Classes(ENTITY_MANAGEMENT, _DELETE, "iam", "deletion", "failure"),
        "peer_added": Classes(ENTITY_MANAGEMENT, _ENROLL, "iam", "creation"),
        "peer_approved": Classes(ENTITY_MANAGEMENT, _ENABLE, "iam", "change"),
        "peer_pinned": Classes(ENTITY_MANAGEMENT, _ENROLL, "iam", "creation"),
        "peer_revoked": Classes(ENTITY_MANAGEMENT, _DISABLE, "iam", "change"),
        "refused_invalid_bundle": _NO_LOGON,
        "refused_authentication_failed": _ATTACK,
        "refused_unknown_peer": _NO_LOGON,
        "refused_revoked_peer": _NO_LOGON,
        "refused_replay": _ATTACK,
        "refused_peer_key_changed": _ATTACK,
        "state_tampered": _INTEGRITY,
        "state_rollback": _INTEGRITY,
        "state_counter_rollback": _INTEGRITY,
        "state_recovered": Classes(CONFIG_STATE, _LOG, "configuration", "change"),
        "audit_head_mismatch": _INTEGRITY,
        "events_dropped": Classes(CONFIG_STATE, _LOG, "configuration", "info", "failure"),
        "sink_failed": Classes(CONFIG_STATE, _LOG, "configuration", "info", "failure"),
        "sink_added": Classes(CONFIG_STATE, _LOG, "configuration", "change"),
        "sink_removed": Classes(CONFIG_STATE, _LOG, "configuration", "change"),
    }
)


def classes_of(id: str, event: str) -> Classes:  # noqa: A002
    """The row of an event, also of one that this version does not know."""
    return _BY_EVENT.get(event) or _BY_KIND.get(id.removeprefix("PQC-")[:1], _UNKNOWN)
