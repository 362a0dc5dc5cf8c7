"""Sessions over a bad network, at many seeds: what is handed over arrives exactly once or
its loss is reported, nothing forged or stale is delivered, and all recovers by itself.

`PQC_IIOT_SESSION_RUNS=100000` runs more than the 1,000 of every test run.
"""

from __future__ import annotations

import os

import pytest

from pqc_iiot.session import Fate, Limits
from session_network import Device, Network, Weather

RUNS = int(os.environ.get("PQC_IIOT_SESSION_RUNS", "1000"))
BATCH = 50
FRAMES_TO_RECOVER = 60
SECONDS_TO_RECOVER = 75.0


def check(sender: Device, receiver: Device, window: int) -> None:
    """What must hold between two devices, whatever happened between them."""
    handed = {payload: token for token, (_, payload) in sender.handed.items()}
    arrived: set[int] = set()
    last: dict[bytes, int] = {}
    for each in receiver.delivered:
        token = handed[each.payload]
        assert token not in arrived, "delivered twice"
        arrived.add(token)
        assert each.context == sender.handed[token][0]
        if not window:
            assert each.sequence > last.get(each.session, -1), "out of order"
        last[each.session] = each.sequence
    for token, fate in sender.fates.items():
        if fate is Fate.CONFIRMED:
            assert token in arrived
        elif fate in (Fate.LOST, Fate.UNSENT):
            assert token not in arrived


def one_run(seed: int) -> None:
    network = Network(seed)
    rng = network.rng
    window = rng.choice((0, 0, 64))
    limits = Limits(
        window=window,
        rekey_packets=rng.choice((1 << 19, 12, 30)),
        rekey_after=rng.choice((86_400.0, 40.0)),
        silence=rng.choice((60.0, 5.0)),
    )
    network = Network(seed, limits)
    network.weather = Weather.bad(rng)
    for _ in range(rng.randrange(5, 30)):
        device = rng.choice((network.a, network.b))
        match rng.randrange(40):
            case 0:
                device.reboot()
            case 1:
                network.run(rng.choice((100.0, 3 * 86_400.0)))
            case 2:
                network.a.hand_over(network.now)
                network.b.hand_over(network.now)
            case _:
                for _ in range(rng.randrange(1, 4)):
                    device.hand_over(network.now, rng.choice("tu"))
        network.run(rng.choice((0.0, 0.01, 0.3, 2.0)))
    # The weather clears up; everything must come to rest, and then work.
    network.weather = Weather()
    network.settle()
    network.run(120.0)
    started, frames = network.now, network.sent
    last = [(d, d.hand_over(network.now)) for d in (network.a, network.b)]
    network.settle()
    assert network.now - started <= SECONDS_TO_RECOVER
    assert network.sent - frames <= FRAMES_TO_RECOVER
    check(network.a, network.b, window)
    check(network.b, network.a, window)
    for device, token in last:
        assert device.fates[token] in (Fate.CONFIRMED, Fate.UNCONFIRMED), device.fates[token]
    # Whoever had lost its keys is known by now: the next message arrives, each way.
    last = [(d, d.hand_over(network.now)) for d in (network.a, network.b)]
    network.settle()
    for device, token in last:
        assert device.fates[token] is Fate.CONFIRMED


@pytest.mark.parametrize("first", range(0, RUNS, BATCH))
def test_whatever_the_network_does(first: int) -> None:
    for seed in range(first, min(first + BATCH, RUNS)):
        try:
            one_run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
