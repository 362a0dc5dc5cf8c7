"""Who gets in to a real mosquitto, and what those read who do not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from brokers import Start, in_loop, payloads
from certificates import Authority
from pqc_iiot.errors import InvalidInputError, TransportError
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

OPEN = "allow_anonymous true"
BOTH = pytest.mark.parametrize("version", [5, 4])


@BOTH
@in_loop
async def test_user_and_password(start: Start, tmp_path: Path, version: int) -> None:
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-c", "-b", users, "plc-7", "s3cret-pw"], check=True)
    mosquitto = start(f"password_file {users}")
    url = mosquitto.url.replace("//", "//plc-7@")
    password_file = tmp_path / "password"
    password_file.write_bytes(b"s3cret-pw\n")
    options = MqttOptions(url, version=version, password_file=password_file)
    async with MqttTransport(options) as transport:
        await transport.publish("t", b"x")
        assert "s3cret" not in repr(options) + repr(vars(transport))
    password_file.write_bytes(b"wr0ng-pw")  # read at each connection
    with pytest.raises(TransportError, match=r"user name or password|not authorized") as refused:
        await MqttTransport(options).connect()
    assert "password_file" in refused.value.hint
    assert "wr0ng" not in str(refused.value) + refused.value.hint
    with pytest.raises(TransportError):
        await MqttTransport(MqttOptions(mosquitto.url, version=version)).connect()


@in_loop
async def test_a_refused_message_is_not_taken_for_sent(start: Start, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write allowed\n")
    mosquitto = start(OPEN, f"acl_file {acl}")
    async with MqttTransport(MqttOptions(mosquitto.url)) as transport:
        await transport.publish("allowed", b"x")
        for qos in (1, 2):
            with pytest.raises(TransportError, match="not authorized") as refused:
                await transport.publish("forbidden", b"x", qos=qos)
            assert refused.value.hint


def tls_lines(authority: Authority, *lines: str, name: str = "localhost") -> list[str]:
    cert_file, key_file = authority.issue(name)
    return [OPEN, f"certfile {cert_file}", f"keyfile {key_file}", *lines]


@BOTH
@in_loop
async def test_tls_with_the_right_authority(start: Start, tmp_path: Path, version: int) -> None:
    plant = Authority(tmp_path, "plant")
    url = start(*tls_lines(plant)).tls_url
    options = MqttOptions(url, version=version, ca_file=plant.ca_file)
    async with MqttTransport(options) as transport:
        await transport.subscribe("t")
        await transport.publish("t", bytes(100_000))
        assert await payloads(transport, 1) == [bytes(100_000)]


@in_loop
async def test_tls_refuses_strangers_and_impostors(start: Start, tmp_path: Path) -> None:
    plant, stranger = Authority(tmp_path, "plant"), Authority(tmp_path, "stranger")
    url = start(*tls_lines(plant)).tls_url
    other = start(*tls_lines(plant, name="other.example")).tls_url
    for options in (
        MqttOptions(url, ca_file=stranger.ca_file),
        MqttOptions(url),  # the system's authorities
        MqttOptions(url.replace("localhost", "127.0.0.1"), ca_file=plant.ca_file),
        MqttOptions(other, ca_file=plant.ca_file),
    ):
        with pytest.raises(TransportError, match="does not verify") as refused:
            await MqttTransport(options).connect()
        assert "ca_file" in refused.value.hint


@BOTH
@in_loop
async def test_mutual_tls(start: Start, tmp_path: Path, version: int) -> None:
    plant, stranger = Authority(tmp_path, "plant"), Authority(tmp_path, "stranger")
    lines = tls_lines(plant, f"cafile {plant.ca_file}", "require_certificate true")
    url = start(*lines).tls_url

    def options(cert_file: Path | None = None, key_file: Path | None = None) -> MqttOptions:
        return MqttOptions(
            url, version=version, ca_file=plant.ca_file, cert_file=cert_file, key_file=key_file
        )

    async with MqttTransport(options(*plant.issue("plc-7"))) as transport:
        await transport.publish("t", b"x")
    for wrong in (options(), options(*stranger.issue("plc-8"))):
        with pytest.raises(TransportError) as refused:
            await MqttTransport(wrong).connect()
        assert refused.value.hint
    locked = options(*plant.issue("plc-9", passphrase=b"s3cret"))
    with pytest.raises(InvalidInputError, match="TLS files"):  # and asks nobody
        await MqttTransport(locked).connect()


@in_loop
async def test_tls_against_plain_gives_a_hint_and_no_hang(start: Start, tmp_path: Path) -> None:
    plant = Authority(tmp_path, "plant")
    plain, tls = start(OPEN), start(*tls_lines(plant))
    for url in (plain.tls_url, tls.url):
        with pytest.raises(TransportError) as refused:
            await MqttTransport(MqttOptions(url, connect_timeout=5)).connect()
        assert "mqtts" in refused.value.hint or "TLS" in refused.value.hint


@in_loop
async def test_nobody_there(start: Start) -> None:
    mosquitto = start()
    mosquitto.stop()
    with pytest.raises(TransportError, match=f"127.0.0.1 port {mosquitto.port}") as refused:
        await MqttTransport(MqttOptions(mosquitto.url)).connect()
    assert refused.value.hint
