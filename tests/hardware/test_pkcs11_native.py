"""Post-quantum keys that are made, used and kept inside a token."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pkcs11 import KeyType
from pkcs11.mechanisms import Mechanism

from devices import make
from pqc_iiot.providers import Custody
from pqc_iiot.providers.pkcs11_objects import member
from pqc_iiot.suites import SUITES

from .pkcs11_fixture import Kryoptic, Softokn, Tokens

ML_KEM = ["ML-KEM-1024", "ML-KEM-768"]
ML_DSA = ["ML-DSA-65", "ML-DSA-87"]


def test_each_key_where_it_is_best_kept(native: Tokens) -> None:
    found = json.loads(native.run("custodies", native.uri))
    keeps = isinstance(native, Kryoptic)
    for suite in SUITES.values():
        kem, sig, highest = found[str(suite.id)]
        split = "SPLIT" if suite.id == 6 else "SEALED"
        assert kem == ("SEALED" if not keeps else "NATIVE" if suite.kem.name in ML_KEM else split)
        assert sig == ("SEALED" if not keeps else "NATIVE" if suite.sig.name in ML_DSA else split)
        # A key set is worth what its weaker key is, and no more of it is promised.
        assert native.custody[suite.id] is min(Custody[kem], Custody[sig])
        assert highest == native.custody[suite.id].name


def test_suite_7_is_native_where_both_are_performed_and_kept(kryoptic: Kryoptic) -> None:
    assert kryoptic.custody[7] is Custody.NATIVE
    found = json.loads(kryoptic.run("capabilities", kryoptic.uri))
    assert found == dict.fromkeys(ML_DSA + ML_KEM, "NATIVE")


def test_a_token_that_wraps_its_keys_out_keeps_none(softokn: Softokn) -> None:
    """NSS performs ML-KEM, and says that its keys are not EXTRACTABLE; it does not mean it."""
    assert "out" in softokn.run("extract", softokn.uri, 3).split()
    found = json.loads(softokn.run("capabilities", softokn.uri))
    assert found == dict.fromkeys(ML_KEM, "SEALED")


@pytest.mark.parametrize("suite", [3, 4, 7])
def test_devices_talk_after_a_restart(native: Tokens, tmp_path: Path, suite: int) -> None:
    make(tmp_path, "peer").close()
    native.run("make_device", native.uri, tmp_path / "device", suite)
    for _ in range(2):
        native.run("use_device", tmp_path / "device", tmp_path / "peer")


@pytest.mark.parametrize(("suite", "inside"), [(3, 1), (6, 2), (7, 2)])
def test_no_key_comes_out(kryoptic: Kryoptic, suite: int, inside: int) -> None:
    assert kryoptic.run("extract", kryoptic.uri, suite).split() == [str(inside)]


def test_what_a_token_must_not_take(native: Tokens) -> None:
    assert native.run("misuse", native.uri, 3).split() == ["refused"] * 5


def test_a_stolen_disk(softokn: Softokn, softokn_template: Path, tmp_path: Path) -> None:
    softokn.run("make_device", softokn.uri, tmp_path / "device", 3)
    for file in softokn.folder.glob("*.db"):  # the same label and PIN, another token
        file.write_bytes((softokn_template / file.name).read_bytes())
    make(tmp_path, "peer").close()
    with pytest.raises(AssertionError, match="KeyNotFoundError"):
        softokn.run("use_device", tmp_path / "device", tmp_path / "peer")


def test_eight_threads(native: Tokens) -> None:
    assert native.run("threads", native.uri, 3).split() == ["200"]


# Numbers of the URI


@pytest.mark.parametrize(
    "numbers",
    [
        "ml-kem-768=0x49,0x0f,0x17,3",  # that is ML-KEM-1024
        "ml-kem-768=0x49,0x0f,0x17",
        "ml-kem-768=0x49,0x1040,0x17,2",
        "ml-kem-768=0x80000049,0x8000000f,0x80000017,2",  # it has no such mechanisms
    ],
)
def test_numbers_of_something_else_are_not_used(softokn: Softokn, numbers: str) -> None:
    found = softokn.run("capabilities", f"{softokn.uri};{numbers}")
    assert list(json.loads(found)) == ["ML-KEM-1024"]


def test_falcon_is_nothing_that_a_token_calls_falcon(kryoptic: Kryoptic) -> None:
    uri = f"{kryoptic.uri};falcon-512=0x4a,0x1c,0x1d,2"
    assert list(json.loads(kryoptic.run("capabilities", uri))) == ML_DSA + ML_KEM


def test_a_vendors_numbers(kryoptic: Kryoptic, shim_module: Path, tmp_path: Path) -> None:
    shimmed = kryoptic.behind(shim_module)
    # It gives away functions of version 2.40 only: no ML-KEM, and ML-DSA under its numbers.
    uri = f"{shimmed.uri};ml-dsa-65=0x8000004a,0x8000001c,0x8000001d,2"
    assert list(json.loads(shimmed.run("capabilities", uri))) == ML_DSA
    make(tmp_path, "peer").close()
    shimmed.run("make_device", uri, tmp_path / "device", 7)
    shimmed.run("use_device", tmp_path / "device", tmp_path / "peer")


def test_wrong_signatures_are_not_used(
    kryoptic: Kryoptic, shim_module: Path, tmp_path: Path
) -> None:
    shimmed = kryoptic.behind(shim_module)
    shimmed.run("make_device", shimmed.uri, tmp_path / "device", 7)
    (shimmed.folder / "told" / "wrong").touch()
    assert json.loads(shimmed.run("capabilities", shimmed.uri)) == {}
    make(tmp_path, "peer").close()
    with pytest.raises(AssertionError, match="is something else"):
        shimmed.run("use_device", tmp_path / "device", tmp_path / "peer")


def test_a_number_that_python_pkcs11_does_not_know() -> None:
    made = member(Mechanism, 0xC0000071)
    assert isinstance(made, Mechanism)
    assert made == 0xC0000071
    assert member(Mechanism, 0xC0000071) is made
    assert re.search("C0000071", repr(made))
    assert member(KeyType, 0x49) is KeyType.ML_KEM
