"""The exact form of a record, and that nothing from outside can break out of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqc_iiot.audit import AuditLog, AuditRecord, Severity, tail, verify
from pqc_iiot.audit.record import MAX_LINE, MAX_TEXT, NO_HASH, clean_text, leaf_hash

PEER = "ab" * 32
LINE = (
    b'{"v":1,"seq":7,"time":"2026-02-03T04:05:06.789Z","id":"PQC-4007",'
    b'"event":"refused_replay","severity":"high","reason":"replay","device":"press-4",'
    b'"peer":"' + PEER.encode() + b'","detail":{"context":"a\\u00e9\\n","sequence":40},'
    b'"prev":"' + NO_HASH.encode() + b'"}'
)
RECORD = AuditRecord(
    seq=7,
    time="2026-02-03T04:05:06.789Z",
    id="PQC-4007",
    event="refused_replay",
    severity=Severity.HIGH,
    reason="replay",
    device="press-4",
    peer=PEER,
    detail={"sequence": 40, "context": "aé\n"},
    prev=NO_HASH,
)


def test_a_record_has_one_form() -> None:
    assert RECORD.encode() == LINE
    assert AuditRecord.parse(LINE) == RECORD


def test_the_hash_is_the_leaf_hash_of_rfc_9162() -> None:
    assert leaf_hash(LINE) == hashlib.sha256(b"\x00" + LINE).hexdigest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"v":1,', b'"v": 1,'),
        (b'"seq":7', b'"seq":07'),
        (b'"seq":7', b'"seq":0'),
        (b'"seq":7', b'"seq":7.0'),
        (b'"seq":7', b'"seq":true'),
        (b'"seq":7', b'"seq":7,"seq":7'),
        (b'"seq":7', b'"seq":9223372036854775808'),
        (b'"seq":7', b'"seq":' + b"9" * 5000),
        (b"06.789Z", b"06.789+00:00"),
        (b'"high"', b'"HIGH"'),
        (b'"high"', b"4"),
        (b'"reason":"replay"', b'"reason":""'),
        (b'"press-4"', b'{"a":1}'),
        (b'"press-4"', b"7"),
        (PEER.encode(), PEER.upper().encode()),
        (PEER.encode(), PEER[1:].encode()),
        (b"\\u00e9", "é".encode()),
        (b"\\u00e9", b"\\u00E9"),
        (b'{"context":"a\\u00e9\\n","sequence":40}', b'{"sequence":40,"context":"a\\u00e9\\n"}'),
        (b'"sequence":40', b'"sequence":40.0'),
        (b'"sequence":40', b'"sequence":null'),
        (b'"sequence":40', b'"sequence":[40]'),
        (b'"detail":{', b'"detail":[{'),
        (b'"detail":', b'"more":1,"detail":'),
        (b'"}', b'"} '),
        (LINE, b""),
        (LINE, b"[" * MAX_LINE),
        (LINE, b"{}"),
        (LINE, b"null"),
        (LINE, LINE.replace(b"press-4", b"p" * MAX_LINE)),
    ],
)  # fmt: skip
def test_any_other_form_is_no_record(old: bytes, new: bytes) -> None:
    changed = LINE.replace(old, new, 1)
    assert changed != LINE
    assert AuditRecord.parse(changed) is None


@given(st.binary(max_size=300))
def test_parsing_never_raises(line: bytes) -> None:
    AuditRecord.parse(line)


HOSTILE = [
    'x"}\n{"v":1,"seq":1',
    "line one\nline two\r\n\u2028\u2029\x85",
    'quote " backslash \\ solidus / nul \0 escape \x1b[2J delete \x7f',
    "\U0001f512" * 1000,
    "lone \ud83d surrogate \udcff",
    "\u202egnp.exe",
    "x" * 100_000,
]


def expected(text: str) -> str:
    text = "".join("?" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_from_outside_stay_in_their_field(tmp_path: Path, text: str) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, device=text) as log:
        log.emit("peer_pending", name=text, transport=text)
    lines = path.read_bytes().splitlines()
    assert len(lines) == 2
    assert all(0x20 <= byte < 0x80 for line in lines for byte in line)
    assert json.loads(lines[1])["detail"] == {"name": expected(text), "transport": expected(text)}
    assert tail(path, 1)[0].device == expected(text)
    assert verify(path).ok


@given(st.text(alphabet=st.characters(), max_size=400))
def test_any_text_survives_or_is_replaced(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    assert cleaned == expected(text)
    record = replace(RECORD, detail={"name": cleaned})
    assert AuditRecord.parse(record.encode()) == record
