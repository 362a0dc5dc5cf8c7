"""The allow-list: what is trusted, under which name, and that nothing talks it round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest

from devices import PLAINTEXT
from pqc_iiot import (
    Bundle,
    InvalidInputError,
    Peer,
    PeerKeyChangedError,
    PeerState,
    Policy,
    PolicyError,
    RevokedPeerError,
    TofuWarning,
    Trust,
    UnknownPeerError,
)
from pqc_iiot._core import Secret
from pqc_iiot.bundle import make_bundle
from pqc_iiot.errors import StateTamperedError
from pqc_iiot.keystore import Keystore
from pqc_iiot.providers import KeySet, open_provider
from pqc_iiot.store import PEERS, PENDING, Row, Store, open_store
from pqc_iiot.suites import get_suite

New = Callable[..., tuple[Bundle, KeySet]]


@pytest.fixture(scope="module")
def new() -> New:
    """Makes keys of a device, first ones or the next ones."""
    provider = open_provider(PLAINTEXT)

    def new(
        name: str,
        serial: int = 1,
        before: tuple[Bundle, KeySet] | None = None,
        suite: int = 1,
    ) -> tuple[Bundle, KeySet]:
        keys, _ = provider.generate(get_suite(suite))
        return make_bundle(name, keys, serial, before), keys

    return new


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store("memory:", tmp_path, Secret.random(), create=True)


@pytest.fixture
def heard() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def keystore(store: Store, heard: list[tuple[str, str]]) -> Keystore:
    return open_keystore(store, heard)


def open_keystore(
    store: Store, heard: list[tuple[str, str]], policy: Policy | None = None
) -> Keystore:
    def listen(what: str, subject: Peer | Bundle, transport: str) -> None:
        heard.append((what, subject.name))

    return Keystore(store, policy or Policy(), bytes(32), listen)


@pytest.fixture
def tofu(store: Store, heard: list[tuple[str, str]]) -> Keystore:
    return open_keystore(store, heard, Policy(trust=Trust.TOFU))


def table(store: Store) -> list[object]:
    return [*store.rows(PEERS), *store.rows(PENDING)]


def test_an_empty_list_denies_everyone(keystore: Keystore, new: New) -> None:
    bundle, _ = new("a")
    for kid in (bundle.kid, bytes(8)):
        with pytest.raises(UnknownPeerError) as caught:
            keystore.sender(kid)
        assert kid.hex() in str(caught.value)
        assert "pqc-iiot peer add" in caught.value.hint
    with pytest.raises(UnknownPeerError, match="'a' is not on the allow-list"):
        keystore.recipient("a")
    with pytest.raises(UnknownPeerError):
        keystore.find("a")
    with pytest.raises(UnknownPeerError):
        keystore.approve("a")
    assert keystore.counts() == (0, 0)


def test_a_bundle_waits_and_the_error_says_how_to_approve_it(
    keystore: Keystore, new: New, heard: list[tuple[str, str]]
) -> None:
    bundle, _ = new("a")
    assert keystore.add(bundle) is None
    look_ups: list[Callable[[], Peer]] = [
        lambda: keystore.sender(bundle.kid),
        lambda: keystore.recipient("a"),
    ]
    for look_up in look_ups:
        with pytest.raises(UnknownPeerError) as caught:
            look_up()
        assert f"pqc-iiot peer approve {bundle.fingerprint.hex()}" in caught.value.hint
    assert keystore.pending() == [bundle]
    peer = keystore.approve(bundle.fingerprint.hex())
    assert (peer.name, peer.state, peer.bundle) == ("a", PeerState.APPROVED, bundle)
    assert keystore.sender(bundle.kid).bundle == keystore.recipient("a").bundle == bundle
    assert keystore.counts() == (1, 0)
    assert heard == [("waiting", "a"), ("approved", "a")]


def test_the_same_bundle_again_changes_nothing(
    keystore: Keystore, store: Store, new: New, heard: list[tuple[str, str]]
) -> None:
    bundle, keys = new("a")
    keystore.add(bundle)
    before = table(store)
    keystore.add(bundle)
    keystore.add(make_bundle("b", keys, 1))  # the same keys under another name
    assert table(store) == before
    keystore.approve("a")
    before = table(store)
    for again in (bundle, make_bundle("b", keys, 2), make_bundle("a", keys, 9)):
        peer = keystore.add(again)
        assert peer is not None
        assert (peer.name, peer.bundle.serial) == ("a", 1)
    assert table(store) == before
    assert heard == [("waiting", "a"), ("seen", "a"), ("seen", "b"), ("approved", "a")]


def test_own_keys_are_no_peer(store: Store, new: New) -> None:
    bundle, _ = new("me")
    keystore = Keystore(store, Policy(), bundle.fingerprint, lambda what, subject, transport: None)
    for add in (keystore.add, keystore.add_approved):
        with pytest.raises(InvalidInputError, match="own bundle"):
            add(bundle)
    assert table(store) == []


def test_approval_by_name_is_refused_where_two_wait(keystore: Keystore, new: New) -> None:
    one, other = new("a")[0], new("a")[0]
    keystore.add(one)
    keystore.add(other)
    with pytest.raises(UnknownPeerError, match="2 bundles wait as 'a'") as caught:
        keystore.approve("a")
    assert "pending" in caught.value.hint
    keystore.approve(other.fingerprint.hex())
    assert keystore.recipient("a").bundle == other
    with pytest.raises(PeerKeyChangedError) as changed:
        keystore.approve(one.fingerprint.hex())
    assert "--name" in changed.value.hint
    assert keystore.approve(one.fingerprint.hex(), "a2").name == "a2"
    assert {peer.name for peer in keystore.peers()} == {"a", "a2"}


def test_names_of_ours(keystore: Keystore, new: New) -> None:
    bundle, keys = new("plc-7")
    keystore.add_approved(bundle, "press")
    assert keystore.recipient("press").bundle == bundle
    assert keystore.sender(bundle.kid).name == "press"
    with pytest.raises(UnknownPeerError):
        keystore.recipient("plc-7")
    for name in ("-x", "a b", "x" * 65):
        with pytest.raises(InvalidInputError):
            keystore.add_approved(new("a")[0], name)
    # A successor is known by the keys before, whatever the peer is called here.
    after, after_keys = new("plc-7", 2, (bundle, keys))
    peer = keystore.add(after)
    assert peer is not None
    assert (peer.name, peer.state) == ("press", PeerState.APPROVED)
    keystore.revoke("press")
    with pytest.raises(RevokedPeerError):
        keystore.add(new("plc-7", 3, (after, after_keys))[0])


def test_a_name_like_a_fingerprint_is_no_fingerprint(keystore: Keystore, new: New) -> None:
    victim, _ = new("victim")
    imposter, _ = new(victim.fingerprint.hex())
    keystore.add(imposter)
    keystore.add(victim)
    assert keystore.approve(victim.fingerprint.hex()).bundle == victim
    assert keystore.find(victim.fingerprint.hex()).bundle == victim
    with pytest.raises(UnknownPeerError):
        keystore.sender(imposter.kid)


@pytest.mark.parametrize("trust", Trust)
def test_a_changed_key_is_refused_always(
    store: Store, new: New, heard: list[tuple[str, str]], trust: Trust
) -> None:
    keystore = open_keystore(store, heard, Policy(trust=trust))
    bundle, keys = new("a")
    keystore.add_approved(bundle)
    stranger, stranger_keys = new("a")
    before = table(store)
    for changed in (
        stranger,
        new("a", 2)[0],
        new("a", 2, (stranger, stranger_keys))[0],  # signed, by others
        new("a", 2, (bundle, stranger_keys))[0],  # names the keys before, signed by others
        new("a", 1, (bundle, keys))[0],  # no higher serial
        new("b", 2, (bundle, keys))[0],  # another device
    ):
        with pytest.raises(PeerKeyChangedError) as caught:
            keystore.add(changed)
        assert "pqc-iiot peer revoke a" in caught.value.hint
        with pytest.raises(PeerKeyChangedError):
            keystore.add_approved(changed)
        with pytest.raises(UnknownPeerError):
            keystore.approve(changed.fingerprint.hex())
    assert table(store) == before
    assert keystore.recipient("a").bundle == bundle


@pytest.mark.parametrize("trust", Trust)
def test_a_changed_key_is_not_trusted_after_revocation_either(
    store: Store, new: New, heard: list[tuple[str, str]], trust: Trust
) -> None:
    keystore = open_keystore(store, heard, Policy(trust=trust))
    bundle, keys = new("a")
    keystore.add_approved(bundle)
    keystore.revoke("a")
    for again in (bundle, make_bundle("b", keys, 2), new("b", 2, (bundle, keys))[0]):
        for add in (keystore.add, keystore.add_approved):
            with pytest.raises(RevokedPeerError):
                add(again)
    stranger, _ = new("a")
    assert keystore.add(stranger) is None  # waits: somebody has to compare it
    with pytest.raises(UnknownPeerError):
        keystore.sender(stranger.kid)
    with pytest.raises(RevokedPeerError):
        keystore.recipient("a")
    keystore.approve(stranger.fingerprint.hex())
    assert keystore.recipient("a").bundle == stranger
    with pytest.raises(RevokedPeerError):
        keystore.sender(bundle.kid)


def test_a_successor_takes_over(
    keystore: Keystore, new: New, heard: list[tuple[str, str]], store: Store
) -> None:
    first, first_keys = new("a")
    second, second_keys = new("a", 2, (first, first_keys), 5)
    third, _ = new("a", 7, (second, second_keys))
    keystore.add_approved(first)
    with pytest.raises(PeerKeyChangedError):
        keystore.add(third)  # its predecessor is not known here
    for bundle in (second, third):
        peer = keystore.add(bundle)
        assert peer is not None
        assert peer.bundle == bundle
        assert keystore.recipient("a").bundle == keystore.sender(bundle.kid).bundle == bundle
    assert keystore.sender(first.kid).state is PeerState.SUPERSEDED
    assert keystore.sender(first.kid).successor == second.fingerprint
    assert keystore.sender(second.kid).successor == third.fingerprint
    before = table(store)
    for old in (first, second):  # going back
        peer = keystore.add(old)
        assert peer is not None
        assert peer.state is PeerState.SUPERSEDED
        assert keystore.add_approved(old).state is PeerState.SUPERSEDED
    with pytest.raises(PeerKeyChangedError):
        keystore.add(new("a", 99, (first, first_keys))[0])  # a second successor
    assert table(store) == before
    assert heard == [("added", "a"), ("rotated", "a"), ("rotated", "a")]


def test_no_rotation_into_a_suite_that_policy_forbids(
    store: Store, new: New, heard: list[tuple[str, str]]
) -> None:
    keystore = open_keystore(store, heard, Policy(suites="hybrid"))
    first, keys = new("a", suite=2)
    keystore.add_approved(first)
    before = table(store)
    for suite in (3, 4, 5):
        for bundle in (new("a", 2, (first, keys), suite)[0], new("b", suite=suite)[0]):
            for add in (keystore.add, keystore.add_approved):
                with pytest.raises(PolicyError):
                    add(bundle)
    assert table(store) == before
    waiting, _ = new("b", suite=1)
    keystore.add(waiting)
    keystore.policy = Policy(suites="cnsa2")
    with pytest.raises(PolicyError):
        keystore.approve("b")


def test_revocation_covers_every_key_set_and_stays(
    keystore: Keystore, store: Store, new: New, heard: list[tuple[str, str]]
) -> None:
    first, keys = new("a")
    second, _ = new("a", 2, (first, keys))
    other, _ = new("b")
    keystore.add_approved(first)
    keystore.add(second)
    keystore.add_approved(other)
    assert keystore.sender(first.kid)
    revoked = keystore.revoke(first.fingerprint.hex())  # by an old fingerprint
    assert {peer.bundle.serial for peer in revoked} == {1, 2}
    for again in (keystore, open_keystore(store, [])):  # now, and after a restart
        for bundle in (first, second):
            with pytest.raises(RevokedPeerError) as caught:
                again.sender(bundle.kid)
            assert caught.value.peer == bundle.fingerprint.hex()
        with pytest.raises(RevokedPeerError):
            again.recipient("a")
        assert again.recipient("b").bundle == other
    assert keystore.revoke("a") == []
    with pytest.raises(UnknownPeerError):
        keystore.revoke("nobody")
    assert heard[-2:] == [("revoked", "a")] * 2


def test_a_flood_of_names_pins_no_more_than_policy_says(
    store: Store, new: New, heard: list[tuple[str, str]]
) -> None:
    keystore = open_keystore(store, heard, Policy(trust=Trust.TOFU, max_pinned=2))
    approved, _ = new("approved")
    keystore.add_approved(approved)  # takes no place
    first, keys = new("a")
    for bundle in (first, new("b")[0]):
        with pytest.warns(TofuWarning):
            assert keystore.add(bundle)
    assert keystore.add(new("c")[0]) is None
    assert heard[-1] == ("waiting", "c")
    assert [bundle.name for bundle in keystore.pending()] == ["c"]
    assert keystore.add(first) is not None
    rotated = keystore.add(new("a", 2, (first, keys))[0])
    assert rotated is not None
    assert rotated.state is PeerState.PINNED
    assert keystore.add(new("d")[0]) is None
    keystore.revoke("b")  # its place is free again
    with pytest.warns(TofuWarning):
        assert keystore.add(new("e")[0])
    assert keystore.add(new("f")[0]) is None


def test_tofu_pins_the_first_key_with_a_warning(
    tofu: Keystore, new: New, heard: list[tuple[str, str]]
) -> None:
    bundle, keys = new("a")
    with pytest.warns(TofuWarning, match="trusted on first use: a ") as warned:
        peer = tofu.add(bundle)
    assert bundle.fingerprint.hex() in str(warned[0].message).replace(" ", "")
    assert peer is not None
    assert peer.state is PeerState.PINNED
    assert tofu.recipient("a").bundle == bundle
    with pytest.raises(PeerKeyChangedError):
        tofu.add(new("a")[0])
    after, _ = new("a", 2, (bundle, keys))
    rotated = tofu.add(after)
    assert rotated is not None
    assert rotated.state is PeerState.PINNED  # nobody compared it yet
    assert heard == [("pinned", "a"), ("rotated", "a")]


def test_a_pinned_peer_is_approved_once_compared(
    tofu: Keystore, new: New, heard: list[tuple[str, str]]
) -> None:
    for name, approve in (
        ("a", lambda bundle: tofu.approve(bundle.fingerprint.hex())),
        ("b", lambda bundle: tofu.approve("b")),
        ("c", tofu.add_approved),
    ):
        bundle, _ = new(name)
        with pytest.warns(TofuWarning):
            tofu.add(bundle)
        assert approve(bundle).state is PeerState.APPROVED
        assert tofu.sender(bundle.kid).state is PeerState.APPROVED
        assert tofu.counts() == (len({n for _, n in heard}), 0)


def test_direct_approval_under_tofu_needs_no_warning(tofu: Keystore, new: New) -> None:
    assert tofu.add_approved(new("a")[0]).state is PeerState.APPROVED


def test_a_flood_of_bundles_evicts_the_oldest_and_stays_bounded(
    store: Store, new: New, heard: list[tuple[str, str]]
) -> None:
    keystore = open_keystore(store, heard, Policy(max_pending=3))
    bundles = [new(f"flood-{i}", suite=3)[0] for i in range(7)]
    for i, bundle in enumerate(bundles):
        keystore.add(bundle)
        assert keystore.pending() == bundles[max(0, i - 2) : i + 1]
    assert [name for what, name in heard if what == "evicted"] == [f"flood-{i}" for i in range(4)]
    keystore.policy = Policy(max_pending=1)
    keystore.add(bundles[0])
    assert keystore.pending() == bundles[:1]


def test_the_cache_is_bounded_and_agrees_with_the_store(
    keystore: Keystore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.keystore._CACHE", 3)
    bundles = [new(f"p{i}", suite=3)[0] for i in range(6)]
    for bundle in bundles:
        keystore.add_approved(bundle)
    for bundle in bundles * 2:
        assert keystore.recipient(bundle.name).bundle == bundle
        assert keystore.sender(bundle.kid).bundle == bundle
        assert len(keystore._by_kid) <= 3
        assert len(keystore._by_name) <= 3
    keystore.revoke("p5")
    keystore.revoke("p0")
    for name in ("p5", "p0"):
        with pytest.raises(RevokedPeerError):
            keystore.recipient(name)


def test_a_row_of_another_version_is_refused_with_an_error_of_ours(
    store: Store, heard: list[tuple[str, str]], new: New
) -> None:
    bundle, _ = new("plc-7")
    open_keystore(store, heard).add_approved(bundle)
    (row,) = store.rows(PEERS)
    with store.transaction():
        store.put(PEERS, replace(row, kid=b"another!"))
    with pytest.raises(StateTamperedError):
        open_keystore(store, heard).recipient("plc-7")
    state, successor, encoded = cbor2.loads(row.value)
    for value in (
        ["retired", successor, encoded],
        [state, successor],
        [state, successor, new("other")[0].encoded],
    ):
        with store.transaction():
            store.put(PEERS, replace(row, value=cbor2.dumps(value, canonical=True)))
        with pytest.raises(StateTamperedError):
            open_keystore(store, heard).recipient("plc-7")


def test_the_states_are_counted_again_only_after_a_change(
    keystore: Keystore, store: Store, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keystore.states() == {}
    before = new("plc-7")
    keystore.add_approved(before[0])
    assert keystore.states() == {"approved": 1}
    keystore.add(new("plc-7", 2, before)[0])
    assert keystore.states() == {"approved": 1, "superseded": 1}
    with monkeypatch.context() as patch:
        patch.setattr(store, "rows", None)
        assert keystore.states() == {"approved": 1, "superseded": 1}
    keystore.revoke("plc-7")
    assert keystore.states() == {"revoked": 2}


def test_every_change_of_trust_shows_in_the_counter(tofu: Keystore, new: New) -> None:
    first = new("plc-7")
    counters = [tofu.changes]
    with pytest.warns(TofuWarning):
        tofu.add(first[0])
    counters.append(tofu.changes)
    assert tofu.recipient("plc-7").state is PeerState.PINNED
    tofu.approve("plc-7")
    counters.append(tofu.changes)
    assert tofu.recipient("plc-7").state is PeerState.APPROVED, "not the one looked up before"
    tofu.add(new("plc-7", 2, first)[0])
    counters.append(tofu.changes)
    tofu.revoke("plc-7")
    assert sorted({*counters, tofu.changes}) == [*counters, tofu.changes]


def test_a_successor_that_waited_waits_no_more(keystore: Keystore, new: New) -> None:
    before = new("plc-7")
    after = new("plc-7", 2, before)
    keystore.add(after[0])
    keystore.add_approved(before[0])
    assert keystore.pending() == [after[0]]
    keystore.add(after[0])
    assert keystore.recipient("plc-7").bundle == after[0]
    assert keystore.pending() == []


def test_who_listens_hears_by_which_transport_a_bundle_came(store: Store, new: New) -> None:
    heard: list[tuple[str, str]] = []

    def listen(what: str, subject: Peer | Bundle, transport: str) -> None:
        heard.append((what, transport))

    keystore = Keystore(store, Policy(), bytes(32), listen)
    keystore.add(new("plc-7")[0], "mqtt")
    keystore.approve("plc-7")
    assert heard == [("waiting", "mqtt"), ("approved", "")]


def test_who_was_looked_up_is_not_asked_of_the_store_again(
    keystore: Keystore, store: Store, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.keystore._CACHE", 2)
    a, b, c = (new(name, suite=3)[0] for name in "abc")
    for bundle in (a, b, c):
        keystore.add_approved(bundle)
    for bundle in (a, b):
        keystore.sender(bundle.kid)
    keystore.recipient("c")
    asked: list[object] = []

    def find(table: str, **what: object) -> list[Row]:
        asked.append(what)
        return []

    monkeypatch.setattr(store, "find", find)
    assert keystore.sender(b.kid).bundle == b
    assert keystore.recipient("c").bundle == keystore.sender(c.kid).bundle == c
    assert asked == []
    with pytest.raises(UnknownPeerError):
        keystore.sender(a.kid)  # dropped: the oldest, so the store is asked
