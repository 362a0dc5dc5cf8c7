"""The counter in NV memory: it only grows, whatever is done to it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pqc_iiot.errors import AuthFailedError, BusyError, CounterRollbackError
from pqc_iiot.providers import Counter

from .required import need
from .test_tpm_sealing import private_file
from .tpm_fixture import Swtpm


def counter_of(provider: Any) -> Counter:
    """Its counter."""
    counter = provider.counter()
    assert isinstance(counter, Counter)
    return counter


def test_it_counts_and_a_power_cut_takes_nothing_back(tpm: Swtpm) -> None:
    provider = tpm.provider()
    counter = counter_of(provider)
    assert counter.rollback_protected
    begin = counter.value()
    assert [counter.increment() for _ in range(3)] == [begin + 1, begin + 2, begin + 3]
    tpm.restart()
    assert counter.value() == begin + 3
    again = counter_of(tpm.provider(header=provider.header))
    assert (again.value(), again.name) == (begin + 3, counter.name)
    assert again.increment() == begin + 4


def test_each_device_has_its_own(tpm: Swtpm) -> None:
    one, other = counter_of(tpm.provider()), counter_of(tpm.provider())
    assert one.name != other.name
    before = other.value()
    one.increment()
    assert other.value() == before
    assert len(tpm.indices()) == 2


def test_nobody_else_moves_or_writes_it(tpm: Swtpm) -> None:
    from tpm2_pytss import TSS2_Exception
    from tpm2_pytss.constants import ESYS_TR

    counter = counter_of(tpm.provider())
    before = counter.value()
    with tpm.esapi() as esys:
        handle = esys.tr_from_tpmpublic(tpm.indices()[0])
        attempts: tuple[Callable[[], object], ...] = (
            lambda: esys.nv_increment(handle),
            lambda: esys.nv_increment(handle, ESYS_TR.OWNER),
            lambda: esys.nv_write(handle, bytes(8)),
            lambda: esys.nv_read(handle, 8),
        )
        for attempt in attempts:
            with pytest.raises(TSS2_Exception):
                attempt()
    assert counter.value() == before
    assert tpm.lockout()[0] == 0


def test_removed_and_made_anew_it_begins_above_all_before(tpm: Swtpm) -> None:
    provider = tpm.provider()
    counter = counter_of(provider)
    for _ in range(5):
        last = counter.increment()
    with tpm.esapi() as esys:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(tpm.indices()[0]))
    again = counter_of(tpm.provider(header=provider.header))
    assert again.value() > last


def test_a_device_that_is_given_up_leaves_nothing(tpm: Swtpm) -> None:
    provider, other = tpm.provider(), counter_of(tpm.provider())
    provider.erase()  # Nothing was made yet
    counter_of(provider)
    assert len(tpm.indices()) == 2
    for _ in range(2):
        provider.erase()
        assert len(tpm.indices()) == 1
    assert other.value()
    # What is not this device's stays, also where it took the place of its counter.
    index = tpm.indices()[0]
    mine: Any = provider
    mine._place = (index, bytes(32))
    provider.erase()
    assert tpm.indices() == [index]
    assert tpm.loaded() == (0, 0, 0)


def test_something_else_in_its_place_is_not_taken_for_it(tpm: Swtpm) -> None:
    from tpm2_pytss.constants import TPM2_ALG, TPM2_NT, TPMA_NV
    from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

    provider = tpm.provider()
    counter = counter_of(provider)
    index = tpm.indices()[0]
    with tpm.esapi() as esys:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(index))
        kind = int(TPM2_NT.COUNTER) << int(TPMA_NV.TPM2_NT_SHIFT)
        attributes = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA | kind
        area = TPMS_NV_PUBLIC(
            nvIndex=index, nameAlg=TPM2_ALG.SHA256, dataSize=8, attributes=attributes
        )
        esys.nv_increment(esys.nv_define_space(b"", TPM2B_NV_PUBLIC(area)))
    with pytest.raises(CounterRollbackError, match="another counter"):
        counter.value()
    with pytest.raises(CounterRollbackError, match="something else") as caught:
        counter_of(tpm.provider(header=provider.header))
    assert "pqc-iiot recover" in caught.value.hint
    assert tpm.loaded() == (0, 0, 0)


def test_a_full_nv_is_told_and_nothing_is_left(tpm: Swtpm) -> None:
    from tpm2_pytss import TSS2_Exception
    from tpm2_pytss.constants import TPM2_ALG, TPM2_NT, TPMA_NV
    from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

    provider = tpm.provider()
    plain = TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE
    counter = plain | (int(TPM2_NT.COUNTER) << int(TPMA_NV.TPM2_NT_SHIFT))
    index = 0x01000000
    with tpm.esapi() as esys:
        # A TPM keeps some room for counters alone.
        for attributes, size in ((plain, 2048), (plain, 256), (plain, 16), (counter, 8)):
            with contextlib.suppress(TSS2_Exception):
                while True:
                    area = TPMS_NV_PUBLIC(
                        nvIndex=index,
                        nameAlg=TPM2_ALG.SHA256,
                        dataSize=size,
                        attributes=attributes,
                    )
                    esys.tr_close(esys.nv_define_space(b"", TPM2B_NV_PUBLIC(area)))
                    index += 1
    with pytest.raises(BusyError, match="no room left for a counter") as caught:
        provider.counter()
    assert caught.value.native == "0x14b"
    assert "tpm2_nvundefine" in caught.value.hint
    assert tpm.loaded() == (0, 0, 0)


def test_a_tpm_that_somebody_owns_needs_its_owner(tpm: Swtpm, tmp_path: Path) -> None:
    from tpm2_pytss.constants import ESYS_TR

    with tpm.esapi() as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"theirs")
    with pytest.raises(AuthFailedError, match="has an owner with a password") as caught:
        tpm.provider()
    assert "owner-auth-file" in caught.value.hint
    assert tpm.loaded() == (0, 0, 0)
    wrong = private_file(tmp_path / "wrong", "ours")
    with pytest.raises(AuthFailedError, match="has an owner"):
        tpm.provider(f";owner-auth-file={wrong}")
    right = private_file(tmp_path / "owner", "theirs\n")
    provider = tpm.provider(f";owner-auth-file={right}")
    counter_of(provider).increment()
    tpm.provider(f";owner-auth-file={right}", provider.header).close()
    assert tpm.lockout()[0] == 0


DOCS = Path(__file__).parents[2] / "docs" / "tpm.md"
KEEP_STORAGE_KEY = """
tpm2_createprimary -C o -P theirs -G ecc256:aes128cfb -c srk
  -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt'
