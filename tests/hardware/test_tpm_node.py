"""A device whose keys are in a TPM: stolen, put back, struck by power cuts, and fast."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Result, run
from devices import make
from pqc_iiot import Node, Policy
from pqc_iiot.envelope import parse
from pqc_iiot.errors import (
    AuthFailedError,
    CounterRollbackError,
    CustodyTooLowError,
    IntegrityFailedError,
    PolicyMismatchError,
    PqcIiotError,
    UnavailableError,
)
from pqc_iiot.providers import Custody

from .test_tpm_sealing import private_file
from .tpm_fixture import Swtpm
from .tpm_proxy import Proxy

BLOCK = 3
POLICY = Policy(sequence_block=BLOCK)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Node]:
    """Somebody to write to, who verifies."""
    with make(tmp_path, "peer", 6) as node:
        yield node


def device(uri: str, folder: Path, peer: Node, suite: int = 6) -> Node:
    """A new device on a TPM; it and its peer approved each other."""
    node = Node.create(folder, name="plc", suite=suite, provider=uri, policy=POLICY)
    node.peers.add_approved(peer.bundle)
    peer.peers.add_approved(node.bundle)
    return node


def digest(folder: Path) -> dict[str, str]:
    """Every file but the log, which says that opening failed, and the lock."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(("audit", "lock"))
    }


def recover(folder: Path) -> Result:
    """What the hint says to do."""
    return run(["--state", str(folder), "recover", "--yes"])


def refused_unchanged(folder: Path, error: type[PqcIiotError]) -> PqcIiotError:
    """Opening it raises this, and changes nothing."""
    before = digest(folder)
    with pytest.raises(error) as caught:
        Node.open(folder)
    assert digest(folder) == before
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("suite", [1, 6])
def test_a_stolen_folder_opens_at_no_other_tpm(
    tpm: Swtpm, tmp_path: Path, peer: Node, suite: int
) -> None:
    folder = tmp_path / "plc"
    device(tpm.uri, folder, peer, suite).close()
    tpm.replace()
    assert "not the TPM" in str(refused_unchanged(folder, IntegrityFailedError))
    assert tpm.indices() == []  # Nothing was made there, either


def test_a_changed_pcr_keeps_the_device_shut(tpm: Swtpm, tmp_path: Path, peer: Node) -> None:
    folder = tmp_path / "plc"
    device(tpm.uri + ";pcrs=0,4", folder, peer).close()
    tpm.extend(4)
    assert "a PCR has changed" in str(refused_unchanged(folder, PolicyMismatchError))
    tpm.restart()
    Node.open(folder).close()


def test_what_else_can_be_wrong_changes_nothing_and_says_what_to_do(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    from tpm2_pytss.constants import ESYS_TR

    folder = tmp_path / "plc"
    pin = private_file(tmp_path / "pin", "7" * 16)
    device(f"{tpm.uri};pin-file={pin}", folder, peer).close()
    tpm.kill()
    refused_unchanged(folder, UnavailableError)
    tpm.start()
    private_file(pin, "0" * 16)
    refused_unchanged(folder, AuthFailedError)
    private_file(pin, "7" * 16)
    with tpm.esapi() as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"theirs")
    assert "owner" in str(refused_unchanged(folder, AuthFailedError))
    with tpm.esapi() as esys:
        esys.tr_set_auth(ESYS_TR.OWNER, b"theirs")
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"")
    Node.open(folder).close()
    with tpm.esapi() as esys:
        esys.clear(ESYS_TR.LOCKOUT)
    assert "cleared" in str(refused_unchanged(folder, IntegrityFailedError))
    assert tpm.loaded() == (0, 0, 0)


