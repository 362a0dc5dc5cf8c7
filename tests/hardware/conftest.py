"""The daemons that these tests talk to, and all of them in turn: `hardware_uri`."""

from __future__ import annotations

from typing import Any

import pytest

from .pkcs11_fixture import (
    kryoptic,
    kryoptic_template,
    native,
    shim,
    shim_module,
    softhsm,
    softhsm_template,
    softokn,
    softokn_template,
)
from .tpm_fixture import make_tpm, tpm, tpm_template

__all__ = [
    "kryoptic",
    "kryoptic_template",
    "make_tpm",
    "native",
    "shim",
    "shim_module",
    "softhsm",
    "softhsm_template",
    "softokn",
    "softokn_template",
    "tpm",
    "tpm_template",
]

_HARDWARE = {
    "tpm-swtpm": "tpm",
    "pkcs11-softhsm2": "softhsm",
    "pkcs11-nss": "softokn",
    "pkcs11-kryoptic": "kryoptic",
}


@pytest.fixture(params=_HARDWARE)
def hardware_uri(request: pytest.FixtureRequest) -> Any:
    """Every kind of hardware in turn: its `uri`, the `custody` that it claims of each suite,
    and `restart()`, which raises `NotImplementedError` where nothing can be restarted."""
    return request.getfixturevalue(_HARDWARE[request.param])
