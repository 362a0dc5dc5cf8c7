"""The demonstration for people: tables that fit the terminal, colours only on one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from .report import Attack, Comparison, LogCheck, Scene, Trip

WIDE = 100
"""Columns from which three things stand side by side."""

_EXCERPT = 44
"""Bytes of a frame that are shown."""

Row = tuple[Text, Text, Text]


def show_scene(console: Console, scene: Scene) -> None:
    """Everything that one scene has to show."""
    _title(console, scene.title)
    if scene.comparisons:
        console.print(comparisons(scene.comparisons))
    if scene.trips:
        heads = ("the device sent", "the broker saw", "the controller got")
        rows = [trip(each) for each in scene.trips]
        console.print(side_by_side(heads, rows, console.width))
    if scene.attacks:
        heads = ("the attacker", "the controller said", "its audit log")
        rows = [attack(each) for each in scene.attacks]
        console.print(side_by_side(heads, rows, console.width))
    if scene.checks:
        console.print(checks(scene.checks))


def show_summary(console: Console, scenes: Iterable[Scene], seconds: float) -> None:
    """Every step in one table, and the result in one line."""
    steps = [step for scene in scenes for step in scene.steps]
    table = _table("step", "expected", "seen", "ok")
    for step in steps:
        table.add_row(step.name, step.expected, step.seen, _verdict(step.ok, "yes", "NO"))
    _title(console, "Summary")
    console.print(table)
    good = sum(step.ok for step in steps)
    text = f"{good} of {len(steps)} steps went as they should, in {seconds:.1f} s."
    console.print(Text(f"\n{text}", "bold green" if good == len(steps) else "bold red"))


def comparisons(rows: Iterable[Comparison]) -> RenderableType:
    """Both fingerprints of each pair, above one another to be compared."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        same = row.shown == row.announced
        verdict = _verdict(same, "the same, approved", "DIFFERENT")
        grid.add_row(f"{row.device} shows", _fingerprint(row.shown))
        grid.add_row(f"{row.at} was sent", _fingerprint(row.announced), verdict)
        grid.add_row()
    return grid


def trip(trip: Trip) -> Row:
    """One reading's way."""
    excerpt = _groups(trip.frame[: 2 * _EXCERPT])
    seen = Text(f"{trip.frame_size} bytes on {trip.topic}\n")
    seen.append(f"from {trip.sender} to {trip.recipient}\n")
    seen.append(f"{excerpt} ...\n", "dim")
    seen.append(f"{trip.entropy:.2f} bits of entropy per byte; longest run of bytes in common")
    seen.append(f" with the reading: {trip.shared_run}")
    got = Text(f"{trip.got_from}, number {trip.sequence}\n")
    got.append(f"{trip.got}\n", "cyan")
    got.append_text(_verdict(trip.got == trip.sent, "the same", "DIFFERENT"))
    return Text(f"{trip.sensor}\n").append(trip.sent, "cyan"), seen, got


def attack(attack: Attack) -> Row:
    """One attack and what came of it."""
    done = Text.assemble((attack.title, "bold"), "\n", attack.done)
    said = Text.assemble((attack.code or "taken", "yellow" if attack.code else "green"), "\n")
    said.append(attack.message)
    if attack.hint:
        said.append(f"\n{attack.hint}", "dim")
    left = Text(f"{attack.event_id} {attack.severity}\n{attack.event}" if attack.event else "-")
    return done, said, left


def checks(rows: Iterable[LogCheck]) -> RenderableType:
    """What verification says of each log."""
    table = _table("log", "records", "verification")
    for row in rows:
        problems = "\n".join(f"{kind}: {text}" for kind, text in row.problems)
        table.add_row(row.log, str(row.records), problems or "no problem")
    return table


def side_by_side(heads: Sequence[str], rows: Iterable[Row], width: int) -> RenderableType:
    """Three columns where they fit, else the same three above one another."""
    if width >= WIDE:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True, expand=True)
        for head in heads:
            table.add_column(head, ratio=1, overflow="fold")
        for row in rows:
            table.add_row(*row)
        return table
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", max_width=max(map(len, heads)))
    grid.add_column(overflow="fold")
    for row in rows:
        for head, cell in zip(heads, row, strict=True):
            grid.add_row(head, cell)
        grid.add_row()
    return grid


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Rule(Text(text, "bold"), align="left", style="dim"))


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _verdict(good: bool, yes: str, no: str) -> Text:
    return Text(yes, "green") if good else Text(no, "bold red")


def _fingerprint(digits: str) -> str:
    return f"{_groups(digits[:32])}\n{_groups(digits[32:])}"


def _groups(digits: str) -> str:
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))
