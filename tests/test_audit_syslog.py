"""Syslog sinks against a real rsyslog: over UDP, TCP and TLS, through outages in mid-stream."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from certificates import Authority
from pqc_iiot.audit import AuditLog, AuditRecord, Severity, tail
from pqc_iiot.audit.formats import FORMATS
from pqc_iiot.audit.sinks import AuditSettings, SinkConfig, Sinks
from pqc_iiot.audit.sinks import syslog as module
from pqc_iiot.audit.sinks.base import tls_context
from receivers import Rsyslog, wait_until

MESSAGE = re.compile(
    r"<(\d+)>1 (\S+) (\S+) pqc-iiot - (\S+) \[meta sequenceId=\"(\d+)\"\] (.*)"
).fullmatch
WHOLE = re.compile(
    r'\[meta sequenceId="(\d+)"\] \{(?:(?!\[meta).)*?"prev":"[0-9a-f]{64}"\}'
).findall


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "plant-ca")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Rsyslog]]:
    running: list[Rsyslog] = []
    yield running
    for server in running:
        server.stop()


class Device:
    """A log with one sink at work."""

    def __init__(self, folder: Path, config: SinkConfig) -> None:
        self.path = folder / "audit.log"
        self.log = AuditLog(self.path, device="press-4")
        self.sinks = Sinks(AuditSettings((config,)), self.log, self.path, folder)
        self.emitted = 0

    def emit(self, count: int) -> None:
        for _ in range(count):
            self.emitted += 1
            self.log.emit("refused_replay", sequence=self.emitted, context="line1/temp")
        assert self.log.flush()

    def delivered(self) -> int:
        """Wait until all is delivered; the `seq` of the last record."""
        assert self.log.flush()
        seq = self.log.durable().seq
        assert self.sinks.wait("siem", seq, 60), self.sinks.status()
        return seq

    def close(self) -> None:
        self.log.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[list[Device]]:
    open_: list[Device] = []
    yield open_
    for each in open_:
        each.close()


def seqs(server: Rsyslog) -> list[int]:
    """The numbers of the whole messages; one that a kill tore in the file is none."""
    return [int(seq) for line in server.lines for seq in WHOLE(line)]


def assert_complete(found: list[int], last: int) -> None:
    """Nothing lost, in order, and what came again are whole stretches from one point on."""
    assert list(dict.fromkeys(found)) == list(range(1, last + 1))
    for before, after in pairwise(found):
        assert after <= before + 1


def tls(folder: Path, authority: Authority, servers: list[Rsyslog], **options: str) -> Rsyslog:
    server = Rsyslog(
        folder,
        "tls",
        certificate=authority.issue("localhost"),
        ca_file=authority.ca_file,
        **options,
    )
    servers.append(server)
    return server


def tls_sink(server: Rsyslog, authority: Authority) -> SinkConfig:
    url = f"syslog+tls://localhost:{server.port}"
    return SinkConfig("siem", url, ca_file=str(authority.ca_file))


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_every_record_arrives_once(
    tmp_path: Path, servers: list[Rsyslog], device: list[Device], kind: str
) -> None:
    servers.append(server := Rsyslog(tmp_path, kind))
    config = SinkConfig("siem", f"syslog+{kind}://127.0.0.1:{server.port}")
    device.append(one := Device(tmp_path, config))
    one.emit(400)
    last = one.delivered()
    wait_until(lambda: len(server.lines) >= last, "all datagrams are in the file")
    assert seqs(server) == list(range(1, last + 1))
    messages = [MESSAGE(line) for line in server.lines]
    for record, message in zip(tail(one.path, last), messages, strict=False):
        assert message is not None
        priority, time, host, msgid, _, text = message.groups()
        severity = {1: 6, 2: 5, 3: 4, 4: 3, 5: 2}[int(record.severity)]
        assert int(priority) == 13 * 8 + severity
        assert (time, host, msgid) == (record.time, record.device or "press-4", record.id)
        assert text.encode() == record.encode()


@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "native"])
def test_every_format_travels_whole(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device], format_: str
) -> None:
    server = tls(tmp_path, authority, servers)
    device.append(one := Device(tmp_path, replace(tls_sink(server, authority), format=format_)))
    one.log.emit("peer_pending", name='a|b=c "🔒"\r\n' + "x" * 240)
    last = one.delivered()
    record = tail(one.path, last)[1]
    message = MESSAGE(server.lines[1])
    assert message is not None
    assert message[6].removeprefix("\ufeff") == FORMATS[format_](record)


def test_kills_in_mid_stream_lose_nothing(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device]
) -> None:
    server = tls(tmp_path, authority, servers)
    device.append(one := Device(tmp_path, tls_sink(server, authority)))
    for round_ in range(4):
        one.emit(1500)
        wait_until(lambda: len(server.lines) > one.emitted - 1400, "it is in mid-stream")
        server.kill()
        one.emit(300 * round_)
        server.start()
    last = one.delivered()
    assert_complete(seqs(server), last)
    events = [record.event for record in tail(one.path, 20_000)]
    assert "sink_failed" in events
    assert events.count("sink_failed") == events.count("sink_recovered")
    (status,) = one.sinks.status()
    assert (status.lost, status.failures, status.error) == (0, 0, "")


def test_a_receiver_that_stands_still_and_dies_loses_nothing(
    tmp_path: Path,
    authority: Authority,
    servers: list[Rsyslog],
    device: list[Device],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    server = tls(tmp_path, authority, servers)
    device.append(one := Device(tmp_path, tls_sink(server, authority)))
    one.emit(100)
    one.delivered()
    server.signal(signal.SIGSTOP)
    one.emit(1000)  # the kernel takes them, nobody reads them
    wait_until(lambda: one.sinks.status()[0].failures > 0, "the silence is noticed")
    server.signal(signal.SIGCONT)
    one.delivered()
    server.signal(signal.SIGSTOP)
    one.emit(1000)
    wait_until(lambda: one.sinks.status()[0].failures > 0, "the silence is noticed")
    server.kill()
    server.start()
    last = one.delivered()
    assert_complete(seqs(server), last)


def test_kills_over_plain_tcp_lose_nothing(
    tmp_path: Path, servers: list[Rsyslog], device: list[Device]
) -> None:
    servers.append(server := Rsyslog(tmp_path, "tcp"))
    device.append(
        one := Device(tmp_path, SinkConfig("siem", f"syslog+tcp://127.0.0.1:{server.port}"))
    )
    for _ in range(2):
        one.emit(2000)
        server.kill()
        one.emit(1)
        wait_until(lambda: one.sinks.status()[0].failures > 0, "the death is noticed")
        server.start()
        last = one.delivered()
    assert_complete(seqs(server), last)


def test_a_restarted_device_goes_on_where_it_was(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device]
) -> None:
    server = tls(tmp_path, authority, servers)
    for _ in range(3):
        one = Device(tmp_path, tls_sink(server, authority))
        one.emit(50)
        one.close()
    device.append(one := Device(tmp_path, tls_sink(server, authority)))
    last = one.delivered()
    assert seqs(server) == list(range(1, last + 1))


def test_an_unexpected_end_of_tls_is_no_acknowledgement(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device]
) -> None:
    """rsyslog's gtls driver sends no close_notify, as anyone between the two could not."""
    server = tls(tmp_path, authority, servers, driver="gtls")
    config = tls_sink(server, authority)
    device.append(one := Device(tmp_path, config))
    one.emit(10)
    wait_until(lambda: one.sinks.status()[0].failures > 0, "it is not taken for delivered")
    (status,) = one.sinks.status()
    assert (status.delivered, "?confirm=eof" in status.error) == (0, True)
    one.close()
    device.append(two := Device(tmp_path, replace(config, url=f"{config.url}?confirm=eof")))
    last = two.delivered()
    assert_complete(seqs(server), last)


