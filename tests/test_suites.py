"""The table of algorithms: numbers and sizes as the standards give them."""

from __future__ import annotations

import pytest

from pqc_iiot import PolicyError
from pqc_iiot._core import KemPrivateKey, KemPublicKey, SigPrivateKey
from pqc_iiot.suites import SUITE_POLICIES, SUITES, Suite, get_suite

ALL = list(SUITES.values())


@pytest.mark.parametrize(
    ("suite_id", "kem_id", "sig_id", "ciphertext", "signature"),
    [
        (1, 0x647A, -65601, 1120, 666),
        (2, 0x0051, -65602, 1665, 1280),
        (3, 0x0041, -65601, 1088, 666),
        (4, 0x0042, -65601, 1568, 666),
        (5, 0x0042, -50, 1568, 4627),
        (6, 0x0050, -65603, 1153, 730),
        (7, 0x0041, -49, 1088, 3309),
    ],
)
def test_the_numbers_on_the_wire(
    suite_id: int, kem_id: int, sig_id: int, ciphertext: int, signature: int
) -> None:
    suite = get_suite(suite_id)
    assert (suite.id, suite.kem.id, suite.sig.id) == (suite_id, kem_id, sig_id)
    assert (suite.kem.ciphertext_size, suite.sig.signature_size) == (ciphertext, signature)
    assert suite.alg == -65792 - suite_id


@pytest.mark.parametrize("suite", ALL, ids=lambda suite: str(suite.id))
def test_sizes_are_those_of_real_keys(suite: Suite) -> None:
    kem, sig = KemPrivateKey.generate(suite.kem.id), SigPrivateKey.generate(suite.sig.id)
    enc, ciphertext = KemPublicKey(suite.kem.id, kem.public_key).hpke_seal(b"", b"", b"")
    assert len(kem.public_key) == suite.kem.public_key_size
    assert (len(enc), len(ciphertext)) == (suite.kem.ciphertext_size, 16)
    assert len(sig.public_key) == suite.sig.public_key_size
    assert len(sig.sign(b"")) == suite.sig.signature_size


def test_numbers_are_never_shared() -> None:
    assert list(SUITES) == [suite.id for suite in ALL]
    assert len({suite.alg for suite in ALL}) == len(ALL)
    assert all(suite.alg < -65536 for suite in ALL)


def test_policies_name_known_suites_only() -> None:
    assert all(allowed <= set(SUITES) for allowed in SUITE_POLICIES.values())
    assert SUITE_POLICIES["cnsa2"] == {5}
    assert SUITE_POLICIES["all"] == set(SUITES)
    hybrid = {suite.id for suite in ALL if suite.kem.name.startswith("MLKEM")}
    assert SUITE_POLICIES["hybrid"] == hybrid == {1, 2, 6}


@pytest.mark.parametrize("suite_id", [0, 8, 255, -1])
def test_an_unknown_suite_is_refused_with_the_known_ones(suite_id: int) -> None:
    with pytest.raises(PolicyError, match=f"suite {suite_id} ") as caught:
        get_suite(suite_id)
    assert "1, 2, 3, 4, 5, 6, 7" in caught.value.hint
