"""More than 100,000 bent frames, bundles and files: always an error of ours, never a change.

The bulk is a plain loop with a seeded generator, fast enough for every run; Hypothesis adds
shapes that a bent byte does not find."""

from __future__ import annotations

import contextlib
import random
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices import PLAINTEXT, introduce, make
from foreign import Foreign, ForeignPeer
from pqc_iiot import (
    AuthenticationError,
    Incoming,
    InvalidBundleError,
    Message,
    Node,
    PqcIiotError,
    cose,
)
from pqc_iiot.bundle import parse_bundle
from pqc_iiot.errors import InvalidFrameError
from pqc_iiot.folder import StateFolder
from pqc_iiot.identity import Identity
from pqc_iiot.policy import Policy
from pqc_iiot.providers import Custody, open_provider
from pqc_iiot.suites import SUITES, get_suite

FRAMES, BUNDLES, FILES = 20_000, 15_000, 2_500
"""Mutations for each suite; and for each kind of file."""
TIME_LIMIT = 120
"""Seconds after which a loop is taken for hung; no test depends on being faster."""


def test_it_is_enough() -> None:
    assert (FRAMES + BUNDLES) * len(SUITES) >= 100_000


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def hung(*_: object) -> None:
        raise TimeoutError("hung")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(TIME_LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def bent(two: list[bytes], rng: random.Random) -> bytes:
    """One of two with one to three things wrong: bits, bytes, lengths, parts of the other."""
    data, other = rng.sample(two, 2)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        # What is in front decides most, so half of the time it is hit.
        at = rng.randrange(min(len(out), 64) if rng.random() < 0.5 else len(out)) if out else 0
        match rng.randrange(9):
            case 0:
                out[at : at + 1] = bytes([(out[at] if out else 0) ^ 1 << rng.randrange(8)])
            case 1:
                out[at : at + 1] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\x5f", b"\x9f"))
            case 2:
                out[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8, 300)))
            case 3:
                del out[at : at + rng.choice((1, 1, 2, 8, 300))]
            case 4:
                del out[at:]
            case 5:
                end = at + rng.choice((1, 4, 8, 32, 700))
                out[at:end] = other[at:end]
            case 6:
                out[at:at] = out[at : at + rng.choice((1, 8, 64))]
            case 7:  # a length that promises much
                out[at:at] = rng.choice((b"\x5b", b"\x9b", b"\xbb", b"\xdb")) + b"\x7f" * 8
            case 8:
                out += rng.choice((b"\0", other, rng.randbytes(40)))
    return bytes(out) if out not in two else bent(two, rng)


def revision(node: Node) -> object:
    """What grows with every row that is written."""
    assert node._state is not None
    return node._state.store._revision  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=SUITES)
def receiver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, list[bytes]]]:
    """A receiver, and two frames for it, the first of which it has accepted."""
    folder = tmp_path_factory.mktemp("receiver")
    with make(folder, "a", request.param) as a, make(folder, "b", request.param) as b:
        introduce(a, b)
        frames = [a.seal(payload, to="b", context="t") for payload in (b"21.5", bytes(300))]
        b.open(frames[0], context="t")
        yield b, frames
        assert b.open(frames[1], context="t").sequence == 2  # nothing has used its number


