"""The scenes in their order, and what happens when one breaks off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from . import attacks, ledger, meeting, travel
from .report import Scene, Step
from .stage import set_stage

TITLES = (meeting.TITLE, travel.TITLE, attacks.TITLE, ledger.TITLE)

LIMIT = 30.0
"""Seconds after which the demonstration gives up."""

log = logging.getLogger("pqc_iiot.demo")


async def play(folder: Path, over: Callable[[], None]) -> list[Scene]:
    """Plays every scene with its devices' state in `folder`; calls `over` after each.

    Raises nothing: what breaks a scene off becomes a step that failed, and the last one.
    """
    scenes: list[Scene] = []

    def end(scene: Scene) -> None:
        scenes.append(scene)
        over()

    try:
        await asyncio.wait_for(_play(folder, end), LIMIT)
    except Exception as error:
        log.debug("broken off", exc_info=True)
        seen = f"{type(error).__name__}: {error}"
        end(Scene("Broken off", (Step("the demonstration goes on", "no error", seen, False),)))
    return scenes


async def _play(folder: Path, end: Callable[[Scene], None]) -> None:
    async with set_stage(folder) as stage:
        end(await meeting.meet(stage))
        end(await travel.travel(stage))
        end(await attacks.attack(stage))
        controller_log = stage.controller.log
    end(ledger.check_log(controller_log))  # complete, now that the device is closed
