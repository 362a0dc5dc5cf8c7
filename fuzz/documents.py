"""Targets that read JSON: garbage, and documents whose members were changed."""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPResponse
from typing import cast

from bending import bend_json
from machines import Target, own_keys

from pqc_iiot.audit.checkpoint import Checkpoint, Signer, make_origin
from pqc_iiot.audit.prove import Proof
from pqc_iiot.audit.record import NO_HASH, AuditRecord
from pqc_iiot.audit.sinks.config import AuditSettings, SinkConfig
from pqc_iiot.audit.sinks.otlp import _NO_ANSWER, Otlp
from pqc_iiot.identity import note_key

_RECORD = {
    "v": 1,
    "seq": 3,
    "time": "2026-11-24T10:18:18.756Z",
    "id": "PQC-4001",
    "event": "refused_invalid_frame",
    "severity": "low",
    "reason": "invalid_frame",
    "device": "a",
    "peer": "5" * 64,
    "detail": {"context": "line1/temp", "length": 3},
    "prev": NO_HASH,
}


class _Answer:
    """What a collector of logs says."""

    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def answer_target() -> Target:
    """The body of a log collector's answer: how many records it refused, or no answer at all."""
    sink = Otlp(SinkConfig("otlp", "otlp+http://127.0.0.1:4318"))
    answer = cast("HTTPResponse", _Answer())
    genuine: list[object] = [
        {},
        {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "full"}},
    ]

    def run(data: bytes) -> None:
        with contextlib.suppress(*_NO_ANSWER):
            assert 0 <= sink._judge(answer, bend_json(genuine, data), 7) <= 7

    return run


def proof_target() -> Target:
    """A proof of a record: what is taken is written again in the same way."""
    own = own_keys("device")
    signer = Signer(note_key(own.bundle), own.keys.sign)
    note = Checkpoint(make_origin("device", "0" * 32), 7, b"r" * 32).signed(signer)
    genuine = Proof(json.dumps(_RECORD).encode(), 3, (b"h" * 32, b"i" * 32), note).encode()

    def run(data: bytes) -> None:
        proof = Proof.parse(bend_json([json.loads(genuine)], data))
        assert Proof.parse(proof.encode()) == proof

    return run


def record_target() -> Target:
    """Lines of an audit log: what is taken is written again byte for byte."""

    def run(data: bytes) -> None:
        line = bend_json([_RECORD], data)
        record = AuditRecord.parse(line)
        assert record is None or record.encode() == line

    assert AuditRecord.parse(bend_json([_RECORD], b"\0")) is not None
    return run


def settings_target() -> Target:
    """`audit.json`: what is taken is written and read again alike."""
    tcp = {"name": "siem", "url": "syslog+tls://s.example:6514?confirm=eof", "format": "ocsf"}
    file = {"name": "f", "url": "file:///x?max_bytes=9&keep=2"}
    sinks = [tcp, file, {"name": "o", "url": "otlp+http://h/v1/logs"}]

    def run(data: bytes) -> None:
        settings = AuditSettings.decode(
            bend_json([{"v": 1, "heartbeat": 300, "sinks": sinks}], data)
        )
        assert AuditSettings.decode(settings.encode()) == settings

    return run
