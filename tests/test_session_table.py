"""All sessions of a device: what is looked up, what is refused before it costs anything, who
is left alone for how long."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from pqc_iiot import Message
from pqc_iiot._core import HandshakeInitiator
from pqc_iiot.keystore import Peer
from pqc_iiot.session import Ended, Limits, Outcome, Refused, Send, Sessions, frames, table
from pqc_iiot.session.frames import Control, Kind, credential
from session_network import Network, as_peer, keys

NOW = 1000.0
HOUR = 3600.0


class Devices:
    """Any number of devices that trust each other; what one sends arrives at once."""

    def __init__(self, *names: str, limits: Limits | None = None) -> None:
        self.kids = {keys(name).bundle.kid: name for name in names}
        self.sessions = {
            name: Sessions(partial(keys, name), self._trusted, limits) for name in names
        }
        self.came: dict[str, list[Outcome]] = {name: [] for name in names}

    def _trusted(self, kid: bytes) -> Peer | None:
        return as_peer(self.kids[kid]) if kid in self.kids else None

    def pump(self, now: float = NOW) -> None:
        """Carries frames until nobody has any, and keeps everything else."""
        moving = True
        while moving:
            moving = False
            for name, sessions in self.sessions.items():
                for each in sessions.take():
                    if isinstance(each, Send):
                        moving = True
                        self.sessions[self.kids[each.kid]].receive(now, each.frame, each.context)
                    else:
                        self.came[name].append(each)

    def connect(self, one: str, *others: str) -> None:
        """Sessions that are used both ways."""
        for other in others:
            self.sessions[one].send(NOW, as_peer(other), "t", b"hello", 1)
            self.pump()
            self.sessions[other].tick(NOW + 0.25)
            self.pump()

    def packet(self, sender: str, to: str, payload: bytes) -> bytes:
        """A packet that is on its way."""
        packet = self.sessions[sender].seal(NOW, as_peer(to).fingerprint, "t", payload, 2)
        assert packet is not None
        return packet


def test_packets_of_several_sessions_are_opened_in_order_each_by_its_own() -> None:
    devices = Devices("a", "b", "c")
    devices.connect("b", "a", "c")
    assert devices.sessions["b"].count() == 2
    assert {peer.name for peer in devices.sessions["b"].peers()} == {"a", "c"}
    of_a = [devices.packet("a", "b", b"a%d" % number) for number in range(3)]
    of_c = [devices.packet("c", "b", b"c%d" % number) for number in range(2)]
    forged = of_c[1][:-1] + bytes((of_c[1][-1] ^ 1,))
    packets = [*of_a[:2], of_c[0], b"\x01none" + bytes(19), of_a[2], forged, of_c[1], b"\x02"]
    results = devices.sessions["b"].receive_many(NOW, ["t"] * len(packets), packets)
    assert [
        (each.sender, each.payload) if isinstance(each, Message) else each.error.code
        for each in results
    ] == [
        ("a", b"a0"),
        ("a", b"a1"),
        ("c", b"c0"),
        "invalid_frame",
        ("a", b"a2"),
        "authentication_failed",
        ("c", b"c1"),
        "invalid_frame",
    ]
    assert isinstance(results[5], Refused)
    assert results[5].fingerprint == as_peer("c").fingerprint


def test_a_topic_that_cannot_be_costs_only_the_packets_of_its_session() -> None:
    devices = Devices("a", "b", "c")
    devices.connect("b", "a", "c")
    b = devices.sessions["b"]
    packets = [devices.packet("c", "b", b"c"), *(devices.packet("a", "b", b"a") for _ in range(2))]
    results = b.receive_many(NOW, ["t", "t", "t" * 65536], packets)
    assert isinstance(results[0], Message)
    refused = [(each.error.code, each.fingerprint) for each in results if isinstance(each, Refused)]
    assert refused == [("invalid_input", as_peer("a").fingerprint)] * 2
    assert all(isinstance(each, Message) for each in b.receive_many(NOW, ["t"] * 3, packets)[1:])


def test_a_packet_for_a_handshake_is_refused_and_does_not_disturb_it() -> None:
    devices = Devices("a", "b")
    a = devices.sessions["a"]
    a.send(NOW, as_peer("b"), "t", b"hello", 1)
    (own_id,) = a._by_id
    for context in ("t", None):
        a.receive(NOW, b"\x01" + own_id + bytes(19), context)
        assert isinstance(a.take()[-1], Refused)
    packets = [b"\x01none" + bytes(19), *[b"\x01" + own_id + bytes(19)] * 2]
    assert len(a.receive_many(NOW, ["t"] * 3, packets)) == 3
    a.tick(NOW + 1)
    devices.pump()
    assert a.has(as_peer("b").fingerprint)


def test_messages_to_nobody_are_not_sealed() -> None:
    sessions = Devices("a").sessions["a"]
    assert sessions.seal(NOW, as_peer("b").fingerprint, "t", b"", 1) is None
    assert not sessions.has(as_peer("b").fingerprint)
    assert sessions.current(as_peer("b").fingerprint) is None
    assert sessions.due == float("inf")
    sessions.want(NOW, as_peer("b"))
    assert sessions.seal(NOW, as_peer("b").fingerprint, "t", b"", 1) is None, "not yet"


def test_a_peer_that_does_not_answer_is_left_alone_for_a_minute_then_longer_up_to_an_hour() -> None:
    network = Network(11)
    network.weather.drop = 1.0
    assert left_alone(network, 5 * HOUR)[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    network.history.clear()
    network.a.sessions.want(network.now, network.a.peer)
    network.collect()
    assert network.history == []
    network.a.sessions.want(network.now, network.a.peer, patient=False)
    network.collect()
    assert [flight.frame[0] for flight in network.history] == [Kind.MESSAGE_1]


def left_alone(network: Network, seconds: float) -> list[float]:
    """For how long B is left alone each time, where A wants a session all the while."""
    network.history.clear()
    until = network.now + seconds
    while network.now < until:
        network.a.sessions.want(network.now, network.a.peer)
        network.run(1.0)
    sent = [flight.at for flight in network.history]
    # What is sent last may be answered for 16 s.
    return [next_ - last - 16 for last, next_ in pairwise(sent) if next_ - last > 30]


def test_a_session_is_wanted_with_patience_unless_somebody_says_otherwise() -> None:
    network = Network(11)
    network.weather.drop = 1.0
    network.a.sessions.want(NOW, network.a.peer)
    network.run(70)
    assert network.a.sessions.peers() == []
    network.a.sessions.want(network.now, network.a.peer)
    assert network.a.take() == []


def test_patience_is_remembered_for_a_bounded_number_of_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "_BUCKETS", 2)
    sessions = Devices("a", "b", "c", "d").sessions["a"]
    for late, name in enumerate("bcd"):
        sessions.want(NOW + late, as_peer(name))
    while sessions.peers():
        sessions.tick(sessions.due)
    sessions.take()
    for name, asked in (("d", False), ("c", False), ("b", True)):
        sessions.want(NOW + 70, as_peer(name))
        assert bool(sessions.take()) is asked


def message_1(caller: str, called: str) -> bytes:
    """A frame with message 1."""
    own, peer = keys(caller).bundle, keys(called).bundle
    handshake = HandshakeInitiator(peer.suite.edhoc, b"mine", credential(own), credential(peer))
    return frames.make(Kind.MESSAGE_1, own.kid, handshake.message_1)


def answered(sessions: Sessions, *callers: str) -> list[str]:
    """What comes of message 1 of each: a code, or nothing where it is answered."""
    outcomes = []
    for caller in callers:
        sessions.receive(NOW, message_1(caller, "a"), None)
        (outcome,) = sessions.take()
        outcomes.append(outcome.error.code if isinstance(outcome, Refused) else "")
    return outcomes


def test_strangers_and_who_has_called_too_often_spend_nobody_elses_tokens() -> None:
    limits = Limits(sender_rate=0.0, sender_burst=1.0, total_rate=0.0, total_burst=2.0)
    sessions = Devices("a", "b", "c", "d", limits=limits).sessions["a"]
    assert answered(sessions, "evil", "b", "b", "evil", "c", "d") == [
        "unknown_peer",
        "",
        "transport",
        "unknown_peer",
        "",
        "transport",
    ]


def test_who_may_call_not_even_once_does_not() -> None:
    sessions = Devices("a", "b", limits=Limits(sender_burst=0.0)).sessions["a"]
    assert answered(sessions, "b") == ["transport"]
    assert sessions.peers() == []


def test_tokens_are_counted_for_a_bounded_number_of_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "_BUCKETS", 2)
    limits = Limits(sender_rate=0.0, sender_burst=1.0)
    sessions = Devices("a", "b", "c", "d", limits=limits).sessions["a"]
    refused = "transport"
    assert answered(sessions, "b", "c", "b", "c") == ["", "", refused, refused]
    assert answered(sessions, "d", "c", "d", "b") == ["", refused, refused, ""]


def test_a_session_id_in_use_is_not_given_twice() -> None:
    ids = iter([b"1111", b"1111", b"2222"])
    sessions = Sessions(partial(keys, "a"), lambda _: None, random=lambda _: next(ids))
    for name in "bc":
        sessions.send(NOW, as_peer(name), "t", b"", 1)
    assert list(sessions._by_id) == [b"1111", b"2222"]


def test_a_handshake_message_at_another_step_is_refused() -> None:
    devices = Devices("a", "b")
    a, b = devices.sessions["a"], devices.sessions["b"]
    b.receive(NOW, message_1("a", "b"), None)
    (of_b,) = b._by_id
    a.send(NOW, as_peer("b"), "t", b"", 1)
    (of_a,) = a._by_id
    for sessions, own_id, kinds in (
        (b, of_b, (Kind.PACKET, Kind.MESSAGE_2, Kind.MESSAGE_4)),
        (a, of_a, (Kind.PACKET, Kind.MESSAGE_3)),
    ):
        sessions.take()
        for kind in kinds:
            sessions.receive(NOW, frames.make(kind, own_id, bytes(30)), None)
            (outcome,) = sessions.take()
            assert isinstance(outcome, Refused)
            assert "another step" in str(outcome.error)


@pytest.mark.parametrize("carried", [b"\x03mine" + bytes(30), b"\x02"])
def test_a_session_carries_no_other_handshake_message_than_message_1(carried: bytes) -> None:
    devices = Devices("a", "b")
    devices.connect("a", "b")
    channel = devices.sessions["a"].current(as_peer("b").fingerprint)
    assert channel is not None
    channel.control(Control.HANDSHAKE, carried)
    devices.pump()
    (refused,) = [each for each in devices.came["b"] if isinstance(each, Refused)]
    assert refused.error.code == "invalid_frame"
    assert refused.fingerprint == as_peer("a").fingerprint


def test_the_end_with_one_peer_takes_back_what_came_from_it_and_leaves_the_others() -> None:
    devices = Devices("a", "b", "c")
    devices.connect("b", "a", "c")
    sessions = devices.sessions["b"]
    for name in "ac":
        sessions.receive(NOW, devices.packet(name, "b", name.encode()), "t")
    sessions.end(as_peer("a").fingerprint)
    outcomes = sessions.take()
    assert [each.payload for each in outcomes if isinstance(each, Message)] == [b"c"]
    assert [each.name for each in outcomes if isinstance(each, Ended)] == ["a"]
    assert [peer.name for peer in sessions.peers()] == ["c"]
    sessions.close()
    assert (sessions.peers(), sessions._by_id) == ([], {})


def test_what_is_due_is_done_for_each_peer_at_its_time() -> None:
    sessions = Devices("a", "b", "c").sessions["a"]
    sessions.want(NOW, as_peer("b"))
    sessions.want(NOW + 0.5, as_peer("c"))
    assert len(sessions.take()) == 2
    for at, name in ((1.0, "b"), (1.5, "c"), (3.0, "b"), (3.5, "c")):
        assert sessions.due == NOW + at
        sessions.tick(NOW + at)
        (sent,) = sessions.take()
        assert isinstance(sent, Send)
        assert sent.kid == keys(name).bundle.kid


def test_what_was_sealed_is_asked_for_in_time() -> None:
    devices = Devices("a", "b")
    devices.connect("a", "b")
    sessions = devices.sessions["a"]
    sessions.tick(sessions.due)
    for late in (0.0, 1.0):
        assert sessions.seal(NOW + 10 + late, as_peer("b").fingerprint, "t", b"", 2) is not None
        assert sessions.due == NOW + 10 + 1.25
    sessions.tick(sessions.due)
    assert len(sessions.take()) == 1


def test_a_peer_that_came_back_has_its_patience_anew() -> None:
    network = Network(11)
    network.weather.drop = 1.0
    assert len(left_alone(network, HOUR)) > 4
    network.weather.drop = 0.0
    network.b.hand_over(network.now)
    network.settle()
    assert network.a.sessions.count() == 1
    network.a.sessions.end(network.a.peer.fingerprint)
    network.weather.drop = 1.0
    assert left_alone(network, HOUR)[:2] == [60, 120]
