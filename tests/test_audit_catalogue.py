"""The catalogue holds together: with itself, with the error tree, with its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pqc_iiot import errors
from pqc_iiot.audit import BY_REASON, EVENTS, FIELDS, Event, Severity
from pqc_iiot.audit.record import MAX_LINE, MAX_TEXT, clean_text, encode_constant, encode_line

DOCS = Path(__file__).parents[1] / "docs" / "audit.md"
ERRORS = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.PqcIiotError)
]


def tables() -> str:
    """The tables of events and fields, as docs/audit.md must show them."""
    lines = [
        "| id | event | severity | when | serves | reason | fields, by example |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {event.id} | `{event.name}` | {event.severity.label} | {event.when} "
        f"| {event.requirement} | {f'`{event.reason}`' if event.reason else ''} "
        f"| {example(event)} |"
        for event in EVENTS.values()
    ]
    lines += ["", "| field | type | meaning |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {'text' if field.type is str else 'integer'} | {field.meaning} |"
        for name, field in FIELDS.items()
    ]
    return "\n".join(lines) + "\n"


def example(event: Event) -> str:
    """The `detail` of a record, with long hashes cut."""
    detail = {name: FIELDS[name].example for name in event.fields}
    return f"`{json.dumps(detail, ensure_ascii=False)}`" if detail else ""


def test_the_page_shows_the_catalogue() -> None:
    begin, end = "<!-- catalogue -->\n", "<!-- end of catalogue -->"
    shown = DOCS.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    assert shown == tables(), "put the output of tables() between the marks in docs/audit.md"


def test_ids_are_unique_ordered_and_grouped() -> None:
    ids = [event.id for event in EVENTS.values()]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"PQC-[1-6]\d{3}", id_) for id_ in ids)


def test_rows_are_well_formed() -> None:
    for name, event in EVENTS.items():
        assert event.name == name
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+|started|stopped", name)
        assert re.fullmatch(r"CR [1-7]\.\d+", event.requirement)
        assert event.when.endswith(".")
        assert len(set(event.fields)) == len(event.fields)


def test_every_field_is_described_and_used() -> None:
    used = {name for event in EVENTS.values() for name in event.fields}
    assert used == set(FIELDS)
    assert list(FIELDS) == sorted(FIELDS)
    assert {field.type for field in FIELDS.values()} <= {str, int, bool}
    assert all(type(field.example) is field.type for field in FIELDS.values())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_refusal_leaves_its_event(error: type[errors.PqcIiotError]) -> None:
    if error.exit_code == 3:
        assert BY_REASON[error.code].id.startswith("PQC-4")
    elif error is errors.StateLockedError:
        assert error.code not in BY_REASON, "the log is another process's"
    elif error.exit_code == 4:
        assert BY_REASON[error.code].id.startswith("PQC-5")


def test_every_reason_is_the_code_of_an_error() -> None:
    reasons = [event.reason for event in EVENTS.values() if event.reason]
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) <= {error.code for error in ERRORS}


def test_severities_are_those_of_ocsf() -> None:
    assert [(s.label, s.value) for s in Severity] == [
        ("informational", 1), ("low", 2), ("medium", 3), ("high", 4), ("critical", 5),
    ]  # fmt: skip
    assert EVENTS["peer_pinned"].severity == Severity.HIGH
    assert EVENTS["refused_peer_key_changed"].severity == Severity.HIGH
    assert EVENTS["refused_duplicate"].severity == Severity.INFORMATIONAL


def test_the_longest_record_of_every_event_fits_in_a_line() -> None:
    longest = clean_text("\U0001f512" * (MAX_TEXT + 1))  # twelve bytes each when escaped
    for event in EVENTS.values():
        detail = {name: longest if FIELDS[name].type is str else -(2**64) for name in event.fields}
        constant = encode_constant(
            event.id, event.name, event.severity.label, event.reason, longest
        )
        line = encode_line(
            2**63, "2026-02-03T04:05:06.789Z", constant, "f" * 64, detail, prev="f" * 64
        )
        assert len(line) < MAX_LINE, event.name