def test_frames(receiver: tuple[Node, list[bytes]]) -> None:
    node, frames = receiver
    rng = random.Random(1)
    before = revision(node), node.peers.counts()
    for _ in range(FRAMES // 100):
        batch = [
            Incoming(bent(frames, rng), rng.choice(("t", "t", "u")), rng.random() < 0.2)
            for _ in range(100)
        ]
        for result in node.open_many(batch):
            assert isinstance(result, PqcIiotError)
            assert result.exit_code == 3
        assert (revision(node), node.peers.counts()) == before
    assert len(node._freshness._seen) <= 1


def test_plaintexts_of_an_approved_peer(tmp_path: Path) -> None:
    """What is inside a frame is only seen after decryption, and by then from a known hand."""
    mallory, rng = Foreign(3), random.Random(7)
    with make(tmp_path, "plc", 3) as plc:
        plc.peers.add_approved(mallory.bundle())
        target = ForeignPeer.of(plc.bundle.encoded)
        before = revision(plc)
        for _ in range(500):
            frame = mallory.seal(
                rng.randbytes(rng.choice((0, 4, 300))),
                target,
                edit_plaintext=lambda plaintext: bent([plaintext, plaintext[::-1]], rng),
            )
            (result,) = plc.open_many([Incoming(frame, "")])
            assert type(result) is AuthenticationError
        assert revision(plc) == before
        assert plc.open(mallory.seal(b"x", target))


def test_frames_allocate_no_more_than_they_are(receiver: tuple[Node, list[bytes]]) -> None:
    node, frames = receiver
    rng = random.Random(2)
    bent_ones = [bent(frames, rng) for _ in range(300)]
    node.open_many([Incoming(b"", "")])  # what is loaded once is not counted
    tracemalloc.start()
    try:
        for frame in bent_ones:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            node.open_many([Incoming(frame, "t")])
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 20 * len(frame) + 262144  # the log's writer allocates meanwhile
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module", params=SUITES)
def bundles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[bytes]:
    with make(tmp_path_factory.mktemp("bundles"), "a", request.param) as node:
        return [node.bundle.encoded, node.rotate().encoded]


def test_bundles(bundles: list[bytes]) -> None:
    rng = random.Random(3)
    accepted = 0
    for _ in range(BUNDLES):
        data = bent(bundles, rng)
        try:
            bundle = parse_bundle(data)
        except InvalidBundleError:
            continue
        # Only the second signature is not the bundle's own: it proves nothing by itself.
        accepted += 1
        assert bundle.encoded == data
        own = cbor2.loads(data).value[:3], cbor2.loads(data).value[3][0]
        assert own in [(cbor2.loads(b).value[:3], cbor2.loads(b).value[3][0]) for b in bundles]
    assert accepted < BUNDLES // 2


def test_bundles_allocate_no_more_than_they_are(bundles: list[bytes]) -> None:
    rng = random.Random(4)
    tracemalloc.start()
    try:
        for _ in range(300):
            data = bent(bundles, rng)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with contextlib.suppress(InvalidBundleError):
                parse_bundle(data)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 40 * len(data) + 262144
    finally:
        tracemalloc.stop()


def test_bent_bundles_leave_a_node_as_it_is(tmp_path: Path, bundles: list[bytes]) -> None:
    rng = random.Random(5)
    with make(tmp_path, "plc") as plc:
        before = revision(plc)
        for _ in range(300):
            data = bent(bundles, rng)
            try:
                plc.peers.add(data)
            except PqcIiotError:
                assert (revision(plc), plc.peers.counts()) == (before, (0, 0))
            else:
                break  # a whole one, but for its second signature


def each(kind: str, read: Callable[[bytes], object], data: bytes, other: bytes) -> None:
    """Reads bent forms of `data`: it fails with an error of ours, or reads the same."""
    rng = random.Random(kind)
    expected = read(data)
    for _ in range(FILES):
        try:
            found = read(bent([data, other], rng))
        except PqcIiotError:
            continue
        assert found == expected or kind == "policy"


def test_files(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state", create=True)
    suite = get_suite(3)
    first, second = (
        Identity.create(folder, name, suite, PLAINTEXT, None, Custody.SOFTWARE) for name in "ab"
    )
    content = (tmp_path / "state" / "identity").read_bytes()

    def read_identity(data: bytes) -> object:
        (tmp_path / "state" / "identity").write_bytes(data)
        return Identity.load(folder, None).fingerprint

    purpose = cose.dumps(["storage key", "b", b""])

    def read_header(data: bytes) -> object:
        return open_provider(PLAINTEXT, data).unseal(purpose, second.sealed_storage_key)

    each("identity", read_identity, content, content[::-1])
    header = second.provider.header
    rng = random.Random(6)
    for _ in range(FILES):
        with pytest.raises(PqcIiotError):
            read_header(bent([header, first.provider.header], rng))
    each("policy", Policy.decode, Policy().encode(), Policy(max_pending=9).encode())
    folder.close()


# Shapes

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.binary(max_size=20)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(-8, 8) | st.text(max_size=4), inner, max_size=5)
        | st.builds(cbor2.CBORTag, st.integers(60, 1 << 32), inner)
    ),
    max_leaves=15,
)
headers = st.fixed_dictionaries(
    {1: st.sampled_from([-65793, -65795, -65797, -65798]) | anything},
    optional={
        4: st.binary(min_size=8, max_size=8) | anything,
        -5: st.binary(min_size=8, max_size=8) | anything,
        -6: st.integers(0, (1 << 64) - 1) | anything,
        5: anything,
    },
)


def encoded(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


frames_of_any_shape = st.builds(
    lambda tag, parts: encoded(cbor2.CBORTag(tag, parts)),
    st.sampled_from([16, 17, 18, 96, 98]),
    st.tuples(
        headers.map(encoded) | anything,
        st.fixed_dictionaries({-4: st.sampled_from([1088, 1120]).map(bytes) | anything}) | anything,
        st.binary(max_size=900) | anything,
    ),
)


@given(frame=frames_of_any_shape | anything.map(encoded))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_of_any_shape(receiver: tuple[Node, list[bytes]], frame: bytes) -> None:
    node, _ = receiver
    before = revision(node)
    (result,) = node.open_many([Incoming(frame, "t")])
    assert not isinstance(result, Message)
    assert result.exit_code == 3
    assert isinstance(result, InvalidFrameError) or len(frame) > 1000
    assert revision(node) == before


@given(
    data=st.builds(
        lambda tag, parts: encoded(cbor2.CBORTag(tag, parts)),
        st.sampled_from([98, 98, 98, 18]),
        st.tuples(
            st.just(b"") | anything,
            st.just({}) | anything,
            st.dictionaries(st.sampled_from([2, -65537, -65538, -65539, 1]), anything).map(encoded),
            st.lists(st.tuples(st.binary(max_size=30), st.just({}) | anything, anything))
            | anything,
        ),
    )
    | anything.map(encoded)
)
@settings(max_examples=400)
def test_bundles_of_any_shape(data: bytes) -> None:
    with pytest.raises(InvalidBundleError):
        parse_bundle(data)
