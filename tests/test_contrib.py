"""What is ready-made: it is well-formed, names what exists, and does what it says."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sigma.collection import SigmaCollection
from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaRule
from sigma.validation import SigmaValidator
from sigma.validators import core

from certificates import Authority
from devices import Pair, copy
from pqc_iiot import Node
from pqc_iiot.audit import EVENTS, AuditRecord, tail
from pqc_iiot.audit.formats import ecs
from pqc_iiot.audit.sinks import SETTINGS_FILE, AuditSettings, SinkConfig
from pqc_iiot.meter import TRANSPORTS, Meter
from pqc_iiot.metrics import text
from receivers import Rsyslog, wait_until

CONTRIB = Path(__file__).parents[1] / "contrib"
IDS = {event.id: event for event in EVENTS.values()}
RULES = sorted(CONTRIB.glob("sigma/pqc_iiot_*.yml"))
NO_HASH = "0" * 64


def record(id_: str) -> AuditRecord:
    event = IDS[id_]
    return AuditRecord(
        seq=1,
        time="2026-02-03T04:05:06.789Z",
        id=event.id,
        event=event.name,
        severity=event.severity,
        reason=event.reason,
        device="plc",
        peer="a1" * 32,
        detail={},
        prev=NO_HASH,
    )


# systemd

UNIT = CONTRIB / "systemd" / "pqc-iiot.service"


def unit() -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment]
    parsed.read(UNIT)
    return parsed


def test_the_unit_is_hardened_and_notifies() -> None:
    service = unit()["Service"]
    for name, value in {
        "Type": "notify",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
        "NoNewPrivileges": "yes",
        "MemoryDenyWriteExecute": "yes",
        "StateDirectory": "pqc-iiot",
        "StateDirectoryMode": "0700",
        "CapabilityBoundingSet": "",
        "LimitCORE": "0",
        "UMask": "0077",
    }.items():
        assert service[name] == value
    assert service["LoadCredentialEncrypted"].startswith("pqc-iiot-passphrase:")
    assert "HUP" in service["ExecReload"]
    assert service["LimitMEMLOCK"] == "64M"
    assert "SystemCallFilter" in service


def test_the_units_command_is_one(tmp_path: Path) -> None:
    """Its options are those that `listen` has."""
    environment = (CONTRIB / "systemd" / "listen.env").read_text()
    given = environment.partition('"')[2].rpartition('"')[0]
    line = unit()["Service"]["ExecStart"].replace("$PQC_IIOT_LISTEN", given)
    from command import run

    words = line.split()[1:]
    result = run(["--state", str(tmp_path / "none"), *words])
    assert (result.code, result.messages[0]["error"]) == (4, "state")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/usr/bin/pqc-iiot", "/bin/true"))
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert (verify.returncode, verify.stderr) == (0, "")


# Sigma


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_rule_is_valid_and_finds_its_events(path: Path) -> None:
    rule = SigmaRule.from_yaml(path.read_text())
    assert not rule.errors
    assert uuid.UUID(str(rule.id))
    document = yaml.safe_load(path.read_text())
    assert document["logsource"] == {"product": "pqc_iiot", "service": "audit"}
    selection = document["detection"]["selection"]
    ids = selection["id"] if isinstance(selection["id"], list) else [selection["id"]]
    assert set(ids) <= IDS.keys()
    assert selection.keys() <= set(AuditRecord.__dataclass_fields__)
    labels = {IDS[each].severity.label for each in ids}
    assert document["level"] in labels | {"medium"}


def test_the_rules_together_are_in_order() -> None:
    wanted = {"replay", "forged_sender", "tofu_pin", "self_test_failed", "rollback", "witness_fork"}
    assert wanted <= {path.stem.removeprefix("pqc_iiot_") for path in RULES}
    collection = SigmaCollection.load_ruleset(list(RULES))
    # The other validators fetch lists from the network.
    local = [
        check
        for name, check in core.validators.items()
        if name not in ("attacktag", "d3_fendtag", "cartag", "stptag")
    ]
    issues = SigmaValidator(local).validate_rules(iter(collection.rules))
    assert [str(issue) for issue in issues] == []


def test_the_rules_fields_are_those_of_ecs() -> None:
    pipeline = yaml.safe_load((CONTRIB / "sigma" / "ecs_pipeline.yml").read_text())
    assert ProcessingPipeline.from_dict(pipeline)
    document = json.loads(ecs(record("PQC-4007")))
    for name, target in pipeline["transformations"][0]["mapping"].items():
        assert name in AuditRecord.__dataclass_fields__
        assert lookup(document, target)
    ((field, value),) = pipeline["transformations"][1]["conditions"].items()
    assert lookup(document, field) == value


def lookup(document: dict[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        found = found[name]
    return found


# Grafana


def series() -> Iterator[tuple[str, frozenset[str]]]:
    """Every metric that there is, and its labels."""
    yield "pqc_iiot_messages_total", frozenset({"direction", "transport", "result"})
    yield "pqc_iiot_refusals_total", frozenset({"direction", "reason"})


def test_the_dashboard_shows_what_there_is(devices: Path, tmp_path: Path) -> None:
    copy(devices, tmp_path, "plc")
    settings = AuditSettings((SinkConfig("copy", f"file://{tmp_path}/copy.log"),))
    (tmp_path / "plc" / SETTINGS_FILE).write_bytes(settings.encode())
    (tmp_path / "plc" / SETTINGS_FILE).chmod(0o600)
    with Node.open(tmp_path / "plc") as plc:
        plc.meter = Meter()
        known = dict(series())
        for family in text_string_to_metric_families(text(plc)):
            for sample in family.samples:
                known[sample.name] = known.get(sample.name, frozenset()) | set(sample.labels)
    board = json.loads((CONTRIB / "grafana" / "pqc-iiot.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    shown: set[str] = set()
    for expression in expressions:
        for name, matchers in re.findall(r"(pqc_iiot_\w+)(?:\{([^}]*)\})?", expression):
            labels = {each.partition("=")[0] for each in re.findall(r"\w+=~?\"", matchers)}
            assert name in known, name
            assert labels <= known[name] | {"instance"}
            shown.add(name)
        for labels_ in re.findall(r"by \(([^)]*)\)", expression):
            names = re.findall(r"pqc_iiot_\w+", expression)
            assert {each.strip() for each in labels_.split(",")} <= known[names[0]]
    missing = {re.sub("_(bucket|count|sum)$", "", name) for name in known}
    missing -= {re.sub("_(bucket|count|sum)$", "", name) for name in shown}
    assert missing == set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert set(TRANSPORTS) >= {"mqtt"}


# Elasticsearch


def test_the_ingest_pipeline_names_what_records_have() -> None:
    pipeline = json.loads((CONTRIB / "elasticsearch" / "pqc-iiot-pipeline.json").read_text())
    document = json.loads(ecs(record("PQC-4007")))
    assert lookup(document, "event.dataset") == "pqc_iiot.audit"
    kinds = [next(iter(each)) for each in pipeline["processors"]]
    assert kinds == ["set", "json", "fail", "script", "date", "set", "set"]
    date, identity = pipeline["processors"][4]["date"], pipeline["processors"][6]["set"]
    assert lookup(document, date["field"])
    assert len(lookup(document, identity["copy_from"])) == 64
    assert "pqc_iiot.audit" in json.dumps(pipeline["processors"][2])


# rsyslog


class Shipped(Rsyslog):
    """An rsyslog with the configuration as it is shipped, but for paths and port."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        program = shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program
        self.kind = "tls"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        certificate, key = authority.issue("localhost")
        text_ = (CONTRIB / "rsyslog" / "pqc-iiot.conf").read_text()
        for old, new in {
            "/etc/pqc-iiot/siem-ca.pem": authority.ca_file,
            "/etc/pqc-iiot/siem.pem": certificate,
            "/etc/pqc-iiot/siem-key.pem": key,
            "/var/log/pqc-iiot/": f"{folder}/out/",
            "6514": self.port,
            'fileCreateMode="0640"': 'fileCreateMode="0640" flushOnTXEnd="on"',
        }.items():
            assert old in text_
            text_ = text_.replace(old, str(new))
        config = folder / "shipped.conf"
        config.write_text(f'global(workDirectory="{folder}")\n{text_}')
        check = [program, "-N1", "-f", str(config)]
        checked = subprocess.run(check, capture_output=True, text=True, check=False)
        assert "error" not in checked.stderr, checked.stderr
        self._command = [program, "-n", "-iNONE", "-f", str(config)]
        self.start()


