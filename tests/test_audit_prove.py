"""Proofs that stand alone: what they prove, and no forged one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notes import make_signer, write
from pqc_iiot.audit import AuditRecord
from pqc_iiot.audit.find import find_line
from pqc_iiot.audit.journal import last_checkpoint, read_checkpoints
from pqc_iiot.audit.merkle import leaf_hash
from pqc_iiot.audit.prove import Proof, check, prove, prove_consistency
from pqc_iiot.audit.tiles import tiles_path
from pqc_iiot.errors import AuthenticationError, InvalidFrameError, InvalidInputError, StateError

SIGNER = make_signer()
KEY = SIGNER.key


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed by a test."""
    log = tmp_path_factory.mktemp("prove") / "audit.log"
    write(log, SIGNER, 10, 290, 700)
    return log


@pytest.fixture(scope="module")
def data(log: Path) -> bytes:
    return prove(log, 300).encode()


def test_every_record_is_proven_without_the_log(log: Path) -> None:
    newest = last_checkpoint(log)
    assert newest is not None
    for seq in [*range(1, newest.size + 1, 37), newest.size]:
        proof = Proof.parse(prove(log, seq).encode())
        result = check(proof, [KEY])
        assert result.record.seq == seq
        assert result.signer == KEY
        assert proof.record == find_line(log, seq)
        assert prove(log, leaf_hash(proof.record)) == proof
        assert check(proof).signer is None, "nobody vouches without keys"


def test_the_file_is_what_the_page_says(log: Path, data: bytes) -> None:
    document = json.loads(data)
    assert list(document) == ["v", "record", "index", "size", "path", "checkpoint"]
    newest = last_checkpoint(log)
    assert newest is not None
    assert document["checkpoint"] == newest.encode().decode()
    assert (document["v"], document["index"], document["size"]) == (1, 299, newest.size)
    assert AuditRecord.parse(document["record"].encode())


def test_an_older_checkpoint_serves_as_well(log: Path) -> None:
    for old in read_checkpoints(log):
        assert check(prove(log, old.size, checkpoint=old), [KEY]).record.seq == old.size
        with pytest.raises(InvalidInputError):
            prove(log, old.size + 1, checkpoint=old)


@pytest.mark.parametrize("event", [0, -1, 10_000, bytes(32), b"short"])
def test_what_is_not_covered_is_not_proven(log: Path, event: int | bytes) -> None:
    with pytest.raises(InvalidInputError):
        prove(log, event)


def test_without_checkpoints_there_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        prove(tmp_path / "audit.log", 1)


def test_a_changed_log_or_tree_gives_no_proof(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    write(log, SIGNER, 600)
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"sequence":300}', b'"sequence":301}'))
    (changed,) = (i for i, line in enumerate(whole.splitlines()) if b'"sequence":300}' in line)
    with pytest.raises(StateError):
        prove(log, changed + 1)
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:200]))
    with pytest.raises(StateError):
        prove(log, 300)
    log.write_bytes(whole)
    assert prove(log, 300)
    tile = tiles_path(log) / "tile/0/001"
    tile.write_bytes(bytes(8192))
    with pytest.raises(StateError):
        prove(log, 300)
    tile.unlink()
    assert prove(log, 300)


def forged(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def forge(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return forge


def resigned(proof: bytes) -> bytes:
    found = Proof.parse(proof)
    checkpoint = replace(found.checkpoint, lines=()).signed(make_signer())
    return replace(found, checkpoint=checkpoint).encode()


@pytest.mark.parametrize(
    "forge",
    [
        forged(lambda d: d.update(record=d["record"].replace("replay", "repeat"))),
        forged(lambda d: d.update(record=d["record"][:-1])),
        forged(lambda d: d.update(index=d["index"] + 1)),
        forged(lambda d: d.update(index=-1)),
        forged(lambda d: d["path"].pop()),
        forged(lambda d: d["path"].append(d["path"][0])),
        forged(lambda d: d["path"].reverse()),
        forged(lambda d: d.update(path=[])),
        resigned,
    ],
)
def test_forged_proofs_are_refused(data: bytes, forge: Callable[[bytes], bytes]) -> None:
    assert check(Proof.parse(data), [KEY])
    proof = Proof.parse(forge(data))
    with pytest.raises(AuthenticationError):
        check(proof, [KEY])


def test_a_line_that_hashes_right_must_be_the_record_of_its_place(data: bytes) -> None:
    """An inner node is no leaf, and a leaf has one place."""
    proof = Proof.parse(data)
    with pytest.raises(AuthenticationError):
        check(replace(proof, record=b"\1" + proof.path[0] + proof.path[0]), [KEY])


@pytest.mark.parametrize(
    "change",
    [
        forged(lambda d: d.pop("path")),
        forged(lambda d: d.pop("checkpoint")),
        forged(lambda d: d.update(size=d["size"] + 1)),
        forged(lambda d: d.update(index=True)),
        forged(lambda d: d.update(index="7")),
        forged(lambda d: d.update(v=2)),
        forged(lambda d: d.update(path=["AAAA"])),
        forged(lambda d: d.update(path=["ä"])),
        forged(lambda d: d.update(path=[7])),
        forged(lambda d: d.update(path=d["path"] * 30)),
        forged(lambda d: d.update(record="\ud800")),
        forged(lambda d: d.update(record=7)),
        forged(lambda d: d.update(checkpoint="\ud800")),
        forged(lambda d: d.update(checkpoint=7)),
        lambda data: data[:-2],
        lambda data: b"[" * 100_000,
        lambda data: b"null",
        lambda data: b"\xff",
        lambda data: data + b" " * (1 << 20),
    ],
)
def test_anything_else_is_no_proof(data: bytes, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InvalidFrameError):
        Proof.parse(change(data))


@given(data=st.data())
def test_bent_bytes_never_prove_anything_else(data: st.DataObject, log: Path) -> None:
    whole = prove(log, 300).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    bent = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    try:
        proof = Proof.parse(bent)
        check(proof, [KEY])
    except (InvalidFrameError, AuthenticationError):
        return
    found, right = json.loads(bent), json.loads(whole)
    assert {name: found.get(name) for name in right} == right


def test_one_checkpoint_continues_another(log: Path) -> None:
    checkpoints = list(read_checkpoints(log))
    for old in checkpoints:
        for new in checkpoints:
            if old.size > new.size:
                with pytest.raises(InvalidInputError):
                    prove_consistency(log, old, new)
                continue
            proof = prove_consistency(log, old, new)
            assert proof.ok
            document = json.loads(proof.encode())
            assert document["old"] == old.encode().decode()
            assert not replace(proof, old=replace(old, root=bytes(32))).ok
            assert not replace(proof, new=replace(new, root=bytes(32))).ok
            assert not replace(proof, path=(*proof.path, bytes(32))).ok
            other = replace(new, origin=new.origin + "x")
            assert not replace(proof, new=other).ok
            with pytest.raises(InvalidInputError):
                prove_consistency(log, old, other)
