"""Every kind of hardware against the checks that a third party runs on its own provider."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from pqc_iiot.suites import SUITES


def conformance(hardware: Any) -> Any:
    """With the one command, in a process of its own, as modules of tokens need it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pqc_iiot.conformance", hardware.uri, "--json"],
        env={**os.environ, **getattr(hardware, "environment", {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    report = json.loads(done.stdout)
    failed = {each["check"]: each["found"] for each in report["checks"] if not each["passed"]}
    assert (failed, done.returncode) == ({}, 0)
    return report


def test_it_does_what_every_provider_must(hardware_uri: Any) -> None:
    report = conformance(hardware_uri)
    assert len(report["checks"]) >= 13
    found: dict[int, set[str]] = {}
    for key in report["keys"]:
        found.setdefault(key["suite"], set()).add(key["custody"])
    assert set(found) == set(SUITES)
    weakest = {suite: min(map(_rank, custodies)) for suite, custodies in found.items()}
    assert weakest == {suite: int(custody) for suite, custody in hardware_uri.custody.items()}
    assert report["assurance"] == "emulator"
    of_keys = [row for row in report["capabilities"] if row["operation"] in ("decrypt", "sign")]
    assert all(row["evidence"] for row in report["capabilities"])
    assert any(row["seconds"] for row in of_keys)


def test_a_token_that_performs_it_all(kryoptic: Any) -> None:
    """NATIVE keys come out of the checks as such, with their times."""
    report = conformance(kryoptic)
    native = {(row["operation"], row["algorithm"]) for row in report["capabilities"]
              if row["custody"] == "native" and row["seconds"]}  # fmt: skip
    assert native >= {("decrypt", "ML-KEM-768"), ("sign", "ML-DSA-65")}
    inside = {key["suite"] for key in report["keys"] if key["custody"] == "native"}
    assert inside >= {3, 4, 5, 7}


def test_it_leaves_the_hardware_as_it_was(hardware_uri: Any) -> None:
    """Twice the same: nothing that the first run left is in the second one's way."""
    first, second = conformance(hardware_uri), conformance(hardware_uri)
    assert first["keys"] == second["keys"]


def _rank(custody: str) -> int:
    return ["software", "sealed", "split", "native"].index(custody) + 1
