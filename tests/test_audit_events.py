"""No event exists only on paper: each one of the catalogue is caused, through the public face
or from outside, with every field that it may have; and none of them tells a secret."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import event_causes_log  # noqa: F401 - it adds to CAUSES
from devices import Pair
from event_causes import CAUSES, PASSPHRASE, PAYLOAD, Cause, frame, in_process, plc_folder, refused
from pqc_iiot import Node, _core
from pqc_iiot.audit import EVENTS, AuditRecord, tail
from pqc_iiot.audit.formats import FORMATS


def in_process_flooded_after_a_failed_self_test() -> None:
    node, sealed = Node.open("."), Path("frame").read_bytes()
    _core.fail_closed()
    for _ in range(300):
        refused(lambda: node.open(sealed))
    refused(node.close)


def test_frames_at_a_device_that_failed_its_self_test_do_not_fill_its_log(pair: Pair) -> None:
    (plc_folder(pair) / "frame").write_bytes(frame(pair))
    (plc_folder(pair) / "frame").chmod(0o600)
    pair.plc.close()
    in_process(in_process_flooded_after_a_failed_self_test, plc_folder(pair))
    found = tail(plc_folder(pair) / "audit.log", 1000)
    failed = [record for record in found if record.event == "self_test_failed"]
    assert 100 <= len(failed) < 110
    (summary,) = [record for record in found if record.event == "events_suppressed"]
    assert summary.detail["suppressed"] == "self_test_failed"
    assert summary.detail["count"] == 300 - len(failed)


# All of them


def lines(folder: Path) -> dict[str, AuditRecord]:
    """Every record of every device in a folder, by its line."""
    logs = [path for path in folder.rglob("audit*.log") if path.is_file()]
    records = [record for log in logs for record in tail(log, 1_000_000)]
    return {record.encode().decode(): record for record in records}


def test_every_event_has_a_cause() -> None:
    assert CAUSES.keys() == EVENTS.keys()


def spellings(secret: bytes) -> list[str]:
    """How a secret might stand in a text."""
    encoded = base64.b64encode(secret).decode().rstrip("=")[:-1]
    return [secret.decode("latin-1"), secret.hex(), encoded, repr(secret)[2:-1]]


@pytest.mark.parametrize("cause", dict.fromkeys(CAUSES.values()), ids=lambda each: each.__name__)
def test_it_is_recorded_whole_and_tells_no_secret(cause: Cause, pair: Pair) -> None:
    keys = pair.sensor.bundle, pair.plc.bundle
    before = lines(pair.folder)
    cause(pair)
    pair.close()
    found = [record for line, record in lines(pair.folder).items() if line not in before]
    for event in (name for name, own in CAUSES.items() if own is cause):
        records = [record for record in found if record.event == event]
        assert records, f"{event} was not recorded"
        fields = {name for record in records for name in record.detail}
        assert fields == set(EVENTS[event].fields), event

    secrets = [PAYLOAD, PASSPHRASE, *(key.sig_public_key[:24] for key in keys)]
    secrets += [key.kem_public_key[:24] for key in keys]
    said = "\n".join(format_(record) for format_ in FORMATS.values() for record in found)
    said += "".join(path.read_text() for path in pair.folder.glob("copy*.log"))
    for secret in secrets:
        assert not any(spelling in said for spelling in spellings(secret))
