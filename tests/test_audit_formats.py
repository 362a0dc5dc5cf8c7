"""Formats against what their publishers demand: OCSF's own schema, ECS's field reference,
CEF's rules of escaping; and that nothing that a peer sends breaks out of its field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from pqc_iiot.audit import EVENTS, FIELDS, AuditRecord, Event, Severity
from pqc_iiot.audit.classes import classes_of
from pqc_iiot.audit.formats import FORMATS, cef, ecs, native, ocsf
from pqc_iiot.audit.formats.ocsf import OCSF_VERSION
from pqc_iiot.audit.record import leaf_hash

PEER = "0123456789abcdef" * 4
HOSTILE = 'a|b=c\\d"e\r\nCEF:0|x|\x1b[2J\u2028\x85 …🔒'

# The fields used here as Elastic Common Schema 9.4.0 defines them: type, and whether
# `normalize` says that they are lists. Compared with ecs_flat of the package @elastic/ecs 9.4.0.
ECS_FIELDS: dict[str, tuple[str, bool]] = {
    "@timestamp": ("date", False),
    "ecs.version": ("keyword", False),
    "message": ("match_only_text", False),
    "log.level": ("keyword", False),
    "event.kind": ("keyword", False),
    "event.category": ("keyword", True),
    "event.type": ("keyword", True),
    "event.action": ("keyword", False),
    "event.outcome": ("keyword", False),
    "event.code": ("keyword", False),
    "event.severity": ("long", False),
    "event.sequence": ("long", False),
    "event.hash": ("keyword", False),
    "event.id": ("keyword", False),
    "event.module": ("keyword", False),
    "event.dataset": ("keyword", False),
    "event.provider": ("keyword", False),
    "event.reason": ("keyword", False),
    "error.code": ("keyword", False),
    "observer.name": ("keyword", False),
    "observer.product": ("keyword", False),
    "observer.vendor": ("keyword", False),
    "observer.type": ("keyword", False),
    "observer.version": ("keyword", False),
    "host.name": ("keyword", False),
    "user.name": ("keyword", False),
    "file.path": ("keyword", False),
    "related.hash": ("keyword", True),
    "related.hosts": ("keyword", True),
    "related.user": ("keyword", True),
}
ECS_REQUIRED = {"@timestamp", "ecs.version"}
ECS_KINDS = {"alert", "event", "state", "metric"}
ECS_OUTCOMES = {"failure", "success", "unknown"}
# `expected_event_types` of each allowed value of `event.category`.
ECS_TYPES = {
    "authentication": {"start", "end", "info"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "intrusion_detection": {"allowed", "denied", "info"},
    "network": {
        "access", "allowed", "connection", "denied", "end", "info", "protocol", "start",
    },
    "process": {"access", "change", "end", "info", "start"},
}  # fmt: skip


def record(event: Event, text: str = "7", peer: str = "", device: str = "press-4") -> AuditRecord:
    return AuditRecord(
        seq=7,
        time="2026-02-03T04:05:06.789Z",
        id=event.id,
        event=event.name,
        severity=event.severity,
        reason=event.reason,
        device=device,
        peer=peer,
        detail={
            name: text if FIELDS[name].type is str else FIELDS[name].type(2**63)
            for name in sorted(event.fields)
        },
        prev="c" * 64,
    )


def every_record() -> Iterator[AuditRecord]:
    for event in EVENTS.values():
        yield record(event)
        yield record(event, HOSTILE, PEER, HOSTILE)
        row = record(event, device="")
        yield AuditRecord(**{name: getattr(row, name) for name in row.__slots__} | {"detail": {}})


@cache
def validator(class_uid: int) -> Draft202012Validator:
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OCSF_VERSION))
    name = schema.lookup_class_name_from_uid(class_uid)
    return Draft202012Validator(schema.get_class_schema(name, ["host"]))


def test_every_record_is_one_printable_line_in_every_format() -> None:
    for name, format_ in FORMATS.items():
        for each in every_record():
            line = format_(each)
            assert line.isprintable(), (name, line)
            assert name == "cef" or line.isascii()
            assert len(line.encode()) < 32 * 1024


def test_native_is_the_line_of_the_log() -> None:
    for each in every_record():
        assert native(each).encode() == each.encode()


def test_ocsf_fits_its_published_schema() -> None:
    for each in every_record():
        document = json.loads(ocsf(each))
        problems = [
            f"{each.event}: {list(problem.path)}: {problem.message}"
            for problem in validator(document["class_uid"]).iter_errors(document)
        ]
        assert not problems


@pytest.mark.parametrize("wrong", ["user", "time", "metadata", "service", "severity_id"])
def test_the_published_schema_refuses_what_lacks_a_field(wrong: str) -> None:
    document = json.loads(ocsf(record(EVENTS["refused_unknown_peer"])))
    assert validator(3002).is_valid(document)
    assert not validator(3002).is_valid({k: v for k, v in document.items() if k != wrong})
    assert not validator(3002).is_valid(document | {wrong: []})


def test_ocsf_holds_everything() -> None:
    each = record(EVENTS["refused_replay"], "sensor", PEER)
    document = json.loads(ocsf(each))
    assert document["class_uid"] == 2004
    assert document["type_uid"] == document["class_uid"] * 100 + document["activity_id"]
    assert document["time"] == 1770091506789
    assert document["metadata"]["uid"] == leaf_hash(each.encode())
    assert document["metadata"]["sequence"] == 7
    assert document["unmapped"] == {"event": each.event, "prev": each.prev, **each.detail}
    assert {"name": "peer", "type_id": 8, "value": PEER} in document["observables"]


def test_the_five_classes_are_used() -> None:
    used = {classes_of(event.id, event.name).ocsf for event in EVENTS.values()}
    assert used == {3002, 3004, 4014, 2004, 5019}


def test_an_event_of_a_later_version_has_a_class() -> None:
    for id_ in ("PQC-1999", "PQC-4999", "PQC-9001", "no id"):
        event = Event(id_, "from_the_future", Severity.LOW, "CR 2.8", "Later.", ())
        document = json.loads(ocsf(record(event)))
        assert validator(document["class_uid"]).is_valid(document)
        for format_ in FORMATS.values():
            assert format_(record(event))


def flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_ecs_fits_its_field_reference() -> None:
    for each in every_record():
        fields = dict(flat(json.loads(ecs(each))))
        assert fields.keys() >= ECS_REQUIRED
        for name, value in fields.items():
            if name.startswith("pqc_iiot."):
                continue
            type_, is_list = ECS_FIELDS[name]
            values = value if is_list else [value]
            assert isinstance(values, list)
            assert values
            for item in values:
                if type_ == "long":
                    assert isinstance(item, int)
                    continue
                assert isinstance(item, str), name
                if type_ == "date":
                    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", item)
                if type_ == "keyword":
                    assert len(item) <= 1024  # `ignore_above`
        assert fields["event.kind"] in ECS_KINDS
        assert fields["event.outcome"] in ECS_OUTCOMES
        (category,), (kind,) = fields["event.category"], fields["event.type"]
        assert kind in ECS_TYPES[category], each.event


def test_ecs_holds_everything() -> None:
    each = record(EVENTS["peer_rotated"], "b" * 64, PEER)
    document = json.loads(ecs(each))
    assert document["event"]["hash"] == leaf_hash(each.encode())
    assert document["event"]["sequence"] == 7
    assert document["related"]["hash"] == [PEER, "b" * 64]
    assert document["pqc_iiot"] == {"prev": each.prev, "peer": PEER, **each.detail}


def split_cef(message: str) -> tuple[list[str], dict[str, str]]:
    """A reader of CEF that follows the rules and nothing else."""
    *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", message, maxsplit=7)
    pairs = re.findall(r"([A-Za-z0-9]+)=((?:[^\\=]|\\.)*?)(?= [A-Za-z0-9]+=|$)", extension)
    unescape = {"\\n": "\n", "\\r": "\r", "\\=": "=", "\\\\": "\\"}
    return header, {
        key: re.sub(r"\\.", lambda found: unescape[found[0]], value) for key, value in pairs
    }


def test_cef_can_be_taken_apart_again() -> None:
    each = record(EVENTS["refused_replay"], HOSTILE, PEER, HOSTILE)
    message = cef(each)
    assert message.isprintable()
    header, extension = split_cef(message)
    assert header == [
        "CEF:0", "PQC-IIoT", "pqc-iiot", version("pqc-iiot"), "PQC-4007", "refused replay", "8",
    ]  # fmt: skip
    shown = "".join(c if c.isprintable() or c in "\r\n" else "?" for c in HOSTILE)
    assert extension["dvchost"] == extension["request"] == extension["pqcSender"] == shown
    assert extension["rt"] == "1770091506789"
    assert (extension["externalId"], extension["reason"]) == ("7", "replay")
    assert (extension["suid"], extension["outcome"]) == (PEER, "failure")
    assert extension["pqcHash"] == leaf_hash(each.encode())
    assert extension["pqcLastSequence"] == str(2**63)


def test_cef_escapes_its_header() -> None:
    event = Event("PQC|\\1", "pipe|and\\slash\nline", Severity.CRITICAL, "CR 2.8", "x")
    assert cef(record(event)).startswith(
        f"CEF:0|PQC-IIoT|pqc-iiot|{version('pqc-iiot')}|PQC\\|\\\\1|pipe\\|and\\\\slash?line|10|"
    )
