"""Keys sealed by a TPM: they open on this machine, in this state, with this PIN, only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pqc_iiot._core import KemPublicKey, Secret, SigPublicKey
from pqc_iiot.errors import (
    AuthFailedError,
    IntegrityFailedError,
    InvalidInputError,
    LockedOutError,
    PolicyMismatchError,
    ProviderError,
    UnsafePermissionsError,
)
from pqc_iiot.providers import Assurance, Custody
from pqc_iiot.suites import SUITES

from .tpm_fixture import Swtpm, decoded


def private_file(path: Path, content: str) -> Path:
    """A file that only its owner can read."""
    path.write_text(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("suite_id", SUITES)
def test_keys_of_every_suite_are_found_again_after_a_power_cut(tpm: Swtpm, suite_id: int) -> None:
    suite = SUITES[suite_id]
    provider = tpm.provider()
    keys, blob = provider.generate(suite)
    assert len(provider.header) <= 1024
    assert keys.custody is tpm.custody[suite_id]
    tpm.restart()
    again = tpm.provider(header=provider.header).load(suite, blob)
    assert again.custody is keys.custody
    enc, sealed = KemPublicKey(suite.kem.id, keys.kem_public_key).hpke_seal(b"i", b"a", b"21.5")
    assert again.decrypt(enc, b"i", b"a", sealed) == b"21.5"
    signature = again.sign(b"message")
    assert SigPublicKey(suite.sig.id, keys.sig_public_key).verify(b"message", signature)
    # The first connection goes on, too: the daemon was restarted under it.
    assert len(keys.sign(b"message")) == suite.sig.signature_size


def test_custody_is_what_was_probed_and_an_emulator_says_so(tpm: Swtpm) -> None:
    provider = tpm.provider()
    found = provider.capabilities()
    assert {c.assurance for c in found} == {Assurance.EMULATOR}
    for suite in SUITES.values():
        provider.require(suite, tpm.custody[suite.id])
        with pytest.raises(ProviderError, match="NATIVE"):
            provider.require(suite, Custody.NATIVE)
    evidence = {c.custody: c.evidence for c in found if c.algorithm == SUITES[6].sig.name}
    assert "0x12f" in evidence[Custody.SEALED]
    split = evidence[Custody.SPLIT]
    assert "fixedTPM, fixedParent, sensitiveDataOrigin read back" in split
    assert "refused (0x99d)" in split
    assert all(c.seconds for c in found if c.custody is Custody.SPLIT)


def test_a_stolen_disk_opens_on_no_other_tpm(tpm: Swtpm, make_tpm: type[Swtpm]) -> None:
    header = tpm.provider().header
    with pytest.raises(IntegrityFailedError, match="not the TPM that the keys were made") as caught:
        make_tpm().start().provider(header=header)
    assert "pqc-iiot init" in caught.value.hint


def test_after_a_clearing_the_keys_are_gone_and_the_error_says_so(tpm: Swtpm) -> None:
    from tpm2_pytss.constants import ESYS_TR

    provider = tpm.provider()
    header = provider.header
    provider.close()
    with tpm.esapi() as esys:
        esys.clear(ESYS_TR.LOCKOUT)
    with pytest.raises(IntegrityFailedError, match="was cleared") as caught:
        tpm.provider(header=header)
    assert "make new ones" in caught.value.hint
    assert tpm.loaded() == (0, 0, 0)


def test_after_a_pcr_has_changed_nothing_is_unsealed(tpm: Swtpm) -> None:
    provider = tpm.provider(";pcrs=0,7")
    header = provider.header
    provider.close()
    tpm.extend(1)  # Not one of them
    tpm.provider(";pcrs=0,7", header).close()
    tpm.extend(7)
    for options in (";pcrs=0,7", "", ";pcrs=0"):  # Naming others does not help
        with pytest.raises(PolicyMismatchError) as caught:
            tpm.provider(options, header)
        assert caught.value.native == "0x99d"
    assert "a PCR has changed" in str(caught.value)
    assert "firmware" in caught.value.hint
    tpm.restart()  # Switched off and on, as it was when the keys were made
    tpm.provider(";pcrs=0,7", header).close()
    assert tpm.loaded() == (0, 0, 0)


def test_the_sealed_key_comes_out_under_its_policy_only(tpm: Swtpm) -> None:
    """By a program that has everything on the disk, and the TPM, after a PCR has changed."""
    from tpm2_pytss import TSS2_Exception
    from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE, TPMA_OBJECT
    from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC, TPMT_SYM_DEF

    from pqc_iiot.providers.tpm_objects import storage_template

    provider = tpm.provider(";pcrs=0")
    _, _, private, public, *_ = decoded(provider.header)
    provider.close()
    tpm.extend(0)
    with tpm.esapi() as esys:
        parent, *_ = esys.create_primary(None, storage_template(), ESYS_TR.OWNER)
        area, _ = TPM2B_PUBLIC.unmarshal(public)
        handle = esys.load(parent, TPM2B_PRIVATE.unmarshal(private)[0], area)
        esys.flush_context(parent)
        stored = area.publicArea
        attributes = stored.objectAttributes
        assert not attributes & TPMA_OBJECT.USERWITHAUTH
        assert attributes & TPMA_OBJECT.FIXEDTPM
        assert attributes & TPMA_OBJECT.FIXEDPARENT
        attempts: dict[str, Callable[[Any], object]] = {
            "password": lambda _: esys.unseal(handle),
            "auth value alone": lambda s: (
                esys.policy_auth_value(s), esys.unseal(handle, session1=s)
            ),
            "nothing": lambda s: esys.unseal(handle, session1=s),
            "pcr": lambda s: (
                esys.policy_pcr(s, None, "sha256:0"), esys.policy_auth_value(s),
                esys.unseal(handle, session1=s),
            ),
        }  # fmt: skip
        codes = {}
        for name, attempt in attempts.items():
            session = esys.start_auth_session(
                ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY,
                TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256,
            )  # fmt: skip
            with pytest.raises(TSS2_Exception) as caught:
                attempt(session)
            codes[name] = hex(caught.value.rc)
            esys.flush_context(session)
        assert codes == {
            "password": "0x12f", "auth value alone": "0x99d", "nothing": "0x99d", "pcr": "0x99d",
        }  # fmt: skip
        # A public area that asks for less does not belong to the private part.
        stored.objectAttributes = attributes | TPMA_OBJECT.USERWITHAUTH
        parent, *_ = esys.create_primary(None, storage_template(), ESYS_TR.OWNER)
        with pytest.raises(TSS2_Exception):
            esys.load(parent, TPM2B_PRIVATE.unmarshal(private)[0], area)


def test_a_changed_header_opens_nothing(tpm: Swtpm) -> None:
    header = tpm.provider().header
    for position in range(0, len(header), 7):
        changed = bytearray(header)
        changed[position] ^= 1
        try:
            tpm.provider(header=bytes(changed)).close()
        except ProviderError:
            continue
        # What is not looked at on opening: attestation key and counter.
        assert position > len(header) - 320
    assert tpm.loaded() == (0, 0, 0)
    for bad in (b"", b"\x80", header[:-1], header + b"\0", b"x" * 2000):
        with pytest.raises(ProviderError):
            tpm.provider(header=bad)


def test_a_secret_is_bound_to_purpose_and_device(tpm: Swtpm) -> None:
    provider, other = tpm.provider(), tpm.provider()
    secret = Secret.random(32)
    blob = provider.seal(b"storage", secret)
    assert provider.unseal(b"storage", blob).mac(b"x") == secret.mac(b"x")
    for opener, purpose in ((provider, b"another"), (other, b"storage")):
        with pytest.raises(IntegrityFailedError):
            opener.unseal(purpose, blob)


# The PIN


def test_a_pin_is_needed_and_tried_once(tpm: Swtpm, tmp_path: Path) -> None:
    right = private_file(tmp_path / "pin", "4711\n")
    wrong = private_file(tmp_path / "wrong", "4712\n")
    header = tpm.provider(f";pin-file={right}").header
    tpm.provider(f";pin-file={right}", header).close()
    assert tpm.lockout()[0] == 0
    with pytest.raises(AuthFailedError, match="refused the PIN"):
        tpm.provider(f";pin-file={wrong}", header)
    assert tpm.lockout()[0] == 1
    assert tpm.loaded() == (0, 0, 0)
    tpm.provider(f";pin-file={right}", header).close()


def test_without_its_pin_the_tpm_is_not_even_asked(tpm: Swtpm, tmp_path: Path) -> None:
    right = private_file(tmp_path / "pin", "4711\n")
    header = tpm.provider(f";pin-file={right}").header
    with pytest.raises(AuthFailedError, match="made with a PIN") as caught:
        tpm.provider(header=header)
    assert "pin-file=" in caught.value.hint
    assert tpm.lockout()[0] == 0


def test_we_never_lock_the_tpm(tpm: Swtpm, tmp_path: Path) -> None:
    right = private_file(tmp_path / "pin", "4711")
    wrong = private_file(tmp_path / "wrong", "4712")
    header = tpm.provider(f";pin-file={right}").header
    for pin in (wrong, None):
        for _ in range(10):
            with pytest.raises((AuthFailedError, LockedOutError)):
                tpm.provider(f";pin-file={pin}" if pin else "", header)
    used, most = tpm.lockout()
    assert used < most
    with pytest.raises(LockedOutError, match="one more would lock it") as caught:
        tpm.provider(f";pin-file={right}", header)
    assert "tpm2_dictionarylockout" in caught.value.hint
    with tpm.esapi() as esys:
        from tpm2_pytss.constants import ESYS_TR

        esys.dictionary_attack_lock_reset(ESYS_TR.LOCKOUT)
    tpm.provider(f";pin-file={right}", header).close()


def test_a_long_pin_locks_nothing_and_survives_power_cuts(tpm: Swtpm, tmp_path: Path) -> None:
    right = private_file(tmp_path / "pin", "correct horse battery staple")
    wrong = private_file(tmp_path / "wrong", "correct horse battery stable")
    header = tpm.provider(f";pin-file={right}").header
    for _ in range(6):
        with pytest.raises(AuthFailedError, match="refused the PIN"):
            tpm.provider(f";pin-file={wrong}", header)
        with pytest.raises(AuthFailedError, match="or the lack of one"):
            tpm.provider(header=header)
        tpm.restart()
        tpm.provider(f";pin-file={right}", header).close()
    assert tpm.lockout()[0] == 0


def test_a_tpm_that_others_locked_still_serves_keys_without_a_short_pin(
    tpm: Swtpm, tmp_path: Path
) -> None:
    short = private_file(tmp_path / "pin", "4711")
    guarded, plain = tpm.provider(f";pin-file={short}").header, tpm.provider()
    keys, _ = plain.generate(SUITES[6])
    tpm.lock()
    with pytest.raises(LockedOutError) as caught:
        tpm.provider(f";pin-file={short}", guarded)
    assert "tpm2_dictionarylockout" in caught.value.hint
    keys.sign(b"m")
    tpm.provider(header=plain.header).counter()
    assert tpm.loaded() == (0, 0, 0)


@pytest.mark.parametrize(
    ("content", "mode", "error", "words"),
    [
        ("", 0o600, InvalidInputError, "is empty"),
        ("\n", 0o600, InvalidInputError, "is empty"),
        ("x" * 33, 0o600, InvalidInputError, "longer than 32"),
        ("4711", 0o640, UnsafePermissionsError, "others can read"),
        (None, 0, InvalidInputError, "cannot be read"),
    ],
)
def test_a_bad_pin_file_is_refused_before_the_tpm_sees_anything(
    tpm: Swtpm, tmp_path: Path, content: str | None, mode: int, error: type, words: str
) -> None:
    path = tmp_path / "pin"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(error, match=words):
        tpm.provider(f";pin-file={path}")
    assert tpm.lockout()[0] == 0
