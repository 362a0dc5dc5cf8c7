"""Open Cybersecurity Schema Framework 1.8: one event of the class that `classes.py` names.

Fields of `detail` that the class has no attribute for stand under `unmapped`.
"""

from __future__ import annotations

from typing import Final

from ..catalogue import Severity
from ..classes import (
    AUTHENTICATION,
    DETECTION_FINDING,
    ENTITY_MANAGEMENT,
    TUNNEL_ACTIVITY,
    classes_of,
)
from ..record import AuditRecord
from .common import PRODUCT, Json, digest, dump, milliseconds, sentence, version

OCSF_VERSION: Final = "1.8.0"

_IOT: Final = 7  # device.type_id
_DEVICE, _OTHER = 1, 99  # entity.type_id
_OUTCOMES: Final = {"success": 1, "failure": 2, "unknown": 0}  # status_id
_NEW: Final = 1  # status_id of a finding

# What observables are made of, and their type_id.
_HASH, _FILE_PATH, _USER_NAME, _RESOURCE_UID = 8, 45, 4, 10
_OBSERVED: Final = {
    "fingerprint": _HASH,
    "predecessor": _HASH,
    "presented": _HASH,
    "sha256": _HASH,
    "path": _FILE_PATH,
    "operator": _USER_NAME,
    "sender": _RESOURCE_UID,
    "key": _RESOURCE_UID,
}


def ocsf(record: AuditRecord) -> str:
    """The record as one OCSF event."""
    classes = classes_of(record.id, record.event)
    own_hash, time = digest(record), milliseconds(record)
    document: dict[str, Json] = {
        "class_uid": classes.ocsf,
        "category_uid": classes.ocsf // 1000,
        "activity_id": classes.activity,
        "type_uid": classes.ocsf * 100 + classes.activity,
        "severity_id": int(record.severity),
        "time": time,
        "message": sentence(record),
        "status_id": _NEW if classes.ocsf == DETECTION_FINDING else _OUTCOMES[classes.outcome],
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": version()},
            "profiles": ["host"],
            "sequence": record.seq,
            "uid": own_hash,
            "event_code": record.id,
            "log_name": "audit",
            "log_version": "1",
            "original_time": record.time,
        },
        "device": {"name": record.device or "unknown", "type_id": _IOT},
    }
    if record.reason:
        document["status_code"] = record.reason
    if "operator" in record.detail:
        document["actor"] = {"user": {"name": str(record.detail["operator"])}}
    document |= _of_class(classes.ocsf, record, own_hash, time)
    if observables := _observables(record):
        document["observables"] = observables
    document["unmapped"] = {"event": record.event, "prev": record.prev, **record.detail}
    return dump(document)


def _of_class(class_uid: int, record: AuditRecord, own_hash: str, time: int) -> dict[str, Json]:
    """What one class demands beyond what all have in common."""
    if class_uid == AUTHENTICATION:
        return {
            "user": _subject(record) | {"type_id": _OTHER, "type": "device"},
            "service": {"name": "pqc-iiot"},
        }
    if class_uid == ENTITY_MANAGEMENT:
        of_peer = bool(record.peer)
        kind: dict[str, Json] = {
            "type_id": _DEVICE if of_peer else _OTHER,
            "type": "Device" if of_peer else "key set",
        }
        return {"entity": _subject(record) | kind}
    if class_uid == TUNNEL_ACTIVITY:
        return {
            "tunnel_type_id": _OTHER,
            "tunnel_type": "protected message",
            "src_endpoint": _subject(record),
        }
    if class_uid == DETECTION_FINDING:
        finding: dict[str, Json] = {
            "uid": own_hash,
            "title": record.event.replace("_", " "),
            "desc": sentence(record),
            "created_time": time,
            "types": [record.event],
        }
        return {"finding_info": finding, "is_alert": record.severity >= Severity.HIGH}
    return {}


def _subject(record: AuditRecord) -> dict[str, Json]:
    """Whom a record is about: by fingerprint, else by the key id that a frame claims."""
    detail = record.detail
    uid = record.peer or detail.get("fingerprint") or detail.get("sender") or ""
    subject: dict[str, Json] = {"uid": str(uid)} if uid else {}
    if name := detail.get("name"):
        subject["name"] = str(name)
    return subject or {"name": "unknown"}


def _observables(record: AuditRecord) -> list[Json]:
    found: list[Json] = []
    if record.peer:
        found.append({"name": "peer", "type_id": _HASH, "value": record.peer})
    found += [
        {"name": f"unmapped.{name}", "type_id": type_id, "value": str(record.detail[name])}
        for name, type_id in _OBSERVED.items()
        if name in record.detail
    ]
    return found
