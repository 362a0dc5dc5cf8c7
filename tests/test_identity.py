"""This device's keys: made, stored, loaded again, changed, and never believed if bent."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from devices import PLAINTEXT
from pqc_iiot import InvalidInputError, PolicyError, PqcIiotError, ProviderError, StateError
from pqc_iiot.bundle import endorsed_by, parse_bundle
from pqc_iiot.cose import dumps
from pqc_iiot.errors import StateTamperedError, WrongPassphraseError
from pqc_iiot.folder import StateFolder
from pqc_iiot.identity import Identity, public_bundle, public_name
from pqc_iiot.providers import Custody, PassphraseSource
from pqc_iiot.providers.passphrase import from_file
from pqc_iiot.suites import SUITES, get_suite


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path / "state", create=True)
    yield folder
    folder.close()


def create(folder: StateFolder, suite: int = 3, name: str = "plc-7") -> Identity:
    return Identity.create(folder, name, get_suite(suite), PLAINTEXT, None, Custody.SOFTWARE)


def load(folder: StateFolder) -> Identity:
    return Identity.load(folder, None)


@pytest.mark.parametrize("suite", SUITES)
def test_what_is_made_is_loaded_again(folder: StateFolder, suite: int) -> None:
    made = create(folder, suite)
    loaded = load(folder)
    assert (loaded.name, loaded.uri, loaded.generation) == ("plc-7", PLAINTEXT, 1)
    assert loaded.fingerprint == made.fingerprint
    assert loaded.current.bundle == made.current.bundle
    assert loaded.previous is None
    assert loaded.own_keys(made.current.bundle.kid) is loaded.current
    assert loaded.own_keys(bytes(8)) is None
    assert (
        loaded.derive(b"a").mac(b"x") == made.derive(b"a").mac(b"x") != made.derive(b"b").mac(b"x")
    )


def test_rotation_and_retirement(folder: StateFolder) -> None:
    first = create(folder)
    second = first.rotated(get_suite(1), Custody.SOFTWARE)
    assert load(folder).fingerprint == first.fingerprint  # nothing is written yet
    second.write(folder)
    loaded = load(folder)
    assert loaded.fingerprint == second.fingerprint
    assert loaded.previous is not None
    assert loaded.previous.bundle == first.current.bundle
    assert loaded.own_keys(first.current.bundle.kid) is loaded.previous
    assert endorsed_by(loaded.current.bundle, first.current.bundle)
    loaded.retired().write(folder)
    retired = load(folder)
    assert retired.previous is None
    assert retired.own_keys(first.current.bundle.kid) is None
    assert (retired.name, retired.current.bundle.serial, retired.generation) == ("plc-7", 2, 3)
    third = retired.rotated(get_suite(5), Custody.SOFTWARE)
    assert third.current.bundle.serial == 3


def test_what_cannot_be_made_leaves_nothing(folder: StateFolder) -> None:
    suite = get_suite(3)
    for error, name, uri, custody in (
        (InvalidInputError, "bad name", PLAINTEXT, Custody.SOFTWARE),
        (InvalidInputError, "plc", "nothing:", Custody.SOFTWARE),
        (ProviderError, "plc", "software:", Custody.SOFTWARE),
        (PolicyError, "plc", PLAINTEXT, Custody.SEALED),
    ):
        with pytest.raises(error):
            Identity.create(folder, name, suite, uri, None, custody)
    assert {entry.name for entry in folder.path.iterdir()} == {"lock"}


def test_a_missing_file(folder: StateFolder) -> None:
    with pytest.raises(StateError, match="there is no device") as caught:
        load(folder)
    assert "backup" in caught.value.hint
    assert "init" in caught.value.hint


def test_every_flipped_byte(folder: StateFolder) -> None:
    create(folder)
    file = folder.path / "identity"
    data = bytearray(file.read_bytes())
    rng = random.Random(1)
    for at in range(len(data)):
        before, data[at] = data[at], data[at] ^ 1 << rng.randrange(8)
        file.write_bytes(data)
        with pytest.raises(PqcIiotError) as caught:
            load(folder)
        assert isinstance(caught.value, StateError | ProviderError | InvalidInputError)
        assert caught.value.hint or isinstance(caught.value, ProviderError)
        data[at] = before
    file.write_bytes(data)
    load(folder)


def test_every_length(folder: StateFolder) -> None:
    create(folder)
    file = folder.path / "identity"
    data = file.read_bytes()
    for length in [*range(100), *range(100, len(data), 37), len(data) - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(StateTamperedError) as caught:
            load(folder)
        assert "backup" in caught.value.hint
    for more in (data + b"\0", data + data, data + bytes(1 << 18)):
        file.write_bytes(more)
        with pytest.raises(StateError):
            load(folder)


def test_an_authentic_file_of_another_version(folder: StateFolder) -> None:
    identity = create(folder)
    for value in ([2, "future"], [99]):
        data = dumps(value)
        folder.write("identity", data + identity.storage_key.mac(b"identity" + data))
        with pytest.raises(StateError, match=f"version {value[0]}") as caught:
            load(folder)
        assert "newer" in caught.value.hint


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1, "1"),
        (2, 7),
        (3, 7),
        (4, b""),
        (4, 7),
        (5, []),
        (5, 7),
        (5, [7]),
        (5, [[b"", b""]]),
        (5, [[1, 2]]),
        (5, [[b"", b"", b""]]),
        (5, [[], [], []]),
    ],
)
def test_authentic_files_of_another_shape(folder: StateFolder, at: int, value: object) -> None:
    identity = create(folder)
    parts = list(cbor2.loads((folder.path / "identity").read_bytes()[:-32]))
    parts[at] = value
    data = dumps(parts)
    folder.write("identity", data + identity.storage_key.mac(b"identity" + data))
    with pytest.raises(PqcIiotError) as caught:
        load(folder)
    assert isinstance(caught.value, StateError | ProviderError)


def test_keys_of_another_bundle(folder: StateFolder, tmp_path: Path) -> None:
    """Parts of one device's own files, put together otherwise under its own key."""
    identity = create(folder)
    rotated = identity.rotated(get_suite(3), Custody.SOFTWARE)
    parts = list(cbor2.loads((folder.path / "identity").read_bytes()[:-32]))
    parts[5] = [[rotated.current.bundle.encoded, identity.current.blob]]
    data = dumps(parts)
    folder.write("identity", data + identity.storage_key.mac(b"identity" + data))
    with pytest.raises(ProviderError, match="not those of the bundle"):
        load(folder)