@pytest.mark.parametrize("wrong", ["authority", "name", "system"])
def test_a_server_that_is_not_the_one_meant_gets_nothing(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device], wrong: str
) -> None:
    server = tls(tmp_path, authority, servers)
    config = tls_sink(server, authority)
    if wrong == "authority":
        config = replace(config, ca_file=str(Authority(tmp_path, "other-ca").ca_file))
    elif wrong == "system":
        config = replace(config, ca_file="")
    else:
        config = replace(config, url=config.url.replace("localhost", "127.0.0.1"))
    device.append(one := Device(tmp_path, config))
    one.emit(3)
    wait_until(lambda: one.sinks.status()[0].failures > 0, "the server is refused")
    assert "certificate" in one.sinks.status()[0].error
    assert server.lines == []
    one.close()
    (failed,) = [r for r in tail(one.path, 100) if r.event == "sink_failed"]
    assert failed.detail == {"sink": "siem", "error": "SSLCertVerificationError"}


def test_mutual_tls(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device]
) -> None:
    # The ossl driver of rsyslog 8.2302 reads on although a client's name is not permitted.
    server = tls(tmp_path, authority, servers, client="press-4", driver="gtls")
    certificate, key = authority.issue("press-4")
    key.chmod(0o600)
    without = tls_sink(server, authority)
    without = replace(without, url=f"{without.url}?confirm=eof")
    config = replace(without, cert_file=str(certificate), key_file=str(key))
    device.append(one := Device(tmp_path, config))
    one.emit(20)
    last = one.delivered()
    assert seqs(server) == list(range(1, last + 1))
    one.close()
    before = server.lines
    other_certificate, other_key = authority.issue("somebody")
    other_key.chmod(0o600)
    other = replace(config, cert_file=str(other_certificate), key_file=str(other_key))
    for refused in (without, other):
        device.append(two := Device(tmp_path, refused))
        two.emit(1)
        wait_until(lambda two=two: two.sinks.status()[0].failures > 0, "it is refused")
        two.close()
    assert server.lines == before


