"""The file that an older store cannot satisfy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pqc_iiot import StateError
from pqc_iiot._core import Secret
from pqc_iiot.anchor import Anchor, Mark
from pqc_iiot.cose import dumps
from pqc_iiot.errors import StateRollbackError, StateTamperedError
from pqc_iiot.folder import StateFolder

KEY = Secret.random()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path / "state", create=True)
    yield folder
    folder.close()


@pytest.fixture
def anchor(folder: StateFolder) -> Anchor:
    anchor = Anchor(folder, KEY)
    anchor.write(Mark(3, 2048))
    return anchor


@pytest.mark.parametrize("mark", [Mark(3, 2048), Mark(4, 2048), Mark(3, 3072), Mark(9, 9999)])
def test_a_store_that_is_as_new_or_newer(anchor: Anchor, mark: Mark) -> None:
    anchor.check(mark)


@pytest.mark.parametrize("mark", [Mark(2, 2048), Mark(3, 2047), Mark(2, 9999), Mark(9, 1024)])
def test_an_older_store(anchor: Anchor, mark: Mark) -> None:
    with pytest.raises(StateRollbackError) as caught:
        anchor.check(mark)
    assert "pqc-iiot recover" in caught.value.hint


def test_a_missing_file_is_not_a_fresh_one(folder: StateFolder, anchor: Anchor) -> None:
    (folder.path / "anchor").unlink()
    with pytest.raises(StateError, match="missing") as caught:
        anchor.check(Mark(9, 9999))
    assert "pqc-iiot recover" in caught.value.hint


def test_every_byte_and_every_length(folder: StateFolder, anchor: Anchor) -> None:
    file = folder.path / "anchor"
    data = file.read_bytes()
    edits = [data[:i] for i in range(len(data))]
    edits += [data + b"\0", data * 2, bytes(128)]
    for i, bit in itertools.product(range(len(data)), (1, 128)):
        edits.append(data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])
    for edit in edits:
        file.write_bytes(edit)
        with pytest.raises(StateTamperedError) as caught:
            anchor.check(Mark(9, 9999))
        assert "pqc-iiot recover" in caught.value.hint
    file.write_bytes(bytes(1 << 20))
    with pytest.raises(StateError, match="longer"):
        anchor.check(Mark(9, 9999))


def test_another_devices_anchor(folder: StateFolder, anchor: Anchor) -> None:
    with pytest.raises(StateTamperedError):
        Anchor(folder, Secret.random()).check(Mark(9, 9999))


@pytest.mark.parametrize("value", [[], [1], [1, 2, 3], [1, "2"], {}, 7, b"\xff"], ids=repr)
def test_an_authentic_one_of_another_shape(
    folder: StateFolder, anchor: Anchor, value: object
) -> None:
    data = dumps(value)
    folder.write("anchor", data + KEY.mac(b"anchor" + data))
    with pytest.raises(StateTamperedError):
        anchor.check(Mark(9, 9999))
