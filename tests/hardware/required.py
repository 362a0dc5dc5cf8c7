"""Whether a missing daemon is a reason to skip, or a failure."""

from __future__ import annotations

import os

import pytest


def need(there: bool, missing: str) -> None:
    """Skips the test; with PQC_IIOT_REQUIRE_HW=1, as CI sets it, fails it."""
    if there:
        return
    if os.environ.get("PQC_IIOT_REQUIRE_HW") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