tpm2_evictcontrol -C o -P theirs -c srk 0x81000001
"""
"""As docs/tpm.md has it."""


def test_an_owner_who_keeps_the_storage_key_lets_devices_open_without_his_password(
    tpm: Swtpm, tmp_path: Path
) -> None:
    from tpm2_pytss.constants import ESYS_TR

    need(shutil.which("tpm2_createprimary") is not None, "tpm2-tools are not installed")
    before = tpm.provider()
    counter = counter_of(before)
    with tpm.esapi() as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"theirs")
    for line in KEEP_STORAGE_KEY.strip().replace("\n  ", " ").splitlines():
        assert line in " ".join(DOCS.read_text().replace("\\\n", " ").split())
        command = [*shlex.split(line), "-T", tpm.tcti]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with tpm.esapi() as esys:  # what tools leave loaded without a resource manager
        _, answer = esys.get_capability(1, 0x80000000, 8)
        data = answer.data
        handles = data.handles
        for i in range(handles.count):
            esys.flush_context(esys.tr_from_tpmpublic(int(handles.handle[i])))
    after = tpm.provider(header=before.header)
    assert counter_of(after).value() == counter.value()
    # A new device seals without the owner, too; only its counter needs him.
    with pytest.raises(AuthFailedError, match="may not define a counter"):
        tpm.provider().counter()
    assert tpm.loaded() == (0, 0, 0)