def test_another_devices_parts(folder: StateFolder, tmp_path: Path) -> None:
    create(folder)
    other = StateFolder(tmp_path / "other", create=True)
    create(other)
    one, two = ((f.path / "identity").read_bytes() for f in (folder, other))
    ours, theirs = (list(cbor2.loads(data[:-32])) for data in (one, two))
    for at in (3, 4, 5):
        mixed = [*ours[:at], theirs[at], *ours[at + 1 :]]
        for mac in (one[-32:], two[-32:]):
            (folder.path / "identity").write_bytes(dumps(mixed) + mac)
            with pytest.raises(PqcIiotError):
                load(folder)
    other.close()


@pytest.fixture(scope="module")
def passphrases(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PassphraseSource, PassphraseSource]:
    folder = tmp_path_factory.mktemp("passphrases")
    for name in ("right", "wrong"):
        (folder / name).touch(0o600)
        (folder / name).write_text(f"{name} horse battery\n")
    return from_file(folder / "right"), from_file(folder / "wrong")


def test_a_passphrase(
    folder: StateFolder, passphrases: tuple[PassphraseSource, PassphraseSource]
) -> None:
    right, wrong = passphrases
    made = Identity.create(folder, "a", get_suite(3), "software:", right, Custody.SOFTWARE)
    assert Identity.load(folder, right).fingerprint == made.fingerprint
    with pytest.raises(WrongPassphraseError) as caught:
        Identity.load(folder, wrong)
    assert "passphrase" in caught.value.hint
    with pytest.raises(ProviderError, match="none was given"):
        Identity.load(folder, None)
    content = b"".join(file.read_bytes() for file in folder.path.iterdir())
    assert b"horse battery" not in content


def test_the_public_copy_heals(folder: StateFolder, tmp_path: Path) -> None:
    identity = create(folder)
    other = StateFolder(tmp_path / "other", create=True)
    stranger = create(other, name="stranger")
    file = folder.path / "bundle"
    assert public_bundle(folder.path) == identity.current.bundle
    assert public_name(folder) == "plc-7"
    for content in (b"", b"junk", stranger.current.bundle.encoded, bytes(1 << 20)):
        file.write_bytes(content)
        if content != stranger.current.bundle.encoded:
            assert public_name(folder) == ""
            with pytest.raises(StateError) as caught:
                public_bundle(folder.path)
            assert caught.value.hint
        load(folder)
        assert parse_bundle(file.read_bytes()) == identity.current.bundle
    file.unlink()
    load(folder)
    assert public_bundle(folder.path) == identity.current.bundle
    other.close()
