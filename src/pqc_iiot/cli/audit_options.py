"""Options of the commands that read the log: which one, and from when to when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..audit.search import moment
from .values import checked

_time = checked(moment)

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Another log than this device's.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        parser=_time,
        help="Not before: 2026-02-03, 2026-02-03T04:05 (UTC) or how long ago: 24h.",
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", parser=_time, help="Before, written in the same way."),
]