def test_a_key_that_others_can_read_is_not_used(
    tmp_path: Path, authority: Authority, servers: list[Rsyslog], device: list[Device]
) -> None:
    server = tls(tmp_path, authority, servers)
    certificate, key = authority.issue("press-4")
    key.chmod(0o640)
    config = replace(tls_sink(server, authority), cert_file=str(certificate), key_file=str(key))
    device.append(one := Device(tmp_path, config))
    one.emit(1)
    wait_until(lambda: one.sinks.status()[0].failures > 0, "the key is refused")
    assert "chmod 600" in one.sinks.status()[0].error


def test_a_key_under_a_passphrase_is_an_error_and_no_question(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("press-4", passphrase=b"secret")
    key.chmod(0o600)
    config = SinkConfig(
        "siem", "syslog+tls://localhost:9", cert_file=str(certificate), key_file=str(key)
    )
    with pytest.raises(OSError):  # noqa: PT011 - of OpenSSL
        tls_context(config)


def test_a_receiver_that_hangs_up_early_has_acknowledged_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = module.SyslogTcp(
            SinkConfig("siem", f"syslog+tcp://127.0.0.1:{server.getsockname()[1]}")
        )

        def hang_up() -> None:
            accepted, _ = server.accept()
            accepted.recv(1)
            accepted.close()

        receiver = threading.Thread(target=hang_up)
        receiver.start()
        with pytest.raises(OSError):  # noqa: PT011 - reset, broken pipe or hung up
            sink.deliver([tail_record()] * 100)
        receiver.join()


DYING = """
import os, signal, socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
while connection.recv(65536):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_receiver_that_dies_of_what_it_has_read_has_acknowledged_nothing() -> None:
    """Its kernel ends the connection in all order, since nothing is unread."""
    command = [sys.executable, "-c", DYING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        port = int(receiver.stdout.readline())
        sink = module.SyslogTcp(SinkConfig("siem", f"syslog+tcp://127.0.0.1:{port}"))
        with pytest.raises(ConnectionError):
            sink.deliver([tail_record()])
    assert receiver.returncode == -signal.SIGKILL


def test_a_receiver_that_refuses_us_after_the_handshake_has_acknowledged_nothing(
    tmp_path: Path, authority: Authority
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("localhost"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"syslog+tls://localhost:{server.getsockname()[1]}"
        sink = module.SyslogTls(SinkConfig("siem", url, ca_file=str(authority.ca_file)))

        def refuse() -> None:
            accepted, _ = server.accept()
            with context.wrap_socket(accepted, server_side=True) as tls:
                tls.settimeout(0)
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.unwrap()  # close_notify, and it reads nothing
                sink_done.wait()

        sink_done = threading.Event()
        receiver = threading.Thread(target=refuse)
        receiver.start()
        try:
            with pytest.raises(ConnectionRefusedError, match="after the handshake"):
                sink.deliver([tail_record()])
        finally:
            sink_done.set()
            receiver.join()


def test_the_header_takes_what_rfc_5424_allows() -> None:
    sink = module.SyslogTcp(SinkConfig("siem", "syslog+tcp://localhost"))
    record = tail_record()
    for device, shown in (("", "-"), ("pr es\ns-4 é", "pr?es?s-4??"), ("x" * 300, "x" * 255)):
        message = sink.message(replace(record, device=device)).decode()
        matched = MESSAGE(message)
        assert matched
        assert matched[3] == shown
    for seq, shown in ((2**31 - 1, "2147483647"), (2**31, "1"), (2**33, "4")):
        matched = MESSAGE(sink.message(replace(record, seq=seq)).decode())
        assert matched
        assert matched[5] == shown
    assert module.SyslogTls.__mro__[1] is module.SyslogTcp
    assert (
        ssl.TLSVersion.TLSv1_2
        <= tls_context(SinkConfig("siem", "syslog+tls://localhost")).minimum_version
    )


def tail_record() -> AuditRecord:
    return AuditRecord(
        7, "2026-02-03T04:05:06.789Z", "PQC-4007", "refused_replay", Severity.HIGH,
        "replay", "press-4", "", {"sequence": 1}, "c" * 64,
    )  # fmt: skip
