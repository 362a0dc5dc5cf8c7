"""Elastic Common Schema 9.4: what ECS has a field for stands there, the rest of `detail`
under `pqc_iiot`, the product's own name, as ECS asks of custom fields."""

from __future__ import annotations

from typing import Final

from ..classes import DETECTION_FINDING, classes_of
from ..record import AuditRecord
from .common import PRODUCT, Json, digest, dump, sentence, version

ECS_VERSION: Final = "9.4.0"

_HASHES: Final = ("fingerprint", "predecessor", "presented", "sha256")


def ecs(record: AuditRecord) -> str:
    """The record as one ECS document."""
    classes, detail, own_hash = classes_of(record.id, record.event), record.detail, digest(record)
    event: dict[str, Json] = {
        "kind": "alert" if classes.ocsf == DETECTION_FINDING else "event",
        "category": [classes.category],
        "type": [classes.type],
        "action": record.event,
        "outcome": classes.outcome,
        "code": record.id,
        "severity": int(record.severity),
        "sequence": record.seq,
        "hash": own_hash,
        "id": own_hash,
        "module": "pqc_iiot",
        "dataset": "pqc_iiot.audit",
        "provider": "pqc-iiot",
    }
    document: dict[str, Json] = {
        "@timestamp": record.time,
        "ecs": {"version": ECS_VERSION},
        "message": sentence(record),
        "log": {"level": record.severity.label},
        "event": event,
        "observer": _without_empty(
            name=record.device, product=PRODUCT, vendor=PRODUCT, type="device", version=version()
        ),
    }
    if record.reason:
        event["reason"] = record.reason
        document["error"] = {"code": record.reason}
    if record.device:
        document["host"] = {"name": record.device}
    if "operator" in detail:
        document["user"] = {"name": str(detail["operator"])}
    if "path" in detail:
        document["file"] = {"path": str(detail["path"])}
    hashes = [record.peer, *(str(detail[name]) for name in _HASHES if name in detail)]
    related = {
        "hash": _unique(hashes),
        "hosts": _unique([record.device, str(detail.get("name", ""))]),
        "user": _unique([str(detail.get("operator", ""))]),
    }
    document["related"] = {name: values for name, values in related.items() if values}
    document["pqc_iiot"] = {"prev": record.prev} | _without_empty(peer=record.peer) | dict(detail)
    return dump(document)


def _without_empty(**values: Json) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value}


def _unique(values: list[str]) -> list[Json]:
    return [*dict.fromkeys(filter(None, values))]
