"""OTLP against a collector of the test's own, over HTTP and HTTPS."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from certificates import Authority
from pqc_iiot.audit import tail
from pqc_iiot.audit.sinks import SinkConfig, worker
from receivers import collector, wait_until
from sink_devices import Device, open_devices, short_delays

__all__ = ["open_devices", "short_delays"]


def otlp(port: int, scheme: str = "otlp+http", host: str = "127.0.0.1", **more: str) -> SinkConfig:
    return SinkConfig("otlp", f"{scheme}://{host}:{port}", **more)


def test_otlp_delivers_what_its_protocol_says(tmp_path: Path, open_devices: list[Device]) -> None:
    with collector() as server:
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        device.emit(700)
        last = device.delivered("otlp")
        path, headers, body = server.requests[0]
        assert (path, headers["Content-Type"]) == ("/v1/logs", "application/json")
        (resource,) = body["resourceLogs"]
        attributes = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
        assert attributes["service.name"] == {"stringValue": "pqc-iiot"}
        records = tail(device.path, last)
        assert len(server.logs) == last
        for record, log in zip(records, server.logs, strict=True):
            assert log["body"]["stringValue"].encode() == record.encode()
            assert log["severityNumber"] == [9, 10, 13, 17, 21][record.severity - 1]
            assert int(log["timeUnixNano"]) % 1_000_000 == 0
            own = {a["key"]: a["value"] for a in log["attributes"]}
            assert own["pqc_iiot.seq"] == {"intValue": str(record.seq)}
        assert own["pqc_iiot.detail.context"] == {"stringValue": "line1/temp"}


def test_otlp_tries_again_what_may_be_tried_again(
    tmp_path: Path, open_devices: list[Device]
) -> None:
    with collector() as server:
        server.answers = [
            (503, {}, b""), (429, {"Retry-After": "0"}, b""), (401, {}, b""), (500, {}, b"x"),
            (302, {"Location": "/elsewhere"}, b""), (200, {}, b"no JSON"), (200, {}, b"[]"), None,
            (200, {}, b"[" * 65_000),
            (200, {}, b'{"partialSuccess":{"rejectedLogRecords":1e999}}'),
        ]  # fmt: skip
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        device.emit(5)
        last = device.delivered("otlp")
        assert not server.answers
        seqs = [int(a["attributes"][0]["value"]["intValue"]) for a in server.logs]
        assert list(dict.fromkeys(seqs)) == list(range(1, last + 1))
        assert all(after <= before + 1 for before, after in pairwise(seqs))
        assert device.status("otlp").lost == 0


def test_otlp_counts_what_the_receiver_refuses(tmp_path: Path, open_devices: list[Device]) -> None:
    partial = json.dumps({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "x"}})
    with collector() as server:
        server.answers = [(400, {}, b"")]
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        first = device.delivered("otlp")
        lost = device.status("otlp").lost
        assert 0 < lost <= first
        server.answers = [(200, {}, partial.encode())]
        device.emit(1)
        device.delivered("otlp")
        assert device.status("otlp").lost == lost + 1
    assert device.log.flush()
    noted = [record.detail for record in tail(device.path, 100) if record.event == "sink_lost"]
    assert noted[0] == {"sink": "otlp", "lost": lost}


def test_a_loss_is_not_the_reason_for_the_next_one(
    tmp_path: Path, open_devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_REPORT", 60.0)
    with collector() as server:
        server.answers = [(400, {}, b"")] * 50
        open_devices.append(device := Device(tmp_path, otlp(server.port)))
        for _ in range(20):
            device.emit(1)
            device.delivered("otlp")
    assert device.log.flush()
    events = Counter(record.event for record in tail(device.path, 1000))
    assert events["sink_lost"] == 1


def test_otlp_over_tls_with_a_token(tmp_path: Path, open_devices: list[Device]) -> None:
    authority = Authority(tmp_path, "plant-ca")
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    token.chmod(0o600)
    with collector(authority.issue("localhost")) as server:
        config = otlp(
            server.port, "otlp+https", "localhost",
            ca_file=str(authority.ca_file), token_file=str(token),
        )  # fmt: skip
        for wrong in (
            replace(config, ca_file=str(Authority(tmp_path, "other").ca_file)),
            replace(config, url=config.url.replace("localhost", "127.0.0.1")),
        ):
            device = Device(tmp_path, wrong)
            wait_until(lambda device=device: device.status("otlp").failures > 0, "refused")
            assert "certificate" in device.status("otlp").error
            device.log.close()
        assert not server.requests
        open_devices.append(device := Device(tmp_path, config))
        device.delivered("otlp")
        assert server.requests[0][1]["Authorization"] == "Bearer t0ken"
        token.chmod(0o644)
        device.emit(1)
        wait_until(lambda: device.status("otlp").failures > 0, "the token is not used")
        assert "chmod 600" in device.status("otlp").error
        token.chmod(0o600)
