"""Third scene: someone who owns the network sees, keeps, changes and publishes frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass

from ..errors import PqcIiotError
from .arrivals import LIMIT
from .devices import Device
from .meeting import bundle_waits, refusal_to_send
from .report import Attack, Scene, Step
from .stage import LINE, Stage

TITLE = "Attacks"
SETPOINT = LINE + "setpoint"

Outcome = tuple[str, str]
"""An error's code and its event's severity."""
ACCEPTED: Outcome = ("accepted", "")
FORGED: Outcome = ("authentication_failed", "high")


@dataclass(frozen=True, slots=True)
class Loot:
    """What the attacker took from `topic`: a frame that was delivered, three later ones
    that were not (their receiver was away), and the key ids of both sensors."""

    topic: str
    delivered: bytes
    held: tuple[bytes, bytes, bytes]
    sensor: bytes
    gauge: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """One attack by publishing `frame` on `topic`, and what it should come to."""

    title: str
    done: str
    topic: str
    frame: bytes
    expected: Outcome


def plans(loot: Loot) -> tuple[Plan, ...]:
    """The attacks that need no keys. The order matters: held-back frames are above the last
    number seen, so that only what was changed can be the reason, until one is taken."""
    first, second, third = loot.held
    return (
        Plan(
            "a captured frame again",
            "A delivered frame, byte for byte, after the controller was switched off and on.",
            loot.topic,
            loot.delivered,
            ("duplicate", "informational"),
        ),
        Plan(
            "a frame with one bit changed",
            "A frame sent while the controller was off; the last bit flipped.",
            loot.topic,
            flip_last_bit(first),
            FORGED,
        ),
        Plan(
            "a frame on another topic",
            f"A second such frame, unchanged, but on {SETPOINT}.",
            SETPOINT,
            second,
            FORGED,
        ),
        Plan(
            "a frame under another name",
            "A third one, gauge's key id written over sensor's in the header.",
            loot.topic,
            third.replace(loot.sensor, loot.gauge),
            FORGED,
        ),
        Plan(
            "the same frame, unchanged",
            "For comparison, the third one as it was sent: late, but genuine and new.",
            loot.topic,
            third,
            ACCEPTED,
        ),
        Plan(
            "an old number in a frame never seen",
            "The first one as it was sent, held back until a later one was there.",
            loot.topic,
            first,
            ("replay", "high"),
        ),
        Plan(
            "a command without protection",
            f'The text {{"valve": "open"}} on {SETPOINT}.',
            SETPOINT,
            b'{"valve": "open"}',
            ("invalid_frame", "low"),
        ),
    )


def flip_last_bit(frame: bytes) -> bytes:
    """The frame with the last bit of its authentication tag changed."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


async def attack(stage: Stage) -> Scene:
    """Each attack goes through the broker to the controller, which has just restarted."""
    controller, gauge = stage.controller, stage.gauge
    taken = len(controller.received.items)
    loot = await collect(stage)
    controller.restart()
    async with controller.connected(stage.broker, LINE + "#"):
        results = []
        for plan in plans(loot):
            act = stage.outsider.publish(plan.topic, plan.frame)
            results.append(await attempt(controller, plan.title, plan.done, act, plan.expected))
        with contextlib.closing(Device(stage.folder, "stranger")) as stranger:
            results.append(await unknown_speaks(stage, stranger))
            command = f"pqc-iiot peer approve {stranger.node.bundle.fingerprint.hex()}"
            named = results[-1][0].hint.endswith(command)
        results.append(await revoked_speaks(stage, gauge))
    refusal = refusal_to_send(controller, gauge)
    got = b", ".join(message.payload for message in controller.received.items[taken:]).decode()
    steps = (
        *(step for _, step in results),
        Step.compare("nothing goes to the revoked device", "revoked_peer", refusal),
        Step("the refusal names the approve command", "yes", "yes" if named else "no", named),
        Step.compare("what reached the application", "held-back frame 3", got),
    )
    return Scene(TITLE, steps, attacks=tuple(attack for attack, _ in results))


async def collect(stage: Stage) -> Loot:
    """Takes a frame that was delivered, and keeps three that nobody else is there for."""
    wire = stage.outsider.seen
    topic, delivered = await wire.find(lambda each: each[0].startswith(LINE))
    held = []
    async with stage.sensor.connected(stage.broker) as bus:
        for payload in (b"held-back frame 1", b"held-back frame 2", b"held-back frame 3"):
            seen = len(wire.items)
            await bus.send(stage.controller.name, topic, payload)
            held.append(await wire.find(lambda each: each[0] == topic, since=seen))
    first, second, third = (frame for _, frame in held)
    sensor, gauge = (device.node.bundle.kid for device in (stage.sensor, stage.gauge))
    return Loot(topic, delivered, (first, second, third), sensor, gauge)


async def unknown_speaks(stage: Stage, stranger: Device) -> tuple[Attack, Step]:
    """A device with keys of its own, which nobody has approved."""
    stranger.node.peers.add_approved(stage.controller.node.bundle)
    async with stranger.connected(stage.broker) as bus:
        await bus.announce()
        await bundle_waits(stage.controller, stranger.name)
        return await attempt(
            stage.controller,
            "a device that nobody knows",
            "It shows its bundle, which then waits for approval, and sends a frame.",
            bus.send(stage.controller.name, SETPOINT, b"100"),
            ("unknown_peer", "medium"),
        )


async def revoked_speaks(stage: Stage, device: Device) -> tuple[Attack, Step]:
    """A device that was trusted until a moment ago."""
    stage.controller.node.peers.revoke(device.name)
    async with device.connected(stage.broker) as bus:
        return await attempt(
            stage.controller,
            "a device that was revoked",
            f"{device.name}, approved above, is revoked and sends a frame.",
            bus.send(stage.controller.name, SETPOINT, b"100"),
            ("revoked_peer", "high"),
        )


async def attempt(
    controller: Device, title: str, done: str, act: Awaitable[object], expected: Outcome
) -> tuple[Attack, Step]:
    """Lets `act` bring a frame to the broker; what the controller says, and what it logs."""
    verdicts, records = len(controller.verdicts.items), len(controller.records.items)
    try:
        await act
        verdict = await controller.verdicts.find(since=verdicts)
        if isinstance(verdict.result, PqcIiotError):
            error = verdict.result
            record = await controller.records.find(
                lambda record: record.reason == error.code, since=records
            )
            event = (record.id, record.event, record.severity.label)
            attack = Attack(title, done, error.code, str(error), error.hint, *event)
            seen: Outcome = (error.code, record.severity.label)
        else:
            message = verdict.result
            said = f"number {message.sequence} from {message.sender}"
            attack, seen = Attack(title, done, "", said), ACCEPTED
    except asyncio.TimeoutError:
        attack = Attack(title, done, "", f"nothing within {LIMIT:.0f} s")
        seen = ("no answer", "")
    return attack, Step(title, _words(expected), _words(seen), seen == expected)


def _words(outcome: Outcome) -> str:
    return ", ".join(filter(None, outcome))
