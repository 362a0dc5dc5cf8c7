"""All sessions of a device: what is looked up, what is refused before it costs anything, who
is left alone for how long."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from pqc_iiot import Message
from pqc_iiot.keystore import Peer
from pqc_iiot.session import Limits, Outcome, Refused, Send, Sessions
from pqc_iiot.session.frames import Kind
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
    packets = [*of_a[:2], b"\x01none" + bytes(19), of_c[0], of_a[2], forged, of_c[1], b"\x02"]
    results = devices.sessions["b"].receive_many(NOW, ["t"] * len(packets), packets)
    assert [
        (each.sender, each.payload) if isinstance(each, Message) else each.error.code
        for each in results
    ] == [
        ("a", b"a0"),
        ("a", b"a1"),
        "invalid_frame",
        ("c", b"c0"),
        ("a", b"a2"),
        "authentication_failed",
        ("c", b"c1"),
        "invalid_frame",
    ]
    assert isinstance(results[5], Refused)
    assert results[5].fingerprint == as_peer("c").fingerprint


def test_a_packet_for_a_handshake_is_refused_and_does_not_disturb_it() -> None:
    devices = Devices("a", "b")
    a = devices.sessions["a"]
    a.send(NOW, as_peer("b"), "t", b"hello", 1)
    (own_id,) = a._by_id
    for context in ("t", None):
        a.receive(NOW, b"\x01" + own_id + bytes(19), context)
        assert isinstance(a.take()[-1], Refused)
    a.tick(NOW + 1)
    devices.pump()
    assert a.has(as_peer("b").fingerprint)


def test_messages_to_nobody_are_not_sealed() -> None:
    sessions = Devices("a").sessions["a"]
    assert sessions.seal(NOW, as_peer("b").fingerprint, "t", b"", 1) is None
    assert not sessions.has(as_peer("b").fingerprint)
    assert sessions.current(as_peer("b").fingerprint) is None
    assert sessions.due == float("inf")


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