def test_an_older_copy_of_the_whole_folder_is_refused(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    folder, copy = tmp_path / "plc", tmp_path / "copy"
    device(tpm.uri, folder, peer).close()
    shutil.copytree(folder, copy)
    with Node.open(folder) as node:
        node.seal(b"x", to="peer")
    shutil.rmtree(folder)
    copy.rename(folder)
    for _ in range(2):
        error = refused_unchanged(folder, CounterRollbackError)
        assert "pqc-iiot recover" in error.hint
    result = recover(folder)
    assert result.code == 0, result.err
    Node.open(folder).close()


def test_a_removed_counter_is_noticed_and_recovered_from(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    folder = tmp_path / "plc"
    device(tpm.uri, folder, peer).close()
    with tpm.esapi() as esys:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(tpm.indices()[0]))
    refused_unchanged(folder, CounterRollbackError)
    assert recover(folder).code == 0
    Node.open(folder).close()


def test_below_the_custody_that_is_demanded_no_device_is_made(tpm: Swtpm, tmp_path: Path) -> None:
    for suite, custody in ((1, Custody.SPLIT), (6, Custody.NATIVE)):
        folder = tmp_path / str(suite)
        with pytest.raises(CustodyTooLowError, match=custody.name) as caught:
            Node.create(
                folder,
                name="plc",
                suite=suite,
                provider=tpm.uri,
                policy=Policy(min_custody=custody),
            )
        assert "it offers" in caught.value.hint
        assert not (folder / "identity").exists()
    assert tpm.indices() == []
    assert tpm.loaded() == (0, 0, 0)


def test_sealing_costs_the_tpm_nothing_but_the_signature(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    proxy = Proxy(tpm)
    # Of suite 6: a context, a session, the signature, and both gone again.
    for suite, commands in ((1, 0), (6, 5)):
        with Node.create(
            tmp_path / f"plc{suite}", name=f"plc{suite}", suite=suite, provider=proxy.uri
        ) as node:
            node.peers.add_approved(peer.bundle)
            node.seal(b"x", to="peer")  # takes a block of numbers, which counts
            assert node.audit.checkpoint() is not None  # else it is signed at some time below
            proxy.arm(-1)
            for _ in range(10):
                node.seal(b"x", to="peer")
            assert proxy.count == 10 * commands
    proxy.close()


def test_the_command_line_from_init_to_a_quote_that_another_machine_verifies(
    tpm: Swtpm, tmp_path: Path
) -> None:
    tested = run(["--json", "provider", "test", tpm.uri, "--suite", "6"])
    assert tested.code == 0, tested.err
    assert tpm.indices() == []
    assert tpm.loaded() == (0, 0, 0)
    folder, quote = tmp_path / "plc", tmp_path / "quote"
    own = ["--state", str(folder)]
    options = ["--suite", "6", "--min-custody", "split", "--provider", tpm.uri + ";pcrs=0,7"]
    assert run([*own, "init", "plc", *options]).code == 0
    status = run([*own, "--json", "status"]).data
    assert (status["custody"], status["rollback_protected"]) == ("SPLIT", True)
    nonce = ["--nonce", "5a" * 32]
    assert run([*own, "provider", "quote", *nonce, str(quote)]).code == 0
    tpm.kill()
    facts = run(["--json", "provider", "verify-quote", *nonce, str(quote)]).data
    assert facts["PCRs"] == "0,7"
    wrong = run(["provider", "verify-quote", "--nonce", "a5" * 32, str(quote)])
    assert wrong.code == 3
    assert "nonce" in wrong.err


# Power cuts


def number(node: Node) -> int:
    """Of the next frame."""
    return parse(node.seal(b"x", to="peer")).sequence


def test_a_tpm_that_dies_in_any_operation_of_a_device_repeats_no_number(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    folder = tmp_path / "plc"
    proxy = Proxy(tpm)
    node = device(proxy.uri, folder, peer)
    frame = peer.seal(b"21.5", to="plc")
    assert node.open(frame).payload == b"21.5"
    node.close()

    def live() -> None:
        """Opens, gives numbers out over two blocks, takes a frame, closes."""
        with Node.open(folder) as again:
            for _ in range(BLOCK + 1):
                numbers.append(number(again))
            assert again.open(peer.seal(b"21.5", to="plc")).payload == b"21.5"

    numbers: list[int] = []
    proxy.arm(-1)
    live()
    for at in range(0, proxy.count, 9):
        for after in (False, True):
            proxy.arm(at, after=after)
            with contextlib.suppress(UnavailableError):
                live()
            proxy.arm(-1)
            tpm.restart()
            live()
    assert len(numbers) == len(set(numbers))
    assert numbers == sorted(numbers)
    assert tpm.loaded() == (0, 0, 0)
    proxy.close()


def test_a_tpm_that_dies_while_a_device_is_made_lets_it_be_made_again(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    proxy = Proxy(tpm)

    def make_one(folder: Path) -> None:
        Node.create(folder, name="plc", suite=6, provider=proxy.uri, policy=POLICY).close()

    proxy.arm(-1)
    make_one(tmp_path / "whole")
    total = proxy.count
    for at in range(0, total, 14):
        folder = tmp_path / f"plc{at}"
        proxy.arm(at)
        with contextlib.suppress(UnavailableError):
            make_one(folder)
        proxy.arm(-1)
        tpm.restart()
        if (folder / "identity").exists():
            run_until_open(folder)
        else:
            make_one(folder)
    assert tpm.loaded() == (0, 0, 0)
    proxy.close()


def run_until_open(folder: Path) -> None:
    """It has keys: either it opens, or it says how to go on, and that works."""
    opened = run(["--state", str(folder), "status"])
    if opened.code:
        assert opened.err.rstrip().endswith(" recover")
        assert recover(folder).code == 0
    Node.open(folder).close()


def test_a_device_that_is_killed_leaves_next_to_nothing_and_starts_again(
    tpm: Swtpm, tmp_path: Path, peer: Node
) -> None:
    """SIGKILL of the process, not of the TPM, at signatures in the middle."""
    folder = tmp_path / "plc"
    device(tpm.uri, folder, peer).close()
    program = f"""
from pqc_iiot import Node
node = Node.open({str(folder)!r})
while True:
    print(node.seal(b"x", to="peer").hex(), flush=True)
"""
    last = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        for _ in range(5):
            sequence = parse(bytes.fromhex(process.stdout.readline())).sequence
            assert sequence > last
            last = sequence
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        for line in rest:
            with contextlib.suppress(ValueError, PqcIiotError):  # the last one is cut
                last = parse(bytes.fromhex(line)).sequence
        objects, sessions, _ = tpm.loaded()
        assert objects <= 1
        assert sessions <= 1
        # Without a resource manager nobody else cleans up: see the hint of BusyError.
        if objects or sessions:
            tpm.restart()
    with Node.open(folder) as node:
        assert number(node) > last
