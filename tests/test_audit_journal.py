"""The journal's native protocol, at a socket of the test's own: there is no systemd in a test."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pqc_iiot.audit import AuditLog, tail
from pqc_iiot.audit.sinks import SinkConfig
from pqc_iiot.audit.sinks.journal import Journal
from receivers import wait_until
from sink_devices import PEER, Device, open_devices, short_delays

__all__ = ["open_devices", "short_delays"]


def read_entry(journal: socket.socket) -> dict[str, str]:
    """What systemd's own parser makes of one datagram, or of the file that comes with it."""
    data, ancillary, _, _ = journal.recvmsg(4 * 1024 * 1024, 64)
    for _, _, rights in ancillary:
        (fd,) = array.array("i", rights)
        with os.fdopen(fd, "rb") as file:
            assert not data
            file.seek(0)
            data = file.read()
            with pytest.raises(OSError, match="not permitted"):
                os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x")
    entry = {}
    while data:
        name, separator, rest = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            data = rest
        else:
            key, length = name, int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[9 + length :]
        assert separator
        entry[key.decode()] = value.decode()
    return entry


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        bound.settimeout(10)
        yield bound


def test_the_journal_gets_fields(
    tmp_path: Path, open_devices: list[Device], journal: socket.socket
) -> None:
    config = SinkConfig("journal", f"journal:{tmp_path}/journal")
    open_devices.append(device := Device(tmp_path, config))
    device.log.emit("peer_pending", peer=PEER, name="a\nPRIORITY=0\nb=c")
    device.delivered("journal")
    opened, pending = read_entry(journal), read_entry(journal)
    assert (opened["PQC_EVENT"], opened["PQC_SEQ"], opened["PRIORITY"]) == (
        "audit_opened",
        "1",
        "6",
    )
    assert pending["PQC_DETAIL_NAME"] == "a\nPRIORITY=0\nb=c"
    assert (pending["PRIORITY"], pending["PQC_PEER"]) == ("5", PEER)
    assert pending["MESSAGE"].encode() == tail(device.path, 1)[0].encode()
    assert all(name.replace("_", "").isalnum() and name.isupper() for name in pending)


def test_a_large_entry_goes_to_the_journal_as_a_sealed_file(
    tmp_path: Path, journal: socket.socket
) -> None:
    with AuditLog(tmp_path / "audit.log") as log:
        log.emit("started")
    record = replace(tail(tmp_path / "audit.log", 1)[0], detail={"version": "x" * 2_000_000})
    Journal(SinkConfig("journal", f"journal:{tmp_path}/journal")).deliver([record])
    assert read_entry(journal)["PQC_DETAIL_VERSION"] == "x" * 2_000_000


def test_a_journal_that_is_away_is_waited_for(tmp_path: Path, open_devices: list[Device]) -> None:
    config = SinkConfig("journal", f"journal:{tmp_path}/later")
    open_devices.append(device := Device(tmp_path, config))
    wait_until(lambda: device.status("journal").failures > 1, "it is away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as late:
        late.bind(str(tmp_path / "later"))
        late.settimeout(10)
        found = [int(read_entry(late)["PQC_SEQ"]) for _ in range(device.delivered("journal"))]
    assert found == list(range(1, len(found) + 1))
