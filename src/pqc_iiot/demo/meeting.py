"""First scene: devices show their bundles to all, people approve them by fingerprint."""

from __future__ import annotations

from contextlib import AsyncExitStack

from ..errors import PqcIiotError
from ..suites import DEFAULT_SUITE
from .devices import Device
from .report import Comparison, Scene, Step
from .stage import Stage

TITLE = "Devices meet"


async def meet(stage: Stage) -> Scene:
    """Ends with controller and sensor, and controller and gauge, trusting each other."""
    sensor, gauge, controller = devices = (stage.sensor, stage.gauge, stage.controller)
    pairs = ((controller, sensor), (controller, gauge), (sensor, controller), (gauge, controller))
    made = ", ".join(sorted({f"suite {device.node.bundle.suite.id}" for device in devices}))
    refusal = refusal_to_send(sensor, controller)
    async with AsyncExitStack() as stack:
        for device in devices:
            bus = await stack.enter_async_context(device.connected(stage.broker))
            await bus.announce()
        for device, other in pairs:
            await bundle_waits(device, other.name)
    comparisons = tuple(approve(device, other) for device, other in pairs)
    same = sum(each.shown == each.announced for each in comparisons)
    steps = (
        Step.compare("three devices are made", f"suite {DEFAULT_SUITE}", made),
        Step.compare("an empty allow-list denies", "unknown_peer", refusal),
        Step.compare("fingerprints agree, then approved", "4 of 4", f"{same} of {len(pairs)}"),
    )
    return Scene(TITLE, steps, comparisons=comparisons)


def refusal_to_send(device: Device, other: Device) -> str:
    """The code of the error with which `device` refuses to send to `other`."""
    try:
        device.node.seal(b"", to=other.name)
    except PqcIiotError as error:
        return error.code
    return "allowed"


async def bundle_waits(device: Device, name: str) -> None:
    """Returns when the bundle of `name` waits for approval at `device`."""
    await device.records.find(
        lambda record: record.event == "peer_pending" and record.detail["name"] == name
    )


def approve(device: Device, other: Device) -> Comparison:
    """What a person does: compares what both devices show, and approves if it is the same."""
    (announced,) = (each for each in device.node.peers.pending() if each.name == other.name)
    shown = other.node.bundle.fingerprint.hex()
    if announced.fingerprint.hex() == shown:
        device.node.peers.approve(shown)
    return Comparison(other.name, device.name, shown, announced.fingerprint.hex())