def test_rsyslog_keeps_the_log_to_the_byte(pair: Pair, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "plant")
    certificate, key = authority.issue("plc.devices.example")
    rsyslog = Shipped(tmp_path, authority)
    try:
        pair.plc.close()
        sink = SinkConfig(
            "siem",
            f"syslog+tls://localhost:{rsyslog.port}",
            ca_file=str(authority.ca_file),
            cert_file=str(certificate),
            key_file=str(key),
        )
        settings = pair.folder / "plc" / SETTINGS_FILE
        settings.write_bytes(AuditSettings((sink,), heartbeat=0).encode())
        settings.chmod(0o600)
        key.chmod(0o600)
        pair.plc = Node.open(pair.folder / "plc")
        assert pair.plc.audit.flush()
        seq = pair.plc.audit.durable().seq
        wait_until(lambda: pair.plc.status().sinks[0].delivered >= seq, "all was delivered")
        out = tmp_path / "out" / "plc.log"
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") >= seq, "all was kept")
        log = (pair.folder / "plc" / "audit.log").read_bytes()
        assert out.read_bytes() == log[: len(out.read_bytes())]
        assert read_log(out)[0] == 0
    finally:
        rsyslog.stop()


# The parser


def read_log(*paths: Path) -> tuple[int, list[Any], str]:
    script = CONTRIB / "parser" / "read_log.py"
    done = subprocess.run(
        [sys.executable, "-I", script, *paths], capture_output=True, text=True, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_parser_reads_and_checks(pair: Pair) -> None:
    for _ in range(3):
        pair.reopen()
    pair.close()
    log = pair.folder / "plc" / "audit.log"
    code, records, problems = read_log(log)
    assert (code, problems) == (0, "")
    assert [each["seq"] for each in records] == [each.seq for each in tail(log, 999)]
    lines = log.read_bytes().splitlines(keepends=True)
    parsed = AuditRecord.parse(lines[3][:-1])
    assert parsed
    edited = replace(parsed, device="other").encode() + b"\n"
    for changed in (
        [*lines[:3], edited, *lines[4:]],
        [*lines[:3], *lines[4:]],
        [*lines[:3], lines[4], lines[3], *lines[5:]],
        [*lines[:3], b"junk\n", *lines[3:]],
    ):
        log.chmod(0o600)
        log.write_bytes(b"".join(changed))
        code, _, problems = read_log(log)
        assert code == 1
        assert problems.startswith("problem: ")
