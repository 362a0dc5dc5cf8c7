"""Checkpoints are C2SP's signed notes, and nothing signed by another key or for another log."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notes import FALCON_512, make_signer
from pqc_iiot.audit.checkpoint import Checkpoint, NoteKey, make_origin
from pqc_iiot.errors import AuthenticationError, InvalidFrameError

LOG = "0123456789abcdef" * 2
ROOT = bytes(range(32))
SIGNER, WITNESS = make_signer("press-4"), make_signer("plc-7")
PLAIN = Checkpoint(make_origin("press-4", LOG), 20_852_163, ROOT)
SIGNED = PLAIN.signed(SIGNER)
COSIGNED = SIGNED.cosigned(WITNESS)


def test_the_note_is_as_the_specification_draws_it() -> None:
    text, empty, lines = COSIGNED.encode().decode().partition("\n\n")
    assert text.split("\n") == [
        f"pqc-iiot/press-4/{LOG}",
        "20852163",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ]
    assert empty
    first, second, rest = lines.split("\n")
    assert rest == ""
    dash, name, value = first.split(" ")
    assert (dash, name) == ("—", f"pqc-iiot/press-4/{LOG}")
    key_id = sha256(
        name.encode() + b"\n\xffpqc-iiot/checkpoint/v1 -65601\n" + SIGNER.key.public_key
    ).digest()[:4]
    assert b64decode(value)[:4] == key_id
    assert SIGNER.key.verifies(f"{text}\n".encode(), b64decode(value)[4:])
    dash, name, value = second.split(" ")
    assert (dash, name) == ("—", "pqc-iiot/plc-7")
    signature = b64decode(value)
    key_id = sha256(
        name.encode() + b"\n\xffpqc-iiot/cosignature/v1 -65601\n" + WITNESS.key.public_key
    ).digest()[:4]
    assert signature[:4] == key_id
    cosigned = (
        b"subtree/v1\n\0"
        + bytes([len(name)])
        + name.encode()
        + signature[4:12]
        + bytes([len(PLAIN.origin)])
        + PLAIN.origin.encode()
        + bytes(8)
        + (20_852_163).to_bytes(8, "big")
        + ROOT
    )
    assert WITNESS.key.verifies(cosigned, signature[12:])


def test_a_published_checkpoint_is_read_and_its_signatures_are_not_ours() -> None:
    note = (
        "example.com/behind-the-sofa\n"
        "20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
        "\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4UR"
        "YN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    ).encode()
    checkpoint = Checkpoint.parse(note)
    assert (checkpoint.size, checkpoint.encode()) == (20_852_163, note)
    assert checkpoint.signed_by([SIGNER.key]) is None
    assert checkpoint.cosigned_by([SIGNER.key]) == []


def test_it_is_read_as_it_was_written() -> None:
    assert Checkpoint.parse(COSIGNED.encode()) == COSIGNED
    extended = replace(PLAIN, extensions=("more", "and more")).signed(SIGNER)
    assert Checkpoint.parse(extended.encode()) == extended
    assert extended.signed_by([SIGNER.key])


def test_signatures_count_for_their_key_their_log_and_their_kind() -> None:
    keys = [WITNESS.key, SIGNER.key]
    assert COSIGNED.signed_by(keys) == SIGNER.key
    assert [each.key for each in COSIGNED.cosigned_by(keys)] == [WITNESS.key]
    assert COSIGNED.signed_by([WITNESS.key]) is None
    assert COSIGNED.cosigned_by([SIGNER.key]) == []
    assert COSIGNED.signed_by([make_signer("press-4").key]) is None
    assert PLAIN.signed(WITNESS).signed_by(keys) is None, "for a log of another device"
    renamed = NoteKey("press-5", FALCON_512, SIGNER.key.public_key)
    assert COSIGNED.signed_by([renamed]) is None
    # A device's own signature is no cosignature, and the other way round.
    _, value = SIGNED.lines[0]
    moved = replace(PLAIN, lines=(("pqc-iiot/press-4", value),))
    assert moved.cosigned_by(keys) == []
    assert replace(PLAIN, lines=(COSIGNED.lines[1],)).signed_by(keys) is None


@pytest.mark.parametrize(
    "changed",
    [
        replace(COSIGNED, size=COSIGNED.size + 1),
        replace(COSIGNED, root=ROOT[::-1]),
        replace(COSIGNED, origin=make_origin("press-4", LOG[::-1])),
    ],
)
def test_what_was_signed_cannot_be_changed(changed: Checkpoint) -> None:
    lines = tuple((changed.origin, v) if n == COSIGNED.origin else (n, v) for n, v in changed.lines)
    changed = replace(changed, lines=lines)
    with pytest.raises(AuthenticationError):
        changed.cosigned_by([WITNESS.key])
    if changed.origin == COSIGNED.origin:
        with pytest.raises(AuthenticationError):
            changed.signed_by([SIGNER.key])
    else:
        assert changed.signed_by([SIGNER.key]) is None, "the key id is of another origin"


def test_the_time_of_a_cosignature_is_signed() -> None:
    name, value = COSIGNED.lines[1]
    moved = value[:11] + bytes([value[11] ^ 1]) + value[12:]
    with pytest.raises(AuthenticationError):
        replace(COSIGNED, lines=(COSIGNED.lines[0], (name, moved))).cosigned_by([WITNESS.key])


def test_a_cosignature_of_the_same_key_takes_the_place_of_the_one_before() -> None:
    again = COSIGNED.cosigned(WITNESS)
    assert len(again.lines) == 2
    assert len(again.cosigned_by([WITNESS.key])) == 1
    assert again.only(SIGNER.key, WITNESS.key) == again
    assert again.merged([("x", b"12345")]).only(SIGNER.key, WITNESS.key) == again


NOTE = COSIGNED.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        PLAIN.text,
        PLAIN.text + b"\n",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"more",
        NOTE.replace(b"20852163", b"020852163"),
        NOTE.replace(b"20852163", b"+20852163"),
        NOTE.replace(b"20852163", b"-1"),
        NOTE.replace(b"20852163", b"9" * 19),
        NOTE.replace(b"20852163", b"9" * 5000),
        NOTE.replace(b"AAEC", b"AA=C"),
        NOTE.replace(b"Hh8=", b"Hh9="),
        NOTE.replace(b"AAECAwQF", b""),
        NOTE.replace(b"pqc-iiot/press-4", b"pqc-iiot/press\x07"),
        NOTE.replace(b"pqc-iiot/press-4", b"x" * 300),
        NOTE.replace(b"\n\n", b"\n \n\n", 1).replace(b"\n \n", b"\n\n\n"),
        NOTE.replace("— ".encode(), b"- "),
        NOTE + "— x QUJDRA==\n".encode(),
        NOTE + "— x y QUJDREVG\n".encode(),
        NOTE + "— a+b QUJDREVG\n".encode(),
        NOTE.replace(b"\n", b"\r\n"),
        NOTE.replace(b"\n", b"\x85".decode("latin-1").encode()),
        b"\xff" + NOTE,
        NOTE + "— x QUJDREVG\n".encode() * 70,
        NOTE + b"x" * (1 << 20),
    ],
)
def test_anything_else_is_no_checkpoint(data: bytes) -> None:
    with pytest.raises(InvalidFrameError):
        Checkpoint.parse(data)


@given(st.binary(max_size=200), st.integers(0, len(NOTE)), st.integers(0, 40))
def test_junk_never_does_more_than_raise(junk: bytes, at: int, cut: int) -> None:
    data = NOTE[:at] + junk + NOTE[at + cut :]
    try:
        found = Checkpoint.parse(data)
    except InvalidFrameError:
        return
    assert found.encode() == data
