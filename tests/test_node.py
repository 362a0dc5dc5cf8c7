"""The rules for frames, and everything that sends or takes one the ordinary way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices import PLAINTEXT, Pair, events, introduce, make, refused, seen_rows
from pqc_iiot import (
    AuthenticationError,
    DuplicateError,
    Incoming,
    InvalidFrameError,
    InvalidInputError,
    Message,
    Node,
    Policy,
    PolicyError,
    PqcIiotError,
    ReplayError,
    RevokedPeerError,
    StateError,
    UnknownPeerError,
)
from pqc_iiot.envelope import parse
from pqc_iiot.errors import NotSupportedError, WrongRecipientError
from pqc_iiot.suites import SUITES


def test_what_is_sent_arrives(pair: Pair) -> None:
    frame = pair.sensor.seal(b"21.5", to="plc", context="line1/setpoint")
    message = pair.plc.open(frame, context="line1/setpoint")
    assert message == Message(
        "sensor", 1, b"21.5", "line1/setpoint", pair.sensor.bundle.fingerprint
    )
    assert len(frame) - 4 <= 1862
    assert b"21.5" not in frame


@pytest.mark.parametrize("sender", SUITES)
@pytest.mark.parametrize("recipient", SUITES)
def test_every_suite_speaks_to_every_other(tmp_path: Path, sender: int, recipient: int) -> None:
    with make(tmp_path, "a", sender) as a, make(tmp_path, "b", recipient) as b:
        introduce(a, b)
        for size in (0, 1, 23, 24, 255, 256, 65535, 65536):
            payload = bytes(size)
            frame = a.seal(payload, to="b", context="line1")
            assert b.open(frame, context="line1").payload == payload
            suite = b.bundle.suite
            fixed = suite.kem.ciphertext_size + a.bundle.suite.sig.signature_size + 16
            assert len(frame) - size - fixed <= 60


@pytest.mark.parametrize("payload", [b"", bytearray(b"x"), memoryview(b"xy")])
def test_payloads_are_bytes_of_any_kind(pair: Pair, payload: bytes) -> None:
    assert pair.plc.open(pair.sensor.seal(payload, to="plc")).payload == bytes(payload)


@pytest.mark.parametrize("context", ["", "a", "ä/ö", "x" * 65535, "line1/\N{ROCKET}"])
def test_contexts(pair: Pair, context: str) -> None:
    assert pair.plc.open(pair.frame(b"x", context), context=context).context == context


@pytest.mark.parametrize("context", ["x" * 65536, "ä" * 32768, "\ud800"])
def test_contexts_that_cannot_be_bound(pair: Pair, context: str) -> None:
    with pytest.raises(InvalidInputError):
        pair.frame(b"x", context)
    frame = pair.frame()
    before = seen_rows(pair.plc)
    with pytest.raises(InvalidInputError):
        pair.plc.open(frame, context=context)
    assert seen_rows(pair.plc) == before
    assert pair.plc.open(frame, context="line1/temp")


def test_payload_limits_hold_exactly_on_both_sides(pair: Pair) -> None:
    pair.sensor.policy = Policy(max_payload=1000)
    assert pair.plc.open(pair.frame(bytes(1000)), context="line1/temp")
    with pytest.raises(InvalidInputError, match="1001 bytes"):
        pair.frame(bytes(1001))
    pair.sensor.policy = Policy(max_payload=1 << 24)
    pair.plc.policy = Policy(max_payload=999)
    with refused(pair.plc, InvalidFrameError, "refused_invalid_frame"):
        pair.plc.open(pair.frame(bytes(1000)), context="line1/temp")
    assert pair.plc.open(pair.frame(bytes(999)), context="line1/temp")
    large = pair.frame(bytes(1 << 24))
    with refused(pair.plc, InvalidFrameError, "refused_invalid_frame"):
        pair.plc.open(large, context="line1/temp")
    pair.plc.policy = Policy(max_payload=1 << 24)
    assert len(pair.plc.open(pair.frame(bytes(1 << 24)), context="line1/temp").payload) == 1 << 24


def test_numbers_go_up_by_one_and_across_restarts(pair: Pair) -> None:
    numbers = [pair.plc.open(pair.frame(), context="line1/temp").sequence for _ in range(3)]
    assert numbers == [1, 2, 3]
    pair.reopen()
    after = pair.plc.open(pair.frame(), context="line1/temp").sequence
    assert after > 3


def test_the_identical_frame_again_is_quiet(pair: Pair) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    for _ in range(2):
        with refused(pair.plc, DuplicateError, "refused_duplicate"):
            pair.plc.open(frame, context="line1/temp")
        pair.reopen()
    assert [e.severity.label for e in events(pair.plc) if e.reason == "duplicate"] == [
        "informational"
    ] * 2


def test_another_frame_with_an_old_number_is_an_alarm(pair: Pair) -> None:
    first, second = pair.frame(b"1"), pair.frame(b"2")
    pair.plc.open(second, context="line1/temp")
    for _ in range(2):
        with refused(pair.plc, ReplayError, "refused_replay"):
            pair.plc.open(first, context="line1/temp")
        pair.reopen()
    assert {e.severity.label for e in events(pair.plc) if e.reason == "replay"} == {"high"}


def test_the_same_frame_in_another_context_is_an_alarm(pair: Pair) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    with refused(pair.plc, ReplayError, "refused_replay"):
        pair.plc.open(frame, context="line2/temp")


def test_a_retained_frame_older_than_what_is_remembered(pair: Pair) -> None:
    old = pair.frame(b"old")
    pair.plc.open(old, context="line1/temp")
    newer = [Incoming(pair.frame(), "line1/temp") for _ in range(40)]
    assert all(isinstance(result, Message) for result in pair.plc.open_many(newer))
    pair.reopen()
    with refused(pair.plc, ReplayError, "refused_replay"):
        pair.plc.open(old, context="line1/temp")
    with refused(pair.plc, DuplicateError, "refused_duplicate"):
        pair.plc.open(old, context="line1/temp", redelivered=True)


def test_a_forged_retained_frame_stays_loud(pair: Pair) -> None:
    old = pair.frame(b"old")
    pair.plc.open(pair.frame(), context="line1/temp")
    for forged in (old[:-1] + bytes([old[-1] ^ 1]), old):
        context = "line1/temp" if forged is not old else "line2/temp"
        with refused(pair.plc, AuthenticationError, "refused_authentication_failed"):
            pair.plc.open(forged, context=context, redelivered=True)


def test_redelivery_never_lets_anything_in(pair: Pair) -> None:
    frame = pair.frame()
    assert pair.plc.open(frame, context="line1/temp", redelivered=True).sequence == 1
    with refused(pair.plc, DuplicateError, "refused_duplicate"):
        pair.plc.open(frame, context="line1/temp", redelivered=True)


def test_many_share_a_commit_and_each_has_its_own_result(pair: Pair) -> None:
    frames = [pair.frame(b"%d" % i) for i in range(6)]
    incoming = [Incoming(frame, "line1/temp") for frame in frames]
    incoming[1] = Incoming(frames[0], "line1/temp")  # again, in the same batch
    incoming[3] = Incoming(frames[1], "line1/temp")  # late
    incoming[4] = Incoming(b"junk", "line1/temp")
    commits = pair.plc.status().store.commits
    results = pair.plc.open_many(incoming)
    assert pair.plc.status().store.commits == commits + 1
    kinds = [Message, DuplicateError, Message, ReplayError, InvalidFrameError, Message]
    assert [type(result) for result in results] == kinds
    assert pair.plc.open_many([]) == []
    assert pair.plc.status().store.commits == commits + 1


def test_a_batch_that_fails_half_way_accepts_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = [Incoming(pair.frame(), "line1/temp") for _ in range(3)]
    accept, taken = pair.plc._reception.accept, 0

    def fail_at_the_second(item: object) -> object:
        nonlocal taken
        taken += 1
        if taken == 2:
            raise StateError("the disk has gone")
        return accept(item)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(pair.plc._reception, "accept", fail_at_the_second)
        with pytest.raises(StateError):
            pair.plc.open_many(incoming)
    assert [type(result) for result in pair.plc.open_many(incoming)] == [Message] * 3


def test_a_gap_is_no_refusal(pair: Pair) -> None:
    pair.frame()
    assert pair.plc.open(pair.frame(), context="line1/temp").sequence == 2


@pytest.mark.parametrize("data", [b"", b"\0", b"junk", bytes(3000), b"\xd0\x83" + bytes(2000)])
def test_what_is_no_frame(pair: Pair, data: bytes) -> None:
    with refused(pair.plc, InvalidFrameError, "refused_invalid_frame"):
        pair.plc.open(data)


@pytest.fixture
def third(pair: Pair, tmp_path: Path) -> Iterator[Node]:
    """Another device that the controller and the sensor approved."""
    with make(tmp_path, "third") as third:
        introduce(third, pair.plc)
        introduce(third, pair.sensor)
        yield third


def test_a_frame_for_somebody_else(pair: Pair, third: Node) -> None:
    frame = pair.frame()
    with refused(third, WrongRecipientError, "refused_wrong_recipient"):
        third.open(frame, context="line1/temp")
    with refused(pair.sensor, WrongRecipientError, "refused_wrong_recipient"):
        pair.sensor.open(frame, context="line1/temp")  # reflected


def test_recipients_that_are_not_on_the_list(pair: Pair, tmp_path: Path) -> None:
    with refused(pair.sensor, UnknownPeerError, "refused_unknown_peer"):
        pair.sensor.seal(b"x", to="nobody")
    with make(tmp_path, "waiting") as waiting:
        pair.sensor.peers.add(waiting.bundle)
        with pytest.raises(UnknownPeerError) as caught:
            pair.sensor.seal(b"x", to="waiting")
        fingerprint = waiting.bundle.fingerprint.hex()
        assert f"pqc-iiot peer approve {fingerprint}" in caught.value.hint


def test_nothing_is_sent_or_taken_after_revocation(pair: Pair) -> None:
    on_the_way = pair.frame()
    pair.plc.peers.revoke("sensor")
    for _ in range(2):
        with refused(pair.plc, RevokedPeerError, "refused_revoked_peer"):
            pair.plc.open(on_the_way, context="line1/temp")
        with refused(pair.plc, RevokedPeerError, "refused_revoked_peer"):
            pair.plc.seal(b"x", to="sensor")
        pair.reopen()


def test_revocation_between_decryption_and_acceptance(pair: Pair) -> None:
    """Rule 7: what held before the decryption must hold under the lock."""
    frame = pair.frame()
    admit = pair.plc._reception.admit

    def admit_then_revoke(incoming: Incoming) -> object:
        admitted = admit(incoming)
        pair.plc.peers.revoke("sensor")
        return admitted

    pair.plc._reception.admit = admit_then_revoke  # type: ignore[assignment, method-assign]
    with pytest.raises(RevokedPeerError):
        pair.plc.open(frame, context="line1/temp")
    assert seen_rows(pair.plc) == []


def test_policy_decides_on_both_sides_and_both_ways(tmp_path: Path) -> None:
    with make(tmp_path, "a", 1) as a, make(tmp_path, "b", 5) as b:
        introduce(a, b)
        to_b, to_a = a.seal(b"x", to="b"), b.seal(b"x", to="a")
        a.policy = Policy(suites="cnsa2")
        b.policy = Policy(suites="cnsa2")
        with refused(b, PolicyError, "refused_policy"):
            b.open(to_b)  # signed with a suite that is not allowed
        with refused(a, PolicyError, "refused_policy"):
            a.open(to_a)  # encrypted to one
        with refused(b, PolicyError, "refused_policy"):
            b.seal(b"x", to="a")
        with refused(a, PolicyError, "refused_policy"):
            a.seal(b"x", to="b")  # own signature
        a.rotate(5)
        b.peers.add(a.bundle)
        assert b.open(a.seal(b"x", to="b")).payload == b"x"


def test_every_thread_gets_its_own_numbers(pair: Pair) -> None:
    frames: list[bytes] = []

    def send() -> None:
        for _ in range(50):
            frames.append(pair.frame())

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames.sort(key=lambda frame: parse(frame).sequence)
    results = pair.plc.open_many(Incoming(frame, "line1/temp") for frame in frames)
    assert [r.sequence for r in results if isinstance(r, Message)] == list(range(1, 201))


def test_the_same_frame_in_many_threads_is_accepted_once(pair: Pair) -> None:
    frame = pair.frame()
    results: list[Message | PqcIiotError] = []

    def take() -> None:
        results.extend(pair.plc.open_many([Incoming(frame, "line1/temp")]))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results) == ["DuplicateError"] * 7 + [
        "Message"
    ]


def test_after_close_everything_is_refused(pair: Pair) -> None:
    frame = pair.frame()
    pair.close()
    pair.close()
    calls: tuple[Callable[[], object], ...] = (
        lambda: pair.plc.open(frame, context="line1/temp"),
        lambda: pair.plc.seal(b"x", to="sensor"),
        lambda: pair.plc.open_many([], durable=True),
        lambda: pair.plc.session("sensor"),
        pair.plc.rotate,
        pair.plc.retire,
        pair.plc.status,
        pair.plc.held_keys,
        pair.plc.reload,
        pair.plc.inbox.messages,
        lambda: setattr(pair.plc, "policy", Policy()),
        lambda: pair.plc.peers.add(pair.sensor.bundle),
        lambda: pair.plc.peers.approve("sensor"),
        lambda: pair.plc.peers.revoke("sensor"),
        lambda: pair.plc.peers.get("sensor"),
        pair.plc.peers.list,
        pair.plc.peers.pending,
        pair.plc.peers.counts,
    )
    for call in calls:
        with pytest.raises(StateError, match="closed") as caught:
            call()
        assert "Node.open" in caught.value.hint
    with Node.open(pair.folder / "plc") as plc:
        assert plc.open(frame, context="line1/temp").payload == b"21.5"


def test_keys_in_software_state_nothing_of_themselves(pair: Pair) -> None:
    with pytest.raises(NotSupportedError, match="software") as caught:
        pair.plc.quote(bytes(32))
    assert "--provider tpm:" in caught.value.hint


def test_the_public_facts(pair: Pair) -> None:
    assert pair.plc.name == pair.plc.bundle.name == "plc"
    assert pair.plc.policy == Policy()


def test_a_memory_store_forgets(tmp_path: Path) -> None:
    with Node.create(tmp_path / "a", name="a", provider=PLAINTEXT, store="memory:"):
        pass
    for store in ("memory:", "sqlite:state.db"):
        with pytest.raises(StateError):
            Node.open(tmp_path / "a", store=store)
