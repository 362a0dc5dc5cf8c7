"""What a broker's URL and options may say, and what must never be said again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pqc_iiot.errors import InvalidInputError
from pqc_iiot.transports.mqtt_options import MqttOptions


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", ("broker", 1883, False, None)),
        ("mqtts://broker.local/", ("broker.local", 8883, True, None)),
        ("mqtts://plc-7@broker:18883", ("broker", 18883, True, "plc-7")),
        ("mqtt://line%201%2Fplc@[::1]:1884", ("::1", 1884, False, "line 1/plc")),
    ],
)
def test_urls(url: str, expected: tuple[str, int, bool, str | None]) -> None:
    options = MqttOptions(url)
    assert (options.host, options.port, options.tls, options.username) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("", "broker", "mqtt:", "mqtt://", "mqtt:///", "mqtt://:1883", "mqtt://user@"),
        *("http://broker", "tcp://broker", "ws://broker", "mqtt+tls://broker"),
        *("mqtt://broker/topic", "mqtt://broker?x=1", "mqtt://broker?", "mqtt://broker#x"),
        *("mqtt://broker:0", "mqtt://broker:65536", "mqtt://broker:x", "mqtt://[::1", "mqtt://a]b"),
        *("mqtt://a%00b@broker", "mqtt://" + "u" * 65536 + "@broker"),
    ],
)
def test_other_urls_are_refused_with_a_hint(url: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        MqttOptions(url)
    assert refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://user:s3cret@broker",
        "mqtt://:s3cret@broker",
        "mqtts://user:s3cret@broker:x",
        "http://user:s3cret@[broker",
        "mqtt://user:@broker",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        MqttOptions(url)
    error: BaseException | None = refused.value
    assert "s3cret" not in f"{error}{refused.value.hint}"
    while error is not None:  # nor in a traceback
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


@pytest.mark.parametrize(
    "options",
    [
        {"version": 3},
        {"version": 6},
        {"keepalive": 0},
        {"keepalive": 65536},
        {"session_expiry": 60},
        {"session_expiry": -1, "client_id": "plc-7"},
        {"client_id": "a\0b"},
        {"max_outgoing": 0},
        {"max_incoming": 0},
        {"max_packet": 0},
        {"connect_timeout": 0},
        {"max_reconnect_delay": -1},
        {"password_file": "password"},
        {"ca_file": "ca.pem"},
        {"colour": "red"},
    ],
)
def test_options_that_cannot_work(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        MqttOptions.from_url("mqtt://broker", **options)
    assert refused.value.hint
    with pytest.raises(InvalidInputError):
        MqttOptions("mqtts://broker", cert_file="cert.pem")
    with pytest.raises(InvalidInputError):
        MqttOptions("mqtts://broker", key_file="key.pem")


def test_the_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    options = MqttOptions("mqtt://user@broker", password_file=file)
    with pytest.raises(InvalidInputError, match="password_file"):
        options.read_password()
    for content in (b"s3 cret", b"s3 cret\n", b"s3 cret\r\nnot this"):
        file.write_bytes(content)
        assert options.read_password() == b"s3 cret"
    for content in (b"", b"\ns3cret", b"x" * 65536):
        file.write_bytes(content)
        with pytest.raises(InvalidInputError):
            options.read_password()
    assert MqttOptions("mqtt://user@broker").read_password() is None


def test_tls_files_that_are_no_good(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n")
    for ca_file in (junk, tmp_path / "missing.pem"):
        with pytest.raises(InvalidInputError) as refused:
            MqttOptions("mqtts://broker", ca_file=ca_file).tls_context()
        assert "ca_file" in refused.value.hint
    with pytest.raises(InvalidInputError):
        MqttOptions("mqtts://broker", cert_file=junk, key_file=junk).tls_context()
