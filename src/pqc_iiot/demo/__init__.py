"""The main job on one machine: devices, a broker nobody trusts, live readings, attacks.

Everything is done for real, over MQTT on the loopback interface. `run` is what
`pqc-iiot demo` calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run"]


def run(json: bool = False, keep: bool = False) -> int:
    """Runs the demonstration: 0 if every step went as it should, else 1.

    Tables go to standard output, or with `json` one JSON document; progress is shown on a
    terminal only. The devices' folders are temporary, or with `keep` stay where a message
    on standard error says. Raises `PqcIiotError` where the broker is not installed (it is
    in the extra `demo`).
    """
    from rich.console import Console

    from .play import TITLES, play
    from .show import show_scene, show_summary

    out = Console(markup=False, emoji=False, highlight=False)
    since = time.monotonic()
    with (
        _folder(keep) as folder,
        _progress(out if out.is_terminal and not json else None, TITLES) as advance,
        _each_warning_once(),
    ):
        scenes = asyncio.run(play(folder, advance))
    seconds = round(time.monotonic() - since, 1)
    ok = all(scene.ok for scene in scenes)
    if json:
        document = {"ok": ok, "seconds": seconds, "scenes": [asdict(scene) for scene in scenes]}
        print(json_module.dumps(document, indent=2))
    else:
        for scene in scenes:
            show_scene(out, scene)
        show_summary(out, scenes, seconds)
    if keep:
        print(f"Look around: pqc-iiot --state {folder}/controller status", file=sys.stderr)
    return 0 if ok else 1


@contextlib.contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    if keep:
        yield Path(tempfile.mkdtemp(prefix="pqc-iiot-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="pqc-iiot-demo-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _progress(out: Console | None, titles: Sequence[str]) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, `out` or else standard error; yields what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = out or Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(titles[0], total=len(titles))
        following = iter(titles[1:])
        yield lambda: progress.update(task, advance=1, description=next(following, ""))


@contextlib.contextmanager
def _each_warning_once() -> Iterator[None]:
    """All devices here are in one process, and would all warn of the same thing."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in {each.category: each.message for each in caught}.values():
        warnings.warn(warning, stacklevel=4)
