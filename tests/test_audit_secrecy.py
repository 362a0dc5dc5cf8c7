"""No secret, payload or key in anything that leaves: a device works, is attacked and fails,
with every sink in every format at work, and all of their output is searched."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import threading
from pathlib import Path

import pytest

from certificates import Authority
from devices import introduce, make
from pqc_iiot import Node, PqcIiotError
from pqc_iiot.audit.formats import FORMATS
from pqc_iiot.audit.sinks import SETTINGS_FILE, AuditSettings, SinkConfig
from pqc_iiot.providers import passphrase
from receivers import Rsyslog, collector

PAYLOAD = b"recipe-7f3a: 21.5 degrees, 4711 units"
TOKEN = "t0ken-b4d5e6"


def spellings(secret: bytes) -> list[bytes]:
    """How bytes may stand in a text: as they are, in hex, in Base64, as Python shows them."""
    return [
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret).rstrip(b"=")[:-1],
        base64.urlsafe_b64encode(secret).rstrip(b"=")[:-1],
        repr(secret)[2:-1].encode(),
        json.dumps(list(secret)).encode(),
    ]


def test_nothing_secret_leaves_by_any_sink(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    word = secrets.token_hex(12)
    (tmp_path / "passphrase").write_text(word)
    (tmp_path / "passphrase").chmod(0o600)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    authority = Authority(tmp_path, "plant-ca")
    certificate, key = authority.issue("press-4")
    key.chmod(0o600)
    server_certificate = authority.issue("localhost")
    syslog = Rsyslog(tmp_path, "tls", certificate=server_certificate, ca_file=authority.ca_file)
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(tmp_path / "journal"))
    entries: list[bytes] = []

    def read_journal() -> None:
        while entry := journal.recv(256 * 1024):
            entries.append(entry)

    reader = threading.Thread(target=read_journal)
    reader.start()
    try:
        with collector(server_certificate) as otlp:
            ca_file = str(authority.ca_file)
            sinks = [
                SinkConfig(f"file-{name}", f"file://{tmp_path}/{name}.out", format=name)
                for name in FORMATS
            ]
            sinks += [
                SinkConfig("journal", f"journal:{tmp_path}/journal"),
                SinkConfig(
                    "syslog", f"syslog+tls://localhost:{syslog.port}", ca_file=ca_file,
                    cert_file=str(certificate), key_file=str(key),
                ),
                SinkConfig(
                    "otlp", f"otlp+https://localhost:{otlp.port}", ca_file=ca_file,
                    token_file=str(tmp_path / "token"),
                ),
                SinkConfig("dead", "otlp+https://127.0.0.1:1", token_file=str(tmp_path / "token")),
            ]  # fmt: skip
            raw_keys = work(tmp_path, sinks)
    finally:
        journal.shutdown(socket.SHUT_RDWR)
        reader.join(10)
        journal.close()
        syslog.stop()

    outputs = {f"file-{name}": (tmp_path / f"{name}.out").read_bytes() for name in FORMATS}
    outputs |= {
        "journal": b"".join(entries),
        "syslog": syslog.out.read_bytes(),
        "otlp": json.dumps([body for _, _, body in otlp.requests]).encode(),
        "log": (tmp_path / "plc/audit.log").read_bytes(),
        "settings": (tmp_path / f"plc/{SETTINGS_FILE}").read_bytes(),
        "messages": caplog.text.encode() + "".join(capfd.readouterr()).encode(),
    }
    for name, output in outputs.items():
        if name not in ("settings", "messages"):
            assert b"refused_replay" in output, name
            assert b"refused_authentication_failed" in output, name
    _, *pem, _ = key.read_bytes().splitlines()
    secret_things = [PAYLOAD, word.encode(), TOKEN.encode(), *pem, *raw_keys]
    for name, output in outputs.items():
        for secret in secret_things:
            for spelling in spellings(secret):
                assert spelling not in output, (name, secret[:8])


def work(folder: Path, sinks: list[SinkConfig]) -> list[bytes]:
    """A device's life with these sinks; pieces of the raw keys in it."""
    source = passphrase.from_file(folder / "passphrase")
    sensor = make(folder, "sensor")
    stranger = make(folder, "stranger")
    Node.create(folder / "plc", name="plc", passphrase=source).close()
    settings = folder / "plc" / SETTINGS_FILE
    settings.write_bytes(AuditSettings(tuple(sinks)).encode())
    settings.chmod(0o600)
    with sensor, stranger, Node.open(folder / "plc", passphrase=source) as plc:
        introduce(sensor, plc)
        stranger.peers.add_approved(plc.bundle)
        frames = [sensor.seal(PAYLOAD, to="plc", context="line1") for _ in range(3)]
        assert plc.open(frames[1], context="line1").payload == PAYLOAD
        bent = bytearray(frames[2])
        bent[-1] ^= 1
        for frame in (
            frames[0],
            frames[1],
            bytes(bent),
            PAYLOAD,
            stranger.seal(PAYLOAD, to="plc", context="line1"),
        ):
            with pytest.raises(PqcIiotError):
                plc.open(frame, context="line1")
        with pytest.raises(PqcIiotError):
            plc.seal(PAYLOAD, to="nobody")
        plc.rotate()
        plc.peers.revoke("sensor")
        assert plc.audit.flush()
        assert plc._state is not None
        assert plc._state.sinks is not None
        seq = plc.audit.durable().seq
        for sink in sinks:
            if sink.name != "dead":
                assert plc._state.sinks.wait(sink.name, seq, 30), plc._state.sinks.status()
        return [
            bundle.encoded[start : start + 32]  # pieces of raw public keys, and of signatures
            for bundle in (plc.bundle, sensor.bundle)
            for start in range(200, len(bundle.encoded) - 32, 64)
        ]


def test_the_search_can_find_something() -> None:
    secret = os.urandom(32)
    for number, spelling in enumerate(spellings(secret)):
        assert len(spelling) >= 32
        assert any(found in b"before " + spelling + b" after" for found in spellings(secret)), (
            number
        )
