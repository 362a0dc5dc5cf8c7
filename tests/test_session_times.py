"""How long sessions wait: for answers, for silent peers, for what was replaced."""

from __future__ import annotations

import pytest

from pqc_iiot import InvalidInputError
from pqc_iiot.session import Limits, Send
from session_network import Network


def test_after_handshakes_crossed_each_end_still_hears_the_session_that_the_other_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(9)
    passing = network._pass
    lost: dict[bytes, float] = {}

    def lossy(to: str, send: Send) -> None:
        if network.now >= lost.get(send.frame[1:5], 0.0):
            passing(to, send)

    monkeypatch.setattr(network, "_pass", lossy)
    # A has a session, of which B sees nothing before both machines sleep for a while.
    network.a.hand_over(network.now)
    network.run(0.12)
    (of_b,) = network.b.sessions._by_id
    lost[of_b] = network.now + 36.7
    network.run(0.1)
    network.now += 36
    # So B begins one of its own, which both use; and then A's question on the first arrives.
    network.b.hand_over(network.now)
    network.run(75)
    assert network.a.sessions.count() == network.b.sessions.count() == 1
    for device in (network.a, network.b):
        device.hand_over(network.now)
    network.run(5)
    for device in (network.a, network.b):
        last = device.handed[device.tokens][1]
        assert last in [message.payload for message in network.other(device).delivered]


def test_what_was_replaced_receives_longer_than_anybody_sends_without_asking() -> None:
    with pytest.raises(InvalidInputError, match="grace must be longer than silence"):
        Limits(grace=60.0, silence=60.0)
